//! `corptokend run`: the daemon, in the foreground.

use std::path::PathBuf;

use super::{block_on, code, say};
use crate::daemon::{self, StartError, Startup, Until};

/// Run the daemon in the foreground
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Exit with 78 if the config is in error, even if the last one that was applied could run
    #[arg(long)]
    strict: bool,
}

pub(super) fn run(args: &Args, config: PathBuf) -> u8 {
    daemon::memory::give_back();
    let startup = Startup { config, strict: args.strict, attended: true };
    let outcome = block_on(async { Ok(daemon::start(startup).await?.run(Until::Stopped).await?) });
    match outcome {
        Ok(_) => 0,
        Err(error) => failed_to_start(&error),
    }
}

/// Tells why there is no daemon, and returns the exit code.
pub(super) fn failed_to_start(error: &StartError) -> u8 {
    match error {
        StartError::Config { rendered, .. } => {
            say(rendered.trim_end());
            code::CONFIG
        }
        StartError::State(_) | StartError::System(_) => {
            // It may be a daemon's end, hours after the start: nobody waits for a reader then, or nothing restarts it.
            daemon::log::last_words(&format!("error: {error}"));
            code::FAILED
        }
    }
}
