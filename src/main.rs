//! corptokend: the command line, and an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    corptokend::system::process::no_dumps();
    corptokend::system::process::discreet_panics();
    ExitCode::from(corptokend::cli::main())
}
