//! What the check of a config needs to know of the machine, as plain data. `crate::environment` collects it; nothing here
//! looks at anything.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use super::diagnostics::report::Diagnostic;
use super::model::OwnFiles;
use crate::domain::{Fingerprint, SecretSource};
use crate::system::permissions::{Identity, Reserved};

/// This process: what systemd gave it, who it is, and what it may do.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// `$STATE_DIRECTORY`, the first of its directories.
    pub state_directory: Option<PathBuf>,
    /// `$RUNTIME_DIRECTORY`, the first of its directories.
    pub runtime_directory: Option<PathBuf>,
    /// `$CREDENTIALS_DIRECTORY`.
    pub credentials_directory: Option<PathBuf>,
    /// The program's own file.
    pub program: Option<PathBuf>,
    /// The effective user.
    pub user: u32,
    /// All groups, the effective one among them.
    pub groups: Vec<u32>,
    /// Whether files can be given away (CAP_CHOWN).
    pub may_chown: bool,
    /// How many keys, and bytes of keys, the user may hold; `None` where the kernel does not say.
    pub key_quota: Option<KeyQuota>,
}

/// The kernel's limits on one user's keys, from `/proc/sys/kernel/keys`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyQuota {
    /// `maxkeys`, or for root `root_maxkeys`.
    pub keys: u64,
    /// `maxbytes`, or for root `root_maxbytes`.
    pub bytes: u64,
}

impl Process {
    /// Whether files can be given to the group.
    pub(crate) fn may_give_to(&self, group: u32) -> bool {
        self.may_chown || self.groups.contains(&group)
    }
}

/// What must be looked up on the machine before a config can be checked.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    /// Names of users to look up.
    pub users: BTreeSet<String>,
    /// Names of groups to look up.
    pub groups: BTreeSet<String>,
    /// The apps' secrets.
    pub secrets: Vec<SecretSource>,
    /// The certificates to trust.
    pub ca_file: Option<PathBuf>,
    /// The daemon's own files, which no sink may write.
    pub own_files: OwnFiles,
    /// The directories of sinks, to be identified by device and inode.
    pub directories: Vec<String>,
}

/// The facts that were looked up for the [`Needs`] of a config. What did not answer in time has a variant of its own.
#[derive(Debug, Default)]
pub struct Environment {
    /// The users that were looked up.
    pub users: HashMap<String, Account>,
    /// The groups that were looked up.
    pub groups: HashMap<String, Account>,
    /// The secrets, in the order of the needs.
    pub secrets: Vec<SecretInput>,
    /// The certificates to trust, if the config names any.
    pub ca_file: Option<CaFile>,
    /// The places of the daemon's own files.
    pub reserved: Reserved,
    /// The directories of sinks that exist.
    pub directories: HashMap<String, Identity>,
}

/// The result of looking up a user or group by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// The number of the user or group.
    Id(u32),
    /// There is none of this name.
    Missing,
    /// The database did not answer, for this reason.
    Unanswered(String),
}

/// The result of reading a client secret, without the secret.
#[derive(Debug, Clone)]
pub struct SecretInput {
    /// Its fingerprint, or why there is none.
    pub outcome: SecretOutcome,
    /// Who else could change it.
    pub dangers: Vec<Diagnostic>,
}

/// Whether a client secret can be used.
#[derive(Debug, Clone)]
pub enum SecretOutcome {
    /// It exists, and only trusted users can read it.
    Good(Fingerprint),
    /// It exists, and others can read it, but on a read-only mount, where the permissions cannot be changed.
    Loose(Fingerprint, InputFault),
    /// There is no secret that could be used.
    Unusable(InputFault),
    /// It could not be read in time.
    Unanswered(InputFault),
}

impl SecretOutcome {
    /// The fingerprint of the secret, if it could be read.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        match self {
            Self::Good(fingerprint) | Self::Loose(fingerprint, _) => Some(*fingerprint),
            Self::Unusable(_) | Self::Unanswered(_) => None,
        }
    }
}

/// What is wrong with an input, in words that hold no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFault {
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub remedy: String,
}

/// The result of looking at the certificates to trust.
#[derive(Debug, Clone)]
pub struct CaFile {
    /// Whether they can be read as a file.
    pub outcome: CaOutcome,
    /// Who else could change them.
    pub dangers: Vec<Diagnostic>,
}

/// Whether the certificates to trust can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaOutcome {
    /// They can.
    Readable,
    /// They cannot, for this reason.
    Unreadable(String),
    /// They could not be read in time.
    Unanswered(String),
}
