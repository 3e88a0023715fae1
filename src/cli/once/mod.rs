//! `corptokend once`: brings every due tenant up to date, publishes, and exits.

mod progress;

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use super::run::{block_on, report_start_error};
use super::terminal::{Exit, counted, output_failed, printable, report};
use crate::config::{Checked, Draft};
use crate::control::protocol::{SinkState, TenantRow};
use crate::control::{ControlClient, ControlError};
use crate::daemon::{self, Ended, StartError, Startup, Until};
use crate::domain::{FailureKind, LogLevel, TenantState};
use crate::environment;
use crate::system::{log, process};
use progress::Progress;

/// Bring every due tenant up to date, publish, and exit
#[derive(Debug, clap::Args)]
pub(super) struct OnceArgs {}

/// How often a running daemon is asked how far it is.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Tenants whose calls were throttled are waited for as long as their number falls within so many polls: 15 s. An app can be
/// throttled for hours.
const POLLS_WITHOUT_PROGRESS: u32 = 75;

pub(super) fn run(_args: &OnceArgs, config: &Path, socket: &Path, out: &mut dyn Write) -> Exit {
    match ControlClient::connect(socket) {
        Ok(mut client) => match wait_for_daemon(&mut client) {
            Ok((bad, total)) => report_outcome(&bad, total, out),
            Err(error) => failed(&error),
        },
        Err(ControlError::NoDaemon(_)) => match run_daemon(config) {
            Ok(Ended { by: Until::Stopped, .. }) => {
                report("interrupted before every tenant had its turn; run it again for the rest");
                Exit::Failed
            }
            Ok(ended) => report_outcome(&ended.not_fresh, ended.tenants, out),
            Err(error) => report_start_error(&error),
        },
        // A daemon may be running: without its answer, its tenants must not be called.
        Err(error) => failed(&error),
    }
}

fn failed(error: &ControlError) -> Exit {
    report(error);
    Exit::Failed
}

/// Without a daemon: runs one until every tenant is up to date.
fn run_daemon(config: &Path) -> Result<Ended, StartError> {
    become_owner(config)?;
    if let Some(checked) = check(config).and_then(|checked| checked.config) {
        // Progress and the list at the end say the rest.
        log::init(checked.log.format, LogLevel::Error);
    }
    let startup = Startup { config: config.to_path_buf(), strict: true, attended: false };
    block_on(async {
        let mut daemon = daemon::start(startup).await?;
        let mut progress = Progress::new();
        daemon.observe(move |summary| {
            use crate::domain::TenantState::{Due, Expired, Pending};
            let missing = summary.counts.of_any(&[Pending, Due, Expired]);
            let total = summary.counts.total();
            progress.show(total - missing, total);
        });
        Ok(daemon.run(Until::CaughtUp).await?)
    })
}

/// Root becomes the owner of the state directory, because what is written must belong to the daemon's user. The config is checked
/// again afterwards: what is wrong for root may be right for that user.
fn become_owner(config: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let Ok(sources) = environment::read(config) else { return Ok(()) };
    let state = Draft::read(&sources, &environment::process()).outline().state;
    process::become_owner_of(state.parent().unwrap_or(Path::new("/")))
}

fn check(config: &Path) -> Option<Checked> {
    Some(environment::check(&environment::read(config).ok()?, &environment::process()))
}

/// With a daemon, which does the work anyway: waits until no tenant waits for its turn, or until no tenant gets one. Returns the
/// tenants that are not fresh then, and how many there are in all.
fn wait_for_daemon(client: &mut ControlClient) -> Result<(Vec<TenantRow>, u64), ControlError> {
    let mut progress = Progress::new();
    let (mut fewest, mut polls_in_vain) = (usize::MAX, 0);
    loop {
        let status = client.status()?;
        let total = status.tenants.total();
        let waiting = status.tenants.of_any(&[TenantState::Pending, TenantState::Due]);
        progress.show(total - waiting, total);
        // While the address is banned, no call is made for minutes.
        let is_paused = status.api_paused_until.is_some();
        if waiting == 0 || is_paused {
            let (bad, total) = not_fresh(client)?;
            let throttled = bad.iter().filter(|row| was_throttled(row)).count();
            polls_in_vain = if throttled < fewest { 0 } else { polls_in_vain + 1 };
            fewest = fewest.min(throttled);
            if is_paused || throttled == 0 || polls_in_vain >= POLLS_WITHOUT_PROGRESS {
                return Ok((bad, total));
            }
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Whether its call was throttled: mostly it is called again within seconds.
fn was_throttled(row: &TenantRow) -> bool {
    let throttled = [FailureKind::AppThrottled.as_str(), FailureKind::ApiThrottled.as_str()];
    row.last_error.as_ref().is_some_and(|error| throttled.contains(&error.kind.as_str()))
}

/// The tenants that are not fresh, or not published everywhere, worst first; and how many there are in all.
fn not_fresh(client: &mut ControlClient) -> Result<(Vec<TenantRow>, u64), ControlError> {
    let (mut bad, mut total) = (Vec::new(), 0);
    client.tenants(&[], |row| {
        total += 1;
        let published = row.sinks.iter().all(|sink| sink.state != SinkState::Failing);
        if !(row.state == TenantState::Disabled || (row.state == TenantState::Fresh && published)) {
            bad.push(row);
        }
        ControlFlow::Continue(())
    })?;
    bad.sort_by(|a, b| (a.state.rank(), &a.tenant).cmp(&(b.state.rank(), &b.tenant)));
    Ok((bad, total))
}

/// Lists the tenants that are not fresh, and returns the exit code.
fn report_outcome(bad: &[TenantRow], total: u64, out: &mut dyn Write) -> Exit {
    for row in bad {
        report(format_args!("{}: {}: {}", printable(&row.tenant), row.state, printable(why(row))));
    }
    let fresh = total - bad.len() as u64;
    match writeln!(out, "{fresh} of {} fresh and published", counted(total, "tenant")) {
        Err(error) => output_failed(&error),
        Ok(()) if bad.is_empty() => Exit::Success,
        Ok(()) => Exit::Failed,
    }
}

/// Why it is not fresh: the call that failed, else the sink that cannot be written.
fn why(row: &TenantRow) -> &str {
    let sink = row.sinks.iter().find_map(|sink| sink.error.as_deref());
    row.last_error.as_ref().map(|error| error.detail.as_str()).or(sink).unwrap_or(&row.why)
}
