//! corptokend: the command line, and an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    corptokend::daemon::harden::no_dumps();
    corptokend::daemon::harden::discreet_panics();
    ExitCode::from(corptokend::cli::main())
}
