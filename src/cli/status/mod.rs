//! `corptokend status`: what the daemon knows, worst first.

mod table;

use std::io::{ErrorKind, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use crate::control::protocol::{State, Status, TenantRow, total};
use crate::control::{Client, ClientError};
use crate::domain::TenantId;

use super::terminal::SafeJson;
pub use table::Colour;
use table::Table;

/// How many tenants are shown to people who did not ask for all.
const WORST: usize = 50;

/// Nobody listens, or gives a proper answer.
const NO_DAEMON: u8 = 3;
/// `EX_NOPERM` of sysexits.h.
const NO_PERMISSION: u8 = 77;

/// Show what the daemon knows: state, time left, next refresh and why then, last error
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Only these tenants, written app/corp_id
    #[arg(value_name = "TENANT")]
    pub tenants: Vec<TenantId>,
    /// One JSON object, {"status": …, "tenants": […]}, with every tenant
    #[arg(long, conflicts_with = "watch")]
    pub json: bool,
    /// Redraw every second
    #[arg(long)]
    pub watch: bool,
    /// Every tenant, not only the worst 50
    #[arg(long)]
    pub all: bool,
}

/// Asks the daemon on `socket` and writes what it says to `out`, and what goes wrong to `err`.
///
/// Returns the exit code: 0 all fresh and published, no rejected config and nothing held back; 1 some pending, due, failing,
/// refused, not published or not known; 2 some expired; 3 no daemon, or none that answers; 75 a daemon that is busy; 77 no
/// permission. Of tenants that are asked for by name, only they count. With `--watch` it goes on until `out` is gone or
/// permission is refused.
pub fn run(args: &Args, socket: &Path, out: &mut dyn Write, err: &mut dyn Write, colour: Colour) -> u8 {
    if args.watch {
        return watch(args, socket, out, err, colour);
    }
    show(args, socket, out, err, colour).unwrap_or_else(|error| {
        // Whoever closed the pipe (`| head`) has read enough.
        if !matches!(&error, ClientError::Output(e) if e.kind() == ErrorKind::BrokenPipe) {
            let _ = writeln!(err, "error: {error}");
        }
        exit_code(&error)
    })
}

fn exit_code(error: &ClientError) -> u8 {
    match error {
        ClientError::NoPermission(_) => NO_PERMISSION,
        ClientError::Busy { .. } => super::code::BUSY,
        ClientError::NoDaemon(_)
        | ClientError::Silent { .. }
        | ClientError::Impostor { .. }
        | ClientError::Other { .. } => NO_DAEMON,
        ClientError::Output(_) => 1,
    }
}

/// Goes on while there is no daemon: a restart is when one wants to watch.
fn watch(args: &Args, socket: &Path, out: &mut dyn Write, err: &mut dyn Write, colour: Colour) -> u8 {
    loop {
        let (mut screen, mut troubles) = (Vec::new(), Vec::new());
        let shown = show(args, socket, &mut screen, &mut troubles, colour);
        if let Err(error) = &shown {
            let _ = writeln!(troubles, "error: {error}");
            if matches!(error, ClientError::NoPermission(_)) {
                let _ = err.write_all(&troubles);
                return NO_PERMISSION;
            }
        }
        screen.extend_from_slice(&troubles);
        if table::redraw(&screen, out).is_err() {
            return shown.unwrap_or(NO_DAEMON);
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn show(
    args: &Args,
    socket: &Path,
    out: &mut dyn Write,
    err: &mut dyn Write,
    colour: Colour,
) -> Result<u8, ClientError> {
    let mut client = Client::connect(socket)?;
    let status = client.status()?;
    if args.json && args.tenants.is_empty() {
        let text = serde_json::to_string(&status).map_err(|e| ClientError::Output(e.into()))?;
        let mut out = SafeJson::new(out);
        write!(out, "{{\"status\":{text},").map_err(ClientError::Output)?;
        // The list's own opening brace is left out: its members become ours.
        client.copy_tenants(&mut out)?;
        return Ok(severity(&status));
    }
    let (rows, code) = match &args.tenants[..] {
        [] => (gather(args, &status, &mut client)?, severity(&status)),
        named => look_up(named, &mut client, err)?,
    };
    let written = if args.json {
        let value = serde_json::json!({ "status": status, "tenants": rows });
        writeln!(SafeJson::new(out), "{value}")
    } else {
        write!(out, "{}", Table { status: &status, rows: &rows, named: !args.tenants.is_empty(), colour })
    };
    written.map_err(ClientError::Output)?;
    Ok(code)
}

/// The tenants that were asked for by name, and the exit code that they make.
fn look_up(named: &[TenantId], client: &mut Client, err: &mut dyn Write) -> Result<(Vec<TenantRow>, u8), ClientError> {
    let mut rows = Vec::new();
    let mut code = 0;
    for id in named {
        match client.tenant(id)? {
            Some(row) => {
                code = code.max(severity_of(row.state));
                rows.push(row);
            }
            None => {
                let _ = writeln!(err, "error: there is no tenant {id}; `corptokend status --all` lists them");
                code = code.max(1);
            }
        }
    }
    sort(&mut rows);
    Ok((rows, code))
}

/// The worst tenants, worst first; all, when there are few or all are wanted. Fresh ones are asked for only then: a
/// summary of 100,000 fresh tenants is a matter of milliseconds. No more are held than are shown, whatever comes.
fn gather(args: &Args, status: &Status, client: &mut Client) -> Result<Vec<TenantRow>, ClientError> {
    let mut rows = Vec::new();
    let few = total(status.tenants.values()) <= WORST as u64;
    let most = if args.all { usize::MAX } else { WORST };
    let ask = |client: &mut Client, states: &[State], rows: &mut Vec<TenantRow>| {
        client.tenants(states, |row| {
            rows.push(row);
            if rows.len() >= most.saturating_mul(2) {
                sort(rows);
                rows.truncate(most);
            }
            ControlFlow::Continue(())
        })?;
        sort(rows);
        rows.truncate(most);
        Ok::<_, ClientError>(())
    };
    if args.all || few {
        ask(client, &[], &mut rows)?;
        return Ok(rows);
    }
    for state in State::WORST_FIRST {
        let some = status.tenants.get(&state).is_some_and(|count| *count > 0);
        if some && severity_of(state) > 0 && rows.len() < WORST {
            ask(client, &[state], &mut rows)?;
        }
    }
    Ok(rows)
}

/// Worst first: by state, then by what is left of the token's life.
fn sort(rows: &mut [TenantRow]) {
    rows.sort_by(|a, b| {
        let key = |row: &TenantRow| (row.state.rank(), row.expires_in_s.unwrap_or(i64::MIN));
        key(a).cmp(&key(b)).then_with(|| a.tenant.cmp(&b.tenant))
    });
}

fn severity(status: &Status) -> u8 {
    let present = status.tenants.iter().filter(|(_, count)| **count > 0);
    let worst = present.map(|(state, _)| severity_of(*state)).max().unwrap_or(0);
    // What is on disk is not what runs, and somebody believes that it does.
    let config = &status.config;
    worst.max(u8::from(!config.last_reload_successful || config.held_back.is_some()))
}

fn severity_of(state: State) -> u8 {
    match state {
        State::Fresh | State::Disabled => 0,
        State::Pending | State::Due | State::Failing | State::Unpublished | State::Refused => 1,
        State::Expired => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{ConfigStatus, HeldBack};

    fn status(states: &[(State, u64)]) -> Status {
        let config = ConfigStatus { last_reload_successful: true, ..ConfigStatus::default() };
        Status { tenants: states.iter().copied().collect(), config, ..Status::default() }
    }

    #[test]
    fn a_config_that_is_rejected_or_held_back_is_no_success() {
        let mut rejected = status(&[(State::Fresh, 5)]);
        rejected.config.last_reload_successful = false;
        assert_eq!(severity(&rejected), 1);
        let mut held_back = status(&[(State::Fresh, 5)]);
        held_back.config.held_back = Some(HeldBack { removed: 3 });
        assert_eq!(severity(&held_back), 1);
        held_back.tenants.insert(State::Expired, 1);
        assert_eq!(severity(&held_back), 2);
    }

    #[test]
    fn the_exit_code_is_the_worst_states() {
        let code = |states: &[(State, u64)]| severity(&status(states));
        assert_eq!(code(&[]), 0);
        assert_eq!(code(&[(State::Fresh, 5), (State::Disabled, 1), (State::Expired, 0)]), 0);
        for state in [State::Pending, State::Due, State::Failing, State::Unpublished, State::Refused] {
            assert_eq!(code(&[(State::Fresh, 5), (state, 1)]), 1, "{state}");
        }
        assert_eq!(code(&[(State::Failing, 5), (State::Expired, 1)]), 2);
    }
}
