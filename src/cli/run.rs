//! `corptokend run`: the daemon, in the foreground.

use std::io;
use std::path::PathBuf;

use super::terminal::{Exit, print_line};
use crate::daemon::{self, StartError, Startup, Until};
use crate::system::{log, process};

/// Run the daemon in the foreground
#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    /// Exit with 78 if the config is in error, even if the last one that was applied could run
    #[arg(long)]
    strict: bool,
}

pub(super) fn run(args: &RunArgs, config: PathBuf) -> Exit {
    process::give_memory_back();
    let startup = Startup { config, strict: args.strict, attended: true };
    let outcome = block_on(async { Ok(daemon::start(startup).await?.run(Until::Stopped).await?) });
    match outcome {
        Ok(_) => Exit::Success,
        Err(error) => report_start_error(&error),
    }
}

/// Reports why there is no daemon, and returns the exit code.
pub(super) fn report_start_error(error: &StartError) -> Exit {
    match error {
        StartError::Config { rendered, .. } => {
            print_line(rendered.trim_end());
            Exit::Config
        }
        StartError::Unanswered { .. } | StartError::State(_) | StartError::System(_) => {
            // The daemon may have run for hours. A reader of stderr that hangs must not keep it from ending, or nothing
            // restarts it.
            log::last_words(&format!("error: {error}"));
            Exit::Failed
        }
    }
}

/// Runs a command's future on a runtime of its own, with one thread, because the engine runs on one. A name lookup that hangs in
/// the resolver is abandoned at the end; otherwise it would delay the exit.
pub(super) fn block_on<T, E: From<io::Error>>(future: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(future);
    runtime.shutdown_background();
    outcome
}
