//! `corptokend reload`: has the daemon read its config now, and tells what became of it. systemd runs it as
//! `ExecReload=`, so that `systemctl reload` fails when the config is rejected.

use std::io::Write;
use std::path::Path;

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
/// Returns the exit code: 0 applied, 78 rejected, 77 no permission, 1 else.
pub fn run(args: &Args, socket: &Path, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let request = ReloadRequest { allow_mass_removal: args.allow_mass_removal, dry_run: false };
    let asked = Client::connect(socket).and_then(|mut client| client.reload(request));
    match asked {
        // Nobody is left to tell when the terminal is gone.
        Ok(verdict) => tell(&verdict, out, err).map_or(1, |()| if verdict.applied { 0 } else { REJECTED }),
        Err(error) => {
            let _ = writeln!(err, "error: {error}");
            if matches!(error, ClientError::NoPermission(_)) { NO_PERMISSION } else { 1 }
        }
    }
}

fn tell(verdict: &Verdict, out: &mut dyn Write, err: &mut dyn Write) -> std::io::Result<()> {
    if !verdict.applied {
        writeln!(err, "error: the config was rejected; what ran before runs on")?;
    }
    if !verdict.report.is_empty() {
        writeln!(err, "{}", verdict.report.trim_end())?;
    }
    if let Some(held) = verdict.held_back {
        writeln!(
            err,
            "warning: the removal of {} tenants is held back, because it looks like an accident; they are kept and \
             renewed. If it is meant: `corptokend reload --allow-mass-removal`",
            held.removed
        )?;
    }
    if verdict.applied {
        writeln!(out, "applied: {} added, {} removed, {} changed", verdict.added, verdict.removed, verdict.changed)?;
    }
    Ok(())
}
