//! `corptokend once`: brings every due tenant up to date, publishes, and exits.

mod progress;

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use super::run::failed_to_start;
use super::terminal::printable;
use super::{block_on, code, complain, unread};
use crate::config::{self, Checked, LogLevel, Process};
use crate::control::protocol::{SinkState, State, Status, TenantRow, total};
use crate::control::{Client, ClientError};
use crate::daemon::{self, Ended, StartError, Startup, Until, harden};
use crate::domain::FailureKind;
use crate::engine;
use progress::Progress;

/// Bring every due tenant up to date, publish, and exit
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

/// How often a running daemon is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Tenants whose calls came too early are waited for as long as they become fewer within so many looks: 15 s. An app can be
/// throttled for hours.
const LOOKS_IN_VAIN: u32 = 75;

pub(super) fn run(_args: &Args, config: &Path, socket: &Path, out: &mut dyn Write) -> u8 {
    match Client::connect(socket) {
        Ok(client) => return through_daemon(client, out),
        Err(ClientError::NoDaemon(_)) => {}
        // A daemon may run: to go on without it would be to call for its tenants.
        Err(error) => {
            complain(&error);
            return code::FAILED;
        }
    }
    match alone(config) {
        Ok(ended) => tell(&ended.not_fresh, ended.tenants.into(), out),
        Err(error) => failed_to_start(&error),
    }
}

/// Without a daemon: be one, until everybody is served.
fn alone(config: &Path) -> Result<Ended, StartError> {
    become_owner(config)?;
    if let Some(checked) = check(config).and_then(|checked| checked.config) {
        // Progress and the list at the end say the rest.
        daemon::log::init(checked.log.format, LogLevel::Error);
    }
    let startup = Startup { config: config.to_path_buf(), strict: true, attended: false };
    block_on(async {
        let mut daemon = daemon::start(startup).await?;
        let mut progress = Progress::new();
        daemon.observe(move |summary| {
            use engine::State::{Due, Expired, Pending};
            let missing: u32 = [Pending, Due, Expired].iter().map(|&state| summary.counts.of(state)).sum();
            let total = summary.counts.total();
            progress.show((total - missing).into(), total.into());
        });
        Ok(daemon.run(Until::CaughtUp).await?)
    })
}

/// As root, what is written must belong to the daemon's user, or it could not go on with it. What is wrong with the config in
/// root's eyes may be right in that user's, so it is looked at again.
fn become_owner(config: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let Some(checked) = check(config) else { return Ok(()) };
    harden::become_owner_of(checked.outline.state.parent().unwrap_or(Path::new("/")))
}

fn check(config: &Path) -> Option<Checked> {
    Some(config::check(&config::read(config).ok()?, &Process::from_env()))
}

/// With a daemon: it does this anyway; wait until it has.
fn through_daemon(mut client: Client, out: &mut dyn Write) -> u8 {
    match wait_for_daemon(&mut client) {
        Ok((bad, total)) => tell(&bad, total, out),
        Err(error) => {
            complain(&error);
            code::FAILED
        }
    }
}

/// Waits until no tenant waits for its turn, or nobody gets one. Returns the tenants that are not well then, and how many there are in all.
fn wait_for_daemon(client: &mut Client) -> Result<(Vec<TenantRow>, u64), ClientError> {
    let mut progress = Progress::new();
    let (mut fewest, mut looks_in_vain) = (usize::MAX, 0);
    loop {
        let status = client.status()?;
        let total = total(status.tenants.values());
        let waiting = count(&status, &[State::Pending, State::Due]);
        progress.show(total - waiting, total);
        // Nobody is called for minutes when the address is banned.
        let is_paused = status.api_paused_until.is_some();
        if waiting == 0 || is_paused {
            let (bad, total) = not_well(client)?;
            let throttled = bad.iter().filter(|row| was_throttled(row)).count();
            looks_in_vain = if throttled < fewest { 0 } else { looks_in_vain + 1 };
            fewest = fewest.min(throttled);
            if is_paused || throttled == 0 || looks_in_vain >= LOOKS_IN_VAIN {
                return Ok((bad, total));
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn count(status: &Status, states: &[State]) -> u64 {
    total(states.iter().filter_map(|state| status.tenants.get(state)))
}

/// Its call came too early: mostly it has its turn again within seconds.
fn was_throttled(row: &TenantRow) -> bool {
    let too_early = [FailureKind::AppThrottled.as_str(), FailureKind::ApiThrottled.as_str()];
    row.last_error.as_ref().is_some_and(|error| too_early.contains(&error.kind.as_str()))
}

/// The tenants that are not fresh, or not published everywhere, worst first; and how many there are in all.
fn not_well(client: &mut Client) -> Result<(Vec<TenantRow>, u64), ClientError> {
    let (mut bad, mut total) = (Vec::new(), 0);
    client.tenants(&[], |row| {
        total += 1;
        let published = row.sinks.iter().all(|sink| sink.state != SinkState::Failing);
        if !(row.state == State::Disabled || (row.state == State::Fresh && published)) {
            bad.push(row);
        }
        ControlFlow::Continue(())
    })?;
    bad.sort_by(|a, b| (a.state.rank(), &a.tenant).cmp(&(b.state.rank(), &b.tenant)));
    Ok((bad, total))
}

/// Says how it went, and returns the exit code.
fn tell(bad: &[TenantRow], total: u64, out: &mut dyn Write) -> u8 {
    for row in bad {
        complain(&format!("{}: {}: {}", printable(&row.tenant), row.state, printable(why(row))));
    }
    let well = total - bad.len() as u64;
    let tenants = if total == 1 { "tenant" } else { "tenants" };
    match writeln!(out, "{well} of {total} {tenants} fresh and published") {
        Err(error) => unread(&error),
        Ok(()) if bad.is_empty() => 0,
        Ok(()) => code::FAILED,
    }
}

/// What ails it: the call that failed, else the place that cannot be written.
fn why(row: &TenantRow) -> &str {
    let sink = row.sinks.iter().find_map(|sink| sink.error.as_deref());
    row.last_error.as_ref().map(|error| error.detail.as_str()).or(sink).unwrap_or(&row.why)
}
