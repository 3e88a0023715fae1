//! `corptokend man`: the manual pages, made of the declaration of the arguments and of the config's keys.

use std::io;
use std::path::{Path, PathBuf};

use clap::Command;

use super::super::terminal::{Exit, report};
use crate::config::schema;

/// Write the manual pages into a directory
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ManArgs {
    /// An existing directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(in crate::cli) fn run(args: &ManArgs, command: Command) -> Exit {
    match write_pages(&args.directory, command) {
        Ok(()) => Exit::Success,
        Err(error) => {
            report(format_args!("cannot write manual pages to {}: {error}", args.directory.display()));
            Exit::Failed
        }
    }
}

/// A page for the program, one for each command, and one for the config.
fn write_pages(directory: &Path, command: Command) -> io::Result<()> {
    clap_mangen::generate_to(command.disable_help_subcommand(true), directory)?;
    std::fs::write(directory.join("corptokend.toml.5"), schema::man_page())
}
