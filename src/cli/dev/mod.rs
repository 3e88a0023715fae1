//! `corptokend dev`: a simulated endpoint and the real daemon against it, in one process, to try it out.

mod introduction;
mod scratch;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::run::{block_on, report_start_error};
use super::terminal::Exit;
use crate::daemon::{self, StartError, Startup, Until};
use crate::sandbox::{self, Options, TokenMode};
use scratch::Scratch;

/// Try it: a simulated endpoint and the daemon against it, with a small config to play with
#[derive(Debug, clap::Args)]
pub(super) struct DevArgs {
    /// How long a token lives, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(5..=7200))]
    lifetime: u32,
    /// An empty directory for config, tokens and state; it stays [default: a new one below $TMPDIR, removed at the end]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(args: &DevArgs, out: &mut dyn Write) -> Exit {
    match block_on(play(args, out)) {
        Ok(()) => Exit::Success,
        Err(error) => report_start_error(&error),
    }
}

async fn play(args: &DevArgs, out: &mut dyn Write) -> Result<(), StartError> {
    let sandbox = sandbox::start(options(args)).await?;
    let scratch = Scratch::new(args.dir.as_deref())?;
    let config = scratch.lay_out(&sandbox)?;
    let startup = Startup { config, strict: false, attended: true };
    introduction::write(&scratch, &sandbox, args.lifetime, out)?;
    let daemon = daemon::start(startup).await?;
    let hangups = tokio::spawn(end_with_the_terminal(signal(SignalKind::hangup())?));
    let ended = daemon.run(Until::Stopped).await;
    hangups.abort();
    sandbox.stop().await;
    ended?;
    Ok(())
}

/// Stops when the terminal is closed. A daemon takes SIGHUP as a request to reload, but a closed terminal sends it too.
async fn end_with_the_terminal(mut hangups: Signal) {
    while io::stdin().is_terminal() && hangups.recv().await.is_some() {
        if !io::stdin().is_terminal() {
            // It stops as after Ctrl-C, and cleans up. A process may always signal itself.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
        }
    }
}

/// DingTalk's limits, with short lifetimes, so that there is something to see.
fn options(args: &DevArgs) -> Options {
    let owned = |pairs: [(&str, &str); 2]| pairs.map(|(id, secret)| (id.to_owned(), secret.to_owned())).into();
    Options {
        lifetime_s: args.lifetime,
        mode: TokenMode::New,
        per_app_limit: Some(20),
        apps: owned([("ding-crm", scratch::CRM_SECRET), ("ding-hr", scratch::HR_SECRET)]),
        known_corps: Some(["ding-acme", "ding-globex", "ding-initech", "ding-umbrella"].map(str::to_owned).into()),
        ..Options::default()
    }
}
