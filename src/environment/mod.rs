//! Everything outside of its text that a config depends on: files, secrets, accounts, and who could change them.
//!
//! In: the path of a config, or the needs of a [`Draft`]. Out: [`Sources`], or the [`Environment`] that a draft is checked
//! against. All of it may hang, so all of it has a time limit (`time_limit`). The daemon, the commands and the tests use it;
//! `config` knows nothing of it.

mod accounts;
mod own_files;
mod permissions;
mod process;
pub mod secrets;
mod sources;
mod symlinks;
mod time_limit;

pub use own_files::reserved;
pub use process::process;
pub use sources::{is_drop_in, last_written, read, remembered};
pub use symlinks::where_to_watch;
pub(crate) use time_limit::run_one;
pub use time_limit::{PathTask, run_all};

use std::path::Path;
use std::sync::LazyLock;

use crate::config::{CaFile, CaOutcome, Checked, Config, Diagnostic, Draft, Environment, Needs, Process, Sources};
use crate::system::blocking::Blocking;
use permissions::Permissions;

/// Reads the texts, looks up what they need, and checks them.
pub fn check(sources: &Sources, process: &Process) -> Checked {
    let draft = Draft::read(sources, process);
    let environment = collect(&draft.needs(), process);
    draft.check(&environment)
}

/// The errors that the places of a config are which was put together, and not read from files.
pub fn conflicts(config: &Config) -> Vec<Diagnostic> {
    config.conflicts(&collect(&config.needs_of_places(), &Process::default()))
}

/// Looks up all needs side by side, so that what hangs is waited for once: ten seconds at most.
pub fn collect(needs: &Needs, process: &Process) -> Environment {
    let credentials = process.credentials_directory.as_deref();
    let ((users, groups), (secrets, (ca_file, (reserved, directories)))) = join(
        || accounts::look_up(&needs.users, &needs.groups),
        || {
            join(
                || secrets::inspect_all(&needs.secrets, credentials),
                || {
                    let places = || join(|| reserved(&needs.own_files), || own_files::identify(&needs.directories));
                    join(|| needs.ca_file.as_deref().map(ca_file), places)
                },
            )
        },
    );
    Environment { users, groups, secrets, ca_file, reserved, directories }
}

/// Whether the certificates to trust can be read, and who else could change them.
fn ca_file(path: &Path) -> CaFile {
    static CERTIFICATES: LazyLock<Blocking<CaFile>> = LazyLock::new(|| Blocking::new("ca-file", 64));
    let own = path.to_path_buf();
    let look = move || CaFile {
        outcome: sources::probe(&own)
            .map_or_else(|error| CaOutcome::Unreadable(error.to_string()), |()| CaOutcome::Readable),
        dangers: Permissions::new().of(&own, "`ca_file`").collect(),
    };
    time_limit::run_one(&CERTIFICATES, path, look)
        .unwrap_or_else(|why| CaFile { outcome: CaOutcome::Unanswered(why.to_string()), dangers: Vec::new() })
}

/// Does both at once, if the system has a thread for it.
fn join<A: Send, B>(one: impl Fn() -> A + Sync, other: impl FnOnce() -> B) -> (A, B) {
    std::thread::scope(|scope| {
        let started = std::thread::Builder::new().name("inputs".into()).spawn_scoped(scope, &one);
        let other = other();
        let done = started.ok().and_then(|thread| thread.join().ok());
        (done.unwrap_or_else(&one), other)
    })
}
