//! Where a token is published.

mod outcome;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::names::{AppName, Names, Placeholder, Template};

pub use outcome::{SinkFailure, SinkFailureKind, Wrote};

/// Which of a tenant's sinks, counted from 0 in the order of the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SinkId(pub u8);

impl SinkId {
    /// How many sinks a tenant can have; the engine keeps one bit for each.
    pub const MAX: usize = 16;
}

/// A lane: one thread that publishes to one file system, or to the kernel keyrings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId(pub u16);

/// A sink root: the fixed part of a sink's path. Failures are counted, and retried, by root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RootId(pub u32);

/// A withdrawal: the deletion of a token from a place that no longer belongs to a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WithdrawalId(pub u32);

/// The beginning of each temporary file's extension.
pub const TEMPORARY_EXTENSION: &str = "corptokend-tmp";

/// Whether a file or directory of this name could be a temporary one of the daemon's, which it removes: a dot, a name, and an
/// extension that begins with [`TEMPORARY_EXTENSION`]. No part of a sink's path may have such a name.
pub fn is_temporary_name(name: &[u8]) -> bool {
    let extension = name.iter().rposition(|byte| *byte == b'.').map(|dot| &name[dot + 1..]);
    name.first() == Some(&b'.') && extension.is_some_and(|found| found.starts_with(TEMPORARY_EXTENSION.as_bytes()))
}

/// A sink, with everything resolved that does not depend on the tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SinkSpec {
    /// A file or a key.
    pub kind: SinkKind,
    /// What happens to a token there that could not be renewed in time.
    pub on_expiry: OnExpiry,
}

/// What happens to a published token that could not be renewed in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnExpiry {
    /// It stays.
    Keep,
    /// It is deleted.
    Delete,
}

/// The kinds of sink.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SinkKind {
    /// A file, replaced atomically.
    File(Arc<FileSink>),
    /// A key in the kernel's keyrings.
    Keyring(Arc<KeyringSink>),
}

impl SinkKind {
    /// Whether a sink is filled in from this value, in path or content.
    pub fn names(&self, placeholder: Placeholder) -> bool {
        match self {
            Self::File(file) => {
                let in_content = matches!(&file.format, Format::Template(content) if content.names(placeholder));
                in_content || file.path.names(placeholder)
            }
            Self::Keyring(keyring) => keyring.path.iter().any(|part| part.names(placeholder)),
        }
    }
}

/// A file sink.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileSink {
    /// The absolute path.
    pub path: Template,
    /// The format of its content.
    pub format: Format,
    /// The file's permission bits.
    pub mode: u32,
    /// The permission bits of directories that have to be made.
    pub dir_mode: u32,
    /// The file's owner; `None`: the daemon's user.
    pub owner: Option<u32>,
    /// The file's group; `None`: the daemon's, or the directory's where that has the setgid bit.
    pub group: Option<u32>,
    /// Whether a final directory that the world can write is accepted.
    pub trust_dir: bool,
}

/// The format of a file's content.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Format {
    /// The token, nothing else.
    Raw,
    /// The token and a newline.
    Line,
    /// One JSON object: `access_token`, `expires_at`, `expires_at_unix`, `app`, `corp_id`.
    Json,
    /// `ACCESS_TOKEN=` and `EXPIRES_AT=` lines.
    Env,
    /// A template of the operator's.
    Template(Template),
}

/// A keyring sink: `@u/corptokend/{app}/{corp_id}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyringSink {
    /// Where the path starts.
    pub root: KeyringRoot,
    /// The nested keyrings below the root, then the key's own description; never empty.
    pub path: Box<[Template]>,
}

/// The keyring at which a path starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyringRoot {
    /// `@u`: the daemon's user keyring.
    User,
    /// A keyring by its serial number.
    Serial(i32),
}

impl fmt::Display for KeyringRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User => f.write_str("@u"),
            Self::Serial(serial) => write!(f, "{serial}"),
        }
    }
}

/// One concrete place: a sink's path with a tenant's names filled in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// A file.
    File(PathBuf),
    /// A key.
    Key(KeyPath),
}

/// The path of a key: `@u/corptokend/crm/ding1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyPath {
    /// Where the path starts.
    pub root: KeyringRoot,
    /// The keyrings on the way, and last the key's description; never empty.
    pub path: Vec<String>,
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.root, self.path.join("/"))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Key(key) => key.fmt(f),
        }
    }
}

impl SinkSpec {
    /// This sink's place for the tenant of these names.
    pub fn place(&self, names: &Names) -> Place {
        match &self.kind {
            SinkKind::File(file) => Place::File(file.place(names)),
            SinkKind::Keyring(keyring) => Place::Key(keyring.place(names)),
        }
    }

    /// Whether the published bytes (or the key's timeout) show when the token expires.
    pub fn shows_expiry(&self) -> bool {
        match &self.kind {
            SinkKind::File(file) => file.format.shows_expiry(),
            SinkKind::Keyring(_) => true,
        }
    }
}

impl Format {
    /// Whether the bytes change when only the expiry does.
    pub fn shows_expiry(&self) -> bool {
        use Placeholder::{ExpiresAt, ExpiresAtUnix};
        match self {
            Self::Raw | Self::Line => false,
            Self::Json | Self::Env => true,
            Self::Template(template) => template.names(ExpiresAt) || template.names(ExpiresAtUnix),
        }
    }
}

impl KeyringSink {
    /// The key of the tenant of these names.
    pub fn place(&self, names: &Names) -> KeyPath {
        KeyPath { root: self.root, path: self.path.iter().map(|part| part.expand_names(names)).collect() }
    }
}

impl FileSink {
    /// The file of the tenant of these names.
    pub fn place(&self, names: &Names) -> PathBuf {
        PathBuf::from(self.path.expand_names(names))
    }

    /// The fixed part of the path: its longest leading directory without a placeholder. The daemon makes what is missing below it, and
    /// no tenant's name can lead out of it.
    pub fn fixed_part(&self) -> &Path {
        let prefix = self.path.fixed_prefix();
        let directory = &prefix[..prefix.rfind('/').unwrap_or(0)];
        Path::new(if directory.is_empty() { "/" } else { directory })
    }
}

impl SinkSpec {
    /// The directory in or below which all places of an app lie: the longest leading directory that does not depend on the tenant. For
    /// a key, the name of its root.
    pub fn home(&self, app: &AppName) -> PathBuf {
        match &self.kind {
            SinkKind::File(file) => {
                let prefix = file.path.prefix_in(app);
                let directory = &prefix[..prefix.rfind('/').unwrap_or(0)];
                PathBuf::from(if directory.is_empty() { "/" } else { directory })
            }
            SinkKind::Keyring(keyring) => PathBuf::from(keyring.root.to_string()),
        }
    }
}

#[cfg(test)]
impl FileSink {
    /// A sink of a test at `path`: raw, 0640, in directories of 0750, with the daemon's user and group.
    pub(crate) fn with_defaults(path: &str) -> Self {
        Self {
            path: Template::parse(path, Placeholder::IN_PATHS).unwrap(),
            format: Format::Raw,
            mode: 0o640,
            dir_mode: 0o750,
            owner: None,
            group: None,
            trust_dir: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixed_part_ends_before_the_first_placeholder() {
        let fixed = |path: &str| FileSink::with_defaults(path).fixed_part().to_str().unwrap().to_owned();
        assert_eq!(fixed("/run/corptokend/tokens/{app}/{corp_id}"), "/run/corptokend/tokens");
        assert_eq!(fixed("/srv/x-{corp_id}.json"), "/srv");
        assert_eq!(fixed("/srv/acme/token"), "/srv/acme");
        assert_eq!(fixed("/{corp_id}"), "/");
    }
}
