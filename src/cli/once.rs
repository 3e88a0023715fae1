//! `corptokend once`: brings every due tenant up to date, publishes, and exits.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::run::failed_to_start;
use super::{block_on, code, complain};
use crate::config::{self, Config, Surroundings};
use crate::control::protocol::{State, Status, TenantRow};
use crate::control::{Client, ClientError};
use crate::daemon::{self, Ended, StartError, Startup, Until, harden};

/// Bring every due tenant up to date, publish, and exit
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

/// How often a running daemon is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub(super) fn run(_args: &Args, config: &Path, socket: Option<&Path>) -> u8 {
    let checked = config::read(config).ok().and_then(|s| config::check(&s, &Surroundings::from_env()).config);
    if let Some(checked) = &checked {
        match Client::connect(socket.unwrap_or(&checked.control.socket)) {
            Ok(client) => return through_daemon(client),
            Err(ClientError::NoPermission(socket)) => {
                complain(&format!("a daemon runs, and {} may not be used; be root or in its group", socket.display()));
                return code::FAILED;
            }
            Err(_) => {}
        }
        if let Err(error) = become_owner(checked) {
            complain(&error);
            return code::FAILED;
        }
    }
    match alone(config) {
        Ok(ended) => tell(&ended.not_fresh, ended.tenants.into()),
        Err(error) => failed_to_start(&error),
    }
}

/// As root, what is written must belong to the daemon's user, or it could not go on with it.
fn become_owner(config: &Config) -> io::Result<()> {
    let directory = config.state.path.parent().unwrap_or(Path::new("/"));
    harden::become_owner_of(directory)
}

/// Without a daemon: be one, until everybody is served.
fn alone(config: &Path) -> Result<Ended, StartError> {
    let startup = Startup { config: config.to_path_buf(), strict: true, attended: false };
    block_on(async {
        let mut daemon = daemon::start(startup).await?;
        let mut bar = Bar::new();
        daemon.observe(move |summary| {
            let total = u64::from(summary.counts.total());
            let missing = crate::engine::State::ALL.iter().filter(|state| {
                use crate::engine::State::{Due, Expired, Pending};
                matches!(state, Pending | Due | Expired)
            });
            let missing: u64 = missing.map(|&state| u64::from(summary.counts.of(state))).sum();
            bar.show(total - missing, total);
        });
        Ok(daemon.run(Until::CaughtUp).await?)
    })
}

/// With a daemon: it does this anyway; wait until it has.
fn through_daemon(mut client: Client) -> u8 {
    let mut bar = Bar::new();
    loop {
        let status = match client.status() {
            Ok(status) => status,
            Err(error) => {
                complain(&error);
                return code::FAILED;
            }
        };
        let total: u64 = status.tenants.values().sum();
        let waiting = count(&status, &[State::Pending, State::Due]);
        bar.show(total - waiting, total);
        if waiting == 0 {
            break;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    drop(bar);
    let (mut bad, mut total) = (Vec::new(), 0);
    let all = client.tenants(&[], |row| {
        total += 1;
        if !matches!(row.state, State::Fresh | State::Disabled) {
            bad.push(row);
        }
        std::ops::ControlFlow::Continue(())
    });
    if let Err(error) = all {
        complain(&error);
        return code::FAILED;
    }
    bad.sort_by(|a, b| (a.state.rank(), &a.tenant).cmp(&(b.state.rank(), &b.tenant)));
    tell(&bad, total)
}

fn count(status: &Status, states: &[State]) -> u64 {
    states.iter().filter_map(|state| status.tenants.get(state)).sum()
}

/// Says how it went, and returns the exit code.
fn tell(bad: &[TenantRow], total: u64) -> u8 {
    let fresh = total - bad.len() as u64;
    println!("{fresh} of {total} tenants are fresh");
    for row in bad {
        let why = row.last_error.as_ref().map_or(row.why.as_str(), |error| error.detail.as_str());
        eprintln!("{}: {}: {why}", row.tenant, row.state);
    }
    if bad.is_empty() { 0 } else { code::FAILED }
}

/// A bar on a terminal; elsewhere a line now and then.
struct Bar {
    bar: Option<ProgressBar>,
    tenth: u64,
}

impl Bar {
    fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:40} {pos}/{len} tenants, {eta} left");
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, tenth: 0 }
    }

    fn show(&mut self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        } else if total > 0 && done * 10 / total > self.tenth {
            self.tenth = done * 10 / total;
            eprintln!("{done} of {total} tenants are up to date");
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
