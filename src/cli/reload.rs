//! `corptokend reload`: has the daemon read its config now, and reports what became of it. systemd runs it as `ExecReload=`, so
//! that `systemctl reload` fails if the config is rejected.

use std::io::{self, Write};
use std::path::Path;

use super::terminal::{Exit, counted, output_failed, printable_lines};
use crate::control::ControlClient;
use crate::control::protocol::{ReloadRequest, ReloadVerdict};

/// Reload the config now, and wait for the verdict
#[derive(Debug, clap::Args)]
pub struct ReloadArgs {
    /// Also carry out a removal of all tenants, or of more than half of them
    #[arg(long)]
    pub allow_mass_removal: bool,
}

/// Asks the daemon on `socket`. What was applied goes to `out`, everything else to `err`.
///
/// Returns [`Exit::Success`] if the config was applied, [`Exit::Config`] if it was rejected.
pub fn run(args: &ReloadArgs, socket: &Path, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
    let request = ReloadRequest { allow_mass_removal: args.allow_mass_removal, dry_run: false };
    match ControlClient::connect(socket).and_then(|mut client| client.reload(request)) {
        Ok(verdict) => match write(&verdict, out, err) {
            Ok(()) if verdict.applied => Exit::Success,
            Ok(()) => Exit::Config,
            Err(error) => output_failed(&error),
        },
        Err(error) => {
            let _ = writeln!(err, "error: {error}");
            Exit::of_client_error(&error, Exit::Failed)
        }
    }
}

/// Writes the verdict, the cause of a rejection first.
///
/// # Errors
/// `out`'s. If `err` is closed, nobody reads it.
fn write(verdict: &ReloadVerdict, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<()> {
    if !verdict.report.is_empty() {
        let _ = writeln!(err, "{}", printable_lines(verdict.report.trim_end()));
    }
    if !verdict.applied {
        let _ = writeln!(err, "error: the config was rejected; the one before it stays in force");
    }
    if let Some(held) = verdict.held_back {
        let _ = writeln!(
            err,
            "warning: the removal of {} is held back, because it looks like an accident; they are kept and renewed. If it \
             is meant: `corptokend reload --allow-mass-removal`",
            counted(held.removed, "tenant")
        );
    }
    if verdict.applied {
        writeln!(out, "applied: {} added, {} removed, {} changed", verdict.added, verdict.removed, verdict.changed)?;
    }
    Ok(())
}
