//! Client secrets as calls need them: read anew for each round of calls, on threads that may hang.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::domain::{Failure, FailureKind, Secret, SecretSource};
use crate::environment::secrets::{self, SecretError};
use crate::system::blocking::{Blocking, Unfinished};

/// How long a read may take, at most. A disk that has to spin up needs less.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How many reads may hang at once: one for each file, so the most apps whose secrets lie on a dead mount.
const MOST_OUTSTANDING: usize = 1024;

/// Reads one secret, and may hang while it does.
type ReadSecret = fn(&SecretSource, Option<&Path>) -> Result<Secret, SecretError>;

/// Reads secrets. Clones share what is outstanding.
#[derive(Clone)]
pub(crate) struct Credentials {
    /// What systemd names in `$CREDENTIALS_DIRECTORY`.
    directory: Option<PathBuf>,
    reader: ReadSecret,
    reads: Blocking<Result<Secret, SecretError>>,
}

impl Credentials {
    pub(crate) fn new(directory: Option<PathBuf>) -> Self {
        Self { directory, reader: secrets::read, reads: Blocking::new("secret", MOST_OUTSTANDING) }
    }

    /// Reads them so, for a test.
    #[cfg(test)]
    pub(crate) fn reading(reader: ReadSecret) -> Self {
        Self { reader, ..Self::new(None) }
    }

    /// Reads a secret. A file that hangs is waited for as long as a call may take, and five seconds at most; until that read ends,
    /// further reads of it fail at once.
    pub(crate) async fn read(&self, source: &SecretSource, timeout: Duration) -> Result<Secret, Failure> {
        let (file, owned) = match source {
            SecretSource::File(path) => (path.clone(), source.clone()),
            SecretSource::Credential(name) => match &self.directory {
                Some(directory) => (directory.join(&**name), source.clone()),
                None => return secrets::read(source, None).map_err(unreadable),
            },
            SecretSource::Env(_) => return secrets::read(source, None).map_err(unreadable),
        };
        let (reader, directory) = (self.reader, self.directory.clone());
        let reading = self.reads.run(&file, timeout.min(READ_TIMEOUT), move || reader(&owned, directory.as_deref()));
        reading.await.map_err(unfinished)?.map_err(unreadable)
    }

    /// How many reads have not ended.
    #[cfg(test)]
    pub(crate) fn outstanding(&self) -> usize {
        self.reads.outstanding()
    }
}

fn unreadable(error: SecretError) -> Failure {
    Failure::new(FailureKind::SecretUnreadable, error.to_string())
}

/// The file is not named: what stands in the place of a path could be the secret.
fn unfinished(why: Unfinished) -> Failure {
    let detail = match why {
        Unfinished::Hangs => {
            "reading the app's client_secret does not come to an end; look at the file system that its file lies on"
                .to_owned()
        }
        Unfinished::TooMuch => format!(
            "{MOST_OUTSTANDING} readings of client secrets do not come to an end, and no more are begun; look at the file systems that they lie on"
        ),
        Unfinished::NoThread => {
            "the client_secret cannot be read: the system has no thread for it; see TasksMax= and ulimit -u".to_owned()
        }
        Unfinished::Defect => {
            "the client_secret cannot be read because of a defect of corptokend, which the log shows".to_owned()
        }
    };
    Failure::new(FailureKind::SecretUnreadable, detail)
}
