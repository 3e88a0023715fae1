//! Applications that read their token files in a loop and note whatever breaks the reader's guarantee.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use corptokend::sandbox::{Sandbox, sequence_of};

/// Mode, owner and group that every file must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileAttributes {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Threads that read all files, over and over.
pub struct Readers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Seen>>,
}

/// What readers saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// How often a file was read whole.
    pub reads: u64,
    /// What no reader may ever see, in words.
    pub faults: Vec<String>,
    /// Each file's tokens, as they came, and when each was first seen.
    pub tokens: HashMap<PathBuf, Vec<(Instant, String)>>,
}

impl Readers {
    /// Starts `threads` readers of these files.
    pub fn watch(threads: usize, paths: &[PathBuf], look: FileAttributes) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |_| {
            let (stop, paths) = (Arc::clone(&stop), paths.to_vec());
            std::thread::spawn(move || {
                let mut seen = Seen::default();
                while !stop.load(Ordering::Relaxed) {
                    paths.iter().for_each(|path| seen.look_at(path, look));
                    std::thread::sleep(Duration::from_millis(1));
                }
                seen
            })
        };
        let threads = (0..threads).map(start).collect();
        Self { stop, threads }
    }

    /// Ends the readers; what they all saw.
    pub fn finish(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for thread in self.threads {
            all.merge(thread.join().expect("a reader does not panic"));
        }
        all
    }
}

impl Seen {
    fn look_at(&mut self, path: &Path, look: FileAttributes) {
        match read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if self.tokens.contains_key(path) {
                    self.fault(path, "is missing, and was there");
                }
            }
            Err(error) => self.fault(path, &format!("cannot be read: {error}")),
            Ok((token, found)) => {
                self.reads += 1;
                if found != look {
                    self.fault(path, &format!("has the wrong mode or owner: {found:?}"));
                }
                self.note(path, &token);
            }
        }
    }

    fn note(&mut self, path: &Path, token: &str) {
        let Some(sequence) = sequence_of(token) else {
            return self.fault(path, &format!("is torn or empty: {} bytes", token.len()));
        };
        let before = self.tokens.entry(path.to_owned()).or_default();
        match before.last() {
            Some((_, last)) if last == token => {}
            Some((_, last)) if sequence_of(last) >= Some(sequence) => {
                let last = sequence_of(last);
                self.fault(path, &format!("went back from token {last:?} to {sequence}"));
            }
            _ => before.push((Instant::now(), token.to_owned())),
        }
    }

    fn fault(&mut self, path: &Path, what: &str) {
        // The first few tell it all.
        if self.faults.len() < 20 {
            self.faults.push(format!("{} {what}", path.display()));
        }
    }

    fn merge(&mut self, other: Seen) {
        self.reads += other.reads;
        self.faults.extend(other.faults);
        for (path, tokens) in other.tokens {
            let mine = self.tokens.entry(path).or_default();
            mine.extend(tokens);
            mine.sort();
            mine.dedup_by(|later, earlier| later.1 == earlier.1);
        }
    }

    /// Whether a reader of this file saw this token.
    pub fn saw(&self, path: &Path, token: &str) -> bool {
        self.tokens.get(path).is_some_and(|tokens| tokens.iter().any(|(_, seen)| seen == token))
    }

    /// Fails if anything was seen that no reader may see: a fault, or a token that the tenant was never given. `corp_id`
    /// is the last component of each path.
    pub fn assert_flawless(&self, sandbox: &Sandbox) {
        assert!(self.faults.is_empty(), "{:#?}", self.faults);
        for (path, tokens) in &self.tokens {
            let corp_id = path.file_name().and_then(|name| name.to_str()).expect("a file is named by its tenant");
            let issued = sandbox.issued(corp_id);
            for (_, token) in tokens {
                assert!(issued.iter().any(|issued| issued.token == *token), "{} held a foreign token", path.display());
            }
        }
    }
}

/// Text and looks of one and the same file, whatever is renamed meanwhile.
fn read(path: &Path) -> io::Result<(String, FileAttributes)> {
    let mut file = File::open(path)?;
    let meta = file.metadata()?;
    let mut bytes = Vec::with_capacity(64);
    file.read_to_end(&mut bytes)?;
    let look = FileAttributes { mode: meta.mode() & 0o7777, uid: meta.uid(), gid: meta.gid() };
    Ok((String::from_utf8_lossy(&bytes).into_owned(), look))
}
