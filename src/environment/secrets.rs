//! Reads a client secret, at each use: from a file, from a systemd credential, from the environment.
//!
//! What is checked is the file that was opened, not its name. No text here ever holds what was read, nor the name of a
//! source that could not be: it may be the secret itself, written where its place belongs
//! (`client_secret = { env = "THE-SECRET" }`).

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use zeroize::Zeroizing;

use super::permissions::Permissions;
use super::sources::open;
use super::time_limit::{self, PathTask};
use crate::config::{InputFault, SecretInput, SecretOutcome};
use crate::domain::{Secret, SecretSource};
use crate::system::blocking::{Blocking, Unfinished};
use crate::system::permissions::{Danger, PathAudit, PathElement, Status, Trusted, is_on_read_only_mount};

/// More than any secret has; see [`Secret::new`].
const MAX_BYTES: u64 = 4096;
/// So many secrets may hang at once.
const MOST_OUTSTANDING: usize = 1024;

/// Why there is no secret. The texts name the kind of source and the remedy, never the content; the name of the source only
/// where it was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Nothing is there, or it cannot be read.
    #[error("{place} cannot be read: {reason}")]
    Unreadable {
        /// Which kind of source it is; not its name.
        place: String,
        /// What the system says.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// It does not come to an end: the file lies on a mount that hangs.
    #[error("{place} cannot be read: {why}")]
    Unfinished {
        /// Which kind of source it is; not its name.
        place: String,
        /// What became of the reading.
        why: Unfinished,
    },
    /// Others could read or replace the secret.
    #[error("{} {risk}", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Who can do what.
        risk: String,
        /// The command that mends it.
        remedy: String,
    },
    /// What is there is not a secret.
    #[error("{place} {fault}")]
    Odd {
        /// Where it was read.
        place: String,
        /// What is odd about it.
        fault: &'static str,
    },
}

impl SecretError {
    /// What to do about it.
    pub fn remedy(&self) -> &str {
        match self {
            Self::Unreadable { remedy, .. } | Self::Exposed { remedy, .. } => remedy,
            Self::Unfinished { .. } => {
                "look at the file system that it lies on; the app's calls fail until it can be read, and nobody else's"
            }
            Self::Odd { .. } => "put the client secret there: one line, nothing else",
        }
    }
}

/// Reads the secret from its source. A credential is looked for in `credentials_directory`, which systemd names in
/// `$CREDENTIALS_DIRECTORY`. One newline at the end is not part of the secret.
///
/// # Errors
/// [`SecretError`]; on a read-only mount, loose permissions are not an error, since nobody here could mend them.
pub fn read(source: &SecretSource, credentials_directory: Option<&Path>) -> Result<Secret, SecretError> {
    if let Some(path) = path(source, credentials_directory) {
        // The modes of the file itself are judged more strictly, once it is open.
        let of_way = |danger: &Danger| danger.thing != PathElement::File || danger.risk.by_owner;
        let dangers = PathAudit::new(Trusted::daemon()).to(&path);
        if let Some(Danger { path, risk, .. }) = dangers.into_iter().find(|danger| !danger.read_only && of_way(danger))
        {
            return Err(SecretError::Exposed { path, risk: risk.what, remedy: risk.remedy });
        }
    }
    inspect(source, credentials_directory).map(|(secret, _)| secret)
}

/// The file that a secret is read from.
fn path(source: &SecretSource, credentials_directory: Option<&Path>) -> Option<PathBuf> {
    match source {
        SecretSource::File(path) => Some(path.clone()),
        SecretSource::Credential(name) => Some(credentials_directory?.join(&**name)),
        SecretSource::Env(_) => None,
    }
}

/// A secret, and what is loose about its file on a read-only mount.
type Found = Result<(Secret, Option<SecretError>), SecretError>;

static READS: LazyLock<Blocking<SecretInput>> = LazyLock::new(|| Blocking::new("secrets", MOST_OUTSTANDING));

/// Reads all these secrets side by side: their fingerprints, the faults of their files, and who could change the paths to them. A
/// secret that hangs does not delay the others; the time limit for all is ten seconds.
pub fn inspect_all(sources: &[SecretSource], credentials_directory: Option<&Path>) -> Vec<SecretInput> {
    let tasks = sources.iter().map(|source| {
        let (own, directory) = (source.clone(), credentials_directory.map(Path::to_path_buf));
        let path = path(&own, directory.as_deref());
        let key = match (&path, &own) {
            (Some(path), _) | (None, SecretSource::File(path)) => path.clone().into_os_string(),
            // These cannot hang, and their keys are no paths.
            (None, SecretSource::Env(name) | SecretSource::Credential(name)) => format!("${name}").into(),
        };
        PathTask::new(key, move || SecretInput {
            outcome: outcome(inspect(&own, directory.as_deref())),
            dangers: path.map(|path| Permissions::new().of_secret(&path)).unwrap_or_default(),
        })
    });
    let inspected = time_limit::run_all(&READS, tasks.collect());
    let unfinished = |source: &SecretSource, why| SecretInput {
        outcome: outcome(Err(SecretError::Unfinished { place: source.to_string(), why })),
        dangers: Vec::new(),
    };
    sources.iter().zip(inspected).map(|(source, input)| input.unwrap_or_else(|why| unfinished(source, why))).collect()
}

fn outcome(found: Found) -> SecretOutcome {
    let fault = |error: &SecretError| InputFault { message: error.to_string(), remedy: error.remedy().to_owned() };
    match found {
        Ok((secret, None)) => SecretOutcome::Good(secret.fingerprint()),
        Ok((secret, Some(loose))) => {
            let message = format!("{loose}, on a read-only mount");
            SecretOutcome::Loose(secret.fingerprint(), InputFault { message, ..fault(&loose) })
        }
        Err(error @ SecretError::Unfinished { .. }) => SecretOutcome::Unanswered(fault(&error)),
        Err(error) => SecretOutcome::Unusable(fault(&error)),
    }
}

/// As [`read`], but judges the file alone, not the way to it; and says what is loose about a file on a read-only mount.
fn inspect(source: &SecretSource, credentials_directory: Option<&Path>) -> Found {
    match source {
        SecretSource::File(path) => read_file(path, source, Guard::Permissions),
        SecretSource::Credential(name) => {
            let directory = credentials_directory.ok_or_else(|| SecretError::Unreadable {
                place: source.to_string(),
                reason: "CREDENTIALS_DIRECTORY is not set".into(),
                remedy:
                    "start the daemon as a systemd service with LoadCredential=NAME:/path/of/the/secret, NAME being \
                         what the config says"
                        .into(),
            })?;
            // systemd makes the directory accessible to the service alone, whatever the file's own mode says.
            read_file(&directory.join(&**name), source, Guard::Directory)
        }
        SecretSource::Env(name) => Ok((read_env(name, source)?, None)),
    }
}

/// What keeps others from reading a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guard {
    Permissions,
    Directory,
}

fn read_file(path: &Path, source: &SecretSource, guard: Guard) -> Result<(Secret, Option<SecretError>), SecretError> {
    let failed = |error: io::Error| unreadable(source, &error);
    let file = open(path).map_err(failed)?;
    let status = file.metadata().map_err(failed)?;
    if !status.is_file() {
        return Err(SecretError::Odd { place: source.to_string(), fault: "is not a regular file" });
    }
    let loose = match guard {
        Guard::Permissions => exposed(path, &Status::of(&file).map_err(|errno| failed(errno.into()))?),
        Guard::Directory => None,
    };
    if let Some(error) = &loose
        && !is_on_read_only_mount(&file)
    {
        return Err(error.clone());
    }
    let mut text = content(&file).map_err(failed)?;
    Ok((checked(&mut text, source)?, loose))
}

fn read_env(name: &str, source: &SecretSource) -> Result<Secret, SecretError> {
    let value = std::env::var_os(name).ok_or_else(|| SecretError::Unreadable {
        place: source.to_string(),
        reason: "it is not set".into(),
        remedy: "set that variable in the daemon's environment, or use { file = … }".into(),
    })?;
    let mut bytes = Zeroizing::new(value.into_encoded_bytes());
    checked(&mut bytes, source)
}

/// Never reads more than a secret can have, into memory that is overwritten afterwards and never moves.
fn content(file: &File) -> io::Result<Zeroizing<Vec<u8>>> {
    let most = MAX_BYTES + 2;
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(most).unwrap_or(0) + 32));
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn checked(bytes: &mut Zeroizing<Vec<u8>>, source: &SecretSource) -> Result<Secret, SecretError> {
    let odd = |fault| SecretError::Odd { place: source.to_string(), fault };
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    if bytes.is_empty() {
        return Err(odd("is empty"));
    }
    if bytes.len() as u64 > MAX_BYTES {
        return Err(odd("holds more than 4,096 bytes"));
    }
    if bytes.contains(&b'\n') {
        return Err(odd("holds several lines"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| odd("holds bytes that are not text"))?;
    Secret::new(Zeroizing::new(text.to_owned())).ok_or_else(|| odd("holds blanks, control or non-ASCII characters"))
}

/// Who else can read or write the file. The group may read what root or we ourselves own: that is how the packages hand
/// a secret to the daemon (0640, root:corptokend).
fn exposed(path: &Path, status: &Status) -> Option<SecretError> {
    let (mode, group) = (status.mode, status.group_bits());
    let ours = status.uid == 0 || status.uid == rustix::process::geteuid().as_raw();
    let (risk, fix) = if mode & 0o007 != 0 && group & 2 == 0 {
        (format!("can be read or written by everybody (mode {mode:04o})"), "o-rwx")
    } else if mode & 0o007 != 0 || group & 2 != 0 {
        (format!("can be written by others (mode {mode:04o})"), "g-w,o-rwx")
    } else if group & 4 != 0 && !ours {
        (format!("can be read by its group and belongs to user {}", status.uid), "g-rwx")
    } else {
        let risk = Trusted::daemon().readers(path, status, &our_groups())?;
        return Some(SecretError::Exposed { path: path.to_path_buf(), risk: risk.what, remedy: risk.remedy });
    };
    let remedy = format!("chmod {fix} {}", path.display());
    Some(SecretError::Exposed { path: path.to_path_buf(), risk, remedy })
}

/// The groups that let us in.
fn our_groups() -> Vec<u32> {
    let mut groups: Vec<u32> =
        rustix::process::getgroups().unwrap_or_default().into_iter().map(rustix::process::Gid::as_raw).collect();
    groups.push(rustix::process::getegid().as_raw());
    groups
}

fn unreadable(source: &SecretSource, error: &io::Error) -> SecretError {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => {
            "put the client secret there (install -m 0600 /dev/stdin FILE), or correct the name in the config"
        }
        io::ErrorKind::PermissionDenied => {
            "let the daemon's group read it: chgrp corptokend FILE && chmod 0640 FILE; and let it enter the directories above"
        }
        _ => "look at the file and at its file system, or correct the name in the config",
    };
    SecretError::Unreadable { place: source.to_string(), reason: reason(error), remedy: remedy.into() }
}

/// The system's own text, without a name that may have been put into the error.
fn reason(error: &io::Error) -> String {
    let known = error.raw_os_error().map(io::Error::from_raw_os_error);
    known.map_or_else(|| error.kind().to_string(), |error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn secret_file(content: &str, mode: u32) -> (tempfile::TempDir, SecretSource) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("crm.secret");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (directory, SecretSource::File(path))
    }

    #[test]
    fn one_newline_at_the_end_is_not_part_of_the_secret() {
        let (_keep, source) = secret_file("s3cr3t\n", 0o600);
        assert_eq!(read(&source, None).unwrap().expose(), "s3cr3t");
        let (_keep, source) = secret_file("s3cr3t", 0o640);
        assert_eq!(read(&source, None).unwrap().expose(), "s3cr3t");
    }

    #[test]
    fn what_is_no_secret_is_refused_without_being_shown() {
        for (content, fault) in [
            ("", "is empty"),
            ("\n", "is empty"),
            ("canary\n\n", "several lines"),
            ("canary\nb", "several lines"),
            ("can ary", "blanks"),
            ("canär", "non-ASCII"),
            (&"canary".repeat(1000), "4,096"),
        ] {
            let (_keep, source) = secret_file(content, 0o600);
            let error = read(&source, None).unwrap_err();
            let text = format!("{error} {error:?} {}", error.remedy());
            assert!(text.contains(fault), "{text}");
            assert!(!text.contains("canary") && !text.contains("can ary"), "{text}");
        }
    }

    #[test]
    fn a_secret_that_others_can_read_or_write_is_refused_with_the_command_that_mends_it() {
        for (mode, fix) in
            [(0o644, "chmod o-rwx"), (0o604, "chmod o-rwx"), (0o620, "chmod g-w"), (0o666, "chmod g-w,o-rwx")]
        {
            let (_keep, source) = secret_file("s3cr3t", mode);
            let error = read(&source, None).unwrap_err();
            assert!(error.remedy().starts_with(fix), "{mode:o}: {}", error.remedy());
        }
    }

    #[test]
    fn a_pipe_or_a_directory_is_no_secret() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        for path in [pipe, directory.path().to_path_buf()] {
            let error = read(&SecretSource::File(path), None).unwrap_err();
            assert!(error.to_string().contains("not a regular file"), "{error}");
        }
    }

    #[test]
    fn a_missing_secret_says_where_it_was_looked_for() {
        let credential = SecretSource::Credential("crm".into());
        let error = read(&credential, None).unwrap_err();
        assert!(error.remedy().contains("LoadCredential=NAME:"), "{}", error.remedy());
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("crm"), "s3cr3t\n").unwrap();
        assert_eq!(read(&credential, Some(directory.path())).unwrap().expose(), "s3cr3t");
        let error = read(&SecretSource::Env("CORPTOKEND_NO_SUCH".into()), None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the environment variable that `client_secret` names cannot be read: it is not set"
        );
        let error = read(&SecretSource::File("/no/such/file".into()), None).unwrap_err();
        assert!(error.remedy().contains("install -m 0600 /dev/stdin"), "{}", error.remedy());
    }

    #[test]
    fn the_name_of_a_source_that_cannot_be_read_is_not_told_since_it_may_be_the_secret() {
        let directory = tempfile::tempdir().unwrap();
        let below_a_file = directory.path().join("file");
        std::fs::write(&below_a_file, "").unwrap();
        for source in [
            SecretSource::Env("THE-SECRET".into()),
            SecretSource::Env("THE\0SECRET".into()),
            SecretSource::Env("THE=SECRET".into()),
            SecretSource::Credential("THE-SECRET".into()),
            SecretSource::File("/THE-SECRET".into()),
            SecretSource::File("/THE-SE\0CRET".into()),
            SecretSource::File(below_a_file.join("THE-SECRET")),
            SecretSource::File(format!("/{}", "THE-SECRET".repeat(100)).into()),
        ] {
            for credentials in [None, Some(directory.path())] {
                let error = read(&source, credentials).unwrap_err();
                let told = format!("{error} {error:?} {} {source} {source:?}", error.remedy());
                assert!(!told.contains("THE") && !told.contains("SECRET"), "{told}");
            }
        }
    }
}
