//! `corptokend completions`: completions for a shell, made of the declaration of the arguments.

use std::io::Write;

use clap::Command;
use clap_complete::Shell;

use super::super::terminal::{Exit, output_failed};

/// Print completions for a shell
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct CompletionsArgs {
    shell: Shell,
}

pub(in crate::cli) fn run(args: &CompletionsArgs, mut command: Command, out: &mut dyn Write) -> Exit {
    // The generator panics where it cannot write, so it writes to memory.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "corptokend", &mut script);
    match out.write_all(&script) {
        Ok(()) => Exit::Success,
        Err(error) => output_failed(&error),
    }
}
