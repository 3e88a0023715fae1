//! `corptokend status`: what the daemon knows, the worst tenants first.

mod table;

use std::io::{ErrorKind, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use crate::control::protocol::{DaemonStatus, TenantRow};
use crate::control::{ControlClient, ControlError};
use crate::domain::{TenantId, TenantState};

use super::terminal::{Colour, Exit, SafeJson, redraw};
use table::StatusTable;

/// How many tenants are shown without `--all`.
const WORST: usize = 50;

/// Show what the daemon knows: state, time left, next refresh and why then, last error
#[derive(Debug, Default, clap::Args)]
pub struct StatusArgs {
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

/// Asks the daemon on `socket`, and writes its answer to `out` and errors to `err`.
///
/// Returns [`Exit::Success`] if all tenants are fresh and published, no config is rejected and no removal held back;
/// [`Exit::Failed`] if some are pending, due, failing, refused, not published or not known; [`Exit::Expired`] if some are
/// expired. If tenants are named, only they count. With `--watch` it goes on until `out` is closed or permission is refused.
pub fn run(args: &StatusArgs, socket: &Path, out: &mut dyn Write, err: &mut dyn Write, colour: Colour) -> Exit {
    if args.watch {
        return watch(args, socket, out, err, colour);
    }
    show(args, socket, out, err, colour).unwrap_or_else(|error| {
        // A closed pipe (`| head`) is not reported: the reader has read enough.
        if !matches!(&error, ControlError::Output(e) if e.kind() == ErrorKind::BrokenPipe) {
            let _ = writeln!(err, "error: {error}");
        }
        Exit::of_client_error(&error, Exit::NoDaemon)
    })
}

/// Goes on while there is no daemon: an operator watches a restart.
fn watch(args: &StatusArgs, socket: &Path, out: &mut dyn Write, err: &mut dyn Write, colour: Colour) -> Exit {
    loop {
        let (mut screen, mut errors) = (Vec::new(), Vec::new());
        let shown = show(args, socket, &mut screen, &mut errors, colour);
        if let Err(error) = &shown {
            let _ = writeln!(errors, "error: {error}");
            if matches!(error, ControlError::NoPermission(_)) {
                let _ = err.write_all(&errors);
                return Exit::NoPermission;
            }
        }
        screen.extend_from_slice(&errors);
        if redraw(&String::from_utf8_lossy(&screen), out).is_err() {
            return shown.unwrap_or(Exit::NoDaemon);
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn show(
    args: &StatusArgs,
    socket: &Path,
    out: &mut dyn Write,
    err: &mut dyn Write,
    colour: Colour,
) -> Result<Exit, ControlError> {
    let mut client = ControlClient::connect(socket)?;
    let status = client.status()?;
    if args.json && args.tenants.is_empty() {
        let text = serde_json::to_string(&status).map_err(|e| ControlError::Output(e.into()))?;
        let mut out = SafeJson::new(out);
        write!(out, "{{\"status\":{text},").map_err(ControlError::Output)?;
        // Without the list's own opening brace: its members become members of this object.
        client.copy_tenants(&mut out)?;
        return Ok(severity(&status));
    }
    let (rows, exit) = match &args.tenants[..] {
        [] => (worst_rows(args, &status, &mut client)?, severity(&status)),
        named => named_rows(named, &mut client, err)?,
    };
    let written = if args.json {
        let value = serde_json::json!({ "status": status, "tenants": rows });
        writeln!(SafeJson::new(out), "{value}")
    } else {
        write!(out, "{}", StatusTable { status: &status, rows: &rows, named: !args.tenants.is_empty(), colour })
    };
    written.map_err(ControlError::Output)?;
    Ok(exit)
}

/// The named tenants, and the exit code that follows from them.
fn named_rows(
    named: &[TenantId],
    client: &mut ControlClient,
    err: &mut dyn Write,
) -> Result<(Vec<TenantRow>, Exit), ControlError> {
    let mut rows = Vec::new();
    let mut exit = Exit::Success;
    for id in named {
        match client.tenant(id)? {
            Some(row) => {
                exit = exit.max(severity_of(row.state));
                rows.push(row);
            }
            None => {
                let _ = writeln!(err, "error: there is no tenant {id}; `corptokend status --all` lists them");
                exit = exit.max(Exit::Failed);
            }
        }
    }
    sort(&mut rows);
    Ok((rows, exit))
}

/// The worst tenants, worst first; all of them if there are few, or with `--all`. Fresh tenants are requested only then, so a
/// summary of 100,000 fresh tenants takes milliseconds. No more rows are held than are shown.
fn worst_rows(
    args: &StatusArgs,
    status: &DaemonStatus,
    client: &mut ControlClient,
) -> Result<Vec<TenantRow>, ControlError> {
    let mut rows = Vec::new();
    let few = status.tenants.total() <= WORST as u64;
    let most = if args.all { usize::MAX } else { WORST };
    let ask = |client: &mut ControlClient, states: &[TenantState], rows: &mut Vec<TenantRow>| {
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
        Ok::<_, ControlError>(())
    };
    if args.all || few {
        ask(client, &[], &mut rows)?;
        return Ok(rows);
    }
    for state in TenantState::WORST_FIRST {
        if status.tenants.of(state) > 0 && severity_of(state) > Exit::Success && rows.len() < WORST {
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

fn severity(status: &DaemonStatus) -> Exit {
    let worst = status.tenants.present().map(|(state, _)| severity_of(state)).max().unwrap_or(Exit::Success);
    // The config on disk is not the one that runs, although an operator may believe so.
    let config = &status.config;
    if !config.last_reload_successful || config.held_back.is_some() { worst.max(Exit::Failed) } else { worst }
}

fn severity_of(state: TenantState) -> Exit {
    match state {
        TenantState::Fresh | TenantState::Disabled => Exit::Success,
        TenantState::Pending
        | TenantState::Due
        | TenantState::Failing
        | TenantState::Unpublished
        | TenantState::Refused => Exit::Failed,
        TenantState::Expired => Exit::Expired,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{ConfigStatus, HeldBack};

    fn status(states: &[(TenantState, u64)]) -> DaemonStatus {
        let config = ConfigStatus { last_reload_successful: true, ..ConfigStatus::default() };
        DaemonStatus { tenants: states.iter().copied().collect(), config, ..DaemonStatus::default() }
    }

    #[test]
    fn a_config_that_is_rejected_or_held_back_is_no_success() {
        let mut rejected = status(&[(TenantState::Fresh, 5)]);
        rejected.config.last_reload_successful = false;
        assert_eq!(severity(&rejected), Exit::Failed);
        let mut held_back = status(&[(TenantState::Fresh, 5)]);
        held_back.config.held_back = Some(HeldBack { removed: 3 });
        assert_eq!(severity(&held_back), Exit::Failed);
        held_back.tenants.add(TenantState::Expired);
        assert_eq!(severity(&held_back), Exit::Expired);
    }

    #[test]
    fn the_exit_code_is_the_worst_states() {
        let code = |states: &[(TenantState, u64)]| severity(&status(states));
        assert_eq!(code(&[]), Exit::Success);
        assert_eq!(
            code(&[(TenantState::Fresh, 5), (TenantState::Disabled, 1), (TenantState::Expired, 0)]),
            Exit::Success
        );
        for state in [
            TenantState::Pending,
            TenantState::Due,
            TenantState::Failing,
            TenantState::Unpublished,
            TenantState::Refused,
        ] {
            assert_eq!(code(&[(TenantState::Fresh, 5), (state, 1)]), Exit::Failed, "{state}");
        }
        assert_eq!(code(&[(TenantState::Failing, 5), (TenantState::Expired, 1)]), Exit::Expired);
    }
}
