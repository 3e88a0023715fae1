//! `corptokend reload`: has the daemon read its config now, and tells what became of it. systemd runs it as
//! `ExecReload=`, so that `systemctl reload` fails when the config is rejected.

use std::io::Write;
use std::path::Path;

use super::terminal::printable_lines;
use crate::control::protocol::{ReloadRequest, Verdict};
use crate::control::{Client, ClientError};

/// The config was rejected: `EX_CONFIG` of sysexits.h.
const REJECTED: u8 = 78;
/// `EX_NOPERM` of sysexits.h.
const NO_PERMISSION: u8 = 77;

/// Reload the config now, and wait for the verdict
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also carry out a removal of all tenants, or of more than half of them
    #[arg(long)]
    pub allow_mass_removal: bool,
}

/// Asks the daemon on `socket`. What was applied goes to `out`, everything else to `err`.
///
/// Returns the exit code: 0 applied, 78 rejected, 77 no permission, 75 the daemon is busy, 1 else.
pub fn run(args: &Args, socket: &Path, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let request = ReloadRequest { allow_mass_removal: args.allow_mass_removal, dry_run: false };
    let asked = Client::connect(socket).and_then(|mut client| client.reload(request));
    match asked {
        Ok(verdict) => match tell(&verdict, out, err) {
            Ok(()) if verdict.applied => 0,
            Ok(()) => REJECTED,
            Err(error) => super::unread(&error),
        },
        Err(error) => {
            let _ = writeln!(err, "error: {error}");
            match error {
                ClientError::NoPermission(_) => NO_PERMISSION,
                ClientError::Busy { .. } => super::code::BUSY,
                _ => 1,
            }
        }
    }
}

/// Fails only where `out` does: when stderr is gone, nobody is left to tell.
fn tell(verdict: &Verdict, out: &mut dyn Write, err: &mut dyn Write) -> std::io::Result<()> {
    if !verdict.applied {
        let _ = writeln!(err, "error: the config was rejected; what ran before runs on");
    }
    if !verdict.report.is_empty() {
        let _ = writeln!(err, "{}", printable_lines(verdict.report.trim_end()));
    }
    if let Some(held) = verdict.held_back {
        let _ = writeln!(
            err,
            "warning: the removal of {} tenants is held back, because it looks like an accident; they are kept and \
             renewed. If it is meant: `corptokend reload --allow-mass-removal`",
            held.removed
        );
    }
    if verdict.applied {
        writeln!(out, "applied: {} added, {} removed, {} changed", verdict.added, verdict.removed, verdict.changed)?;
    }
    Ok(())
}
