//! A file system that never answers what it must not answer, and serves a small tree in memory otherwise. It speaks
//! FUSE's own protocol (`linux/fuse.h`, 7.31) on `/dev/fuse`; it takes root, and no library.
//!
//! Nothing is cached by the kernel: each stat, open, read and write of a program is a question here.

mod tree;
mod wire;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use tree::Tree;
use wire::Request;

use crate::support::{PATIENCE, is_root, system_allows};

/// What a program asks of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// A path is looked up or its attributes are asked for: any use of a path does so first.
    Stat,
    /// A file or a directory is opened; a file may be made by it.
    Open,
    /// Bytes are read.
    Read,
    /// Bytes are written, or a file is truncated.
    Write,
    /// A file or a directory is synced.
    Fsync,
    /// A name is given to another file.
    Rename,
    /// A directory is listed.
    Readdir,
}

/// A mounted file system. It is gone with the value, and whoever hung in it gets an error.
pub struct Fuse {
    at: PathBuf,
    /// `/sys/fs/fuse/connections/N/abort`
    abort: PathBuf,
    shared: Arc<Shared>,
    /// Ends the thread when it is dropped.
    stop: Option<io::PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    device: File,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tree: Tree,
    hung: Vec<(Op, PathBuf)>,
    parked: Vec<Request>,
}

impl Fuse {
    /// Mounts an empty tree, which belongs to root and has mode 0755, at a directory that is made. `None`, loudly, where
    /// that is not possible.
    pub fn mount(at: &Path) -> Option<Self> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        if !system_allows("mounting FUSE (root, /dev/fuse)", is_root() && device.is_ok()) {
            return None;
        }
        let device = device.expect("it was looked at");
        std::fs::create_dir_all(at).unwrap();
        // Others than root are let in; the kernel judges them by modes and owners.
        let options =
            format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions", device.as_raw_fd());
        let options = std::ffi::CString::new(options).unwrap();
        mount("corptokend-test", at, "fuse", MountFlags::NODEV | MountFlags::NOSUID, &*options)
            .expect("FUSE is mounted");
        let shared = Arc::new(Shared { device, state: Mutex::default() });
        let (stopped, stop) = io::pipe().unwrap();
        let server = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("fuse".to_owned());
        let thread = thread.spawn(move || server.serve(&stopped)).unwrap();
        let number = rustix::fs::minor(std::fs::metadata(at).unwrap().dev());
        let abort = PathBuf::from(format!("/sys/fs/fuse/connections/{number}/abort"));
        Some(Self { at: at.to_owned(), abort, shared, stop: Some(stop), thread: Some(thread) })
    }

    /// From now on nobody is answered who asks for this below `path`, which begins at the tree's root: `""` is all of it.
    pub fn hang(&self, op: Op, path: &str) {
        self.shared.lock().hung.push((op, PathBuf::from(path)));
    }

    /// From now on nobody is answered whatever he asks for.
    pub fn hang_all(&self) {
        for op in [Op::Stat, Op::Open, Op::Read, Op::Write, Op::Fsync, Op::Rename, Op::Readdir] {
            self.hang(op, "");
        }
    }

    /// Answers whoever waits, and everybody from now on.
    pub fn release(&self) {
        let mut state = self.shared.lock();
        state.hung.clear();
        for request in std::mem::take(&mut state.parked) {
            self.shared.answer(&mut state, &request);
        }
    }

    /// How many questions wait for an answer.
    pub fn waiting(&self) -> usize {
        self.shared.lock().parked.len()
    }

    /// Waits until somebody hangs.
    #[track_caller]
    pub fn wait_until_somebody_hangs(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.waiting() == 0 {
            assert!(Instant::now() < deadline, "nobody came to hang in {}", self.at.display());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        // Whoever hangs is let go first, or a program would wait for this one and this one for the program.
        let _ = std::fs::write(&self.abort, "1");
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = unmount(&self.at, UnmountFlags::DETACH);
    }
}

impl Shared {
    fn serve(&self, stopped: &io::PipeReader) {
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let mut ready = [PollFd::new(&self.device, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
            if poll(&mut ready, None).is_err_and(|error| error != rustix::io::Errno::INTR)
                || !ready[1].revents().is_empty()
            {
                return;
            }
            match (&self.device).read(&mut buffer) {
                Ok(length) => self.take(Request::parse(&buffer[..length])),
                // A question was withdrawn before it was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// Answers a question, or keeps it for later.
    fn take(&self, request: Request) {
        let mut state = self.lock();
        let hangs = request.op().is_some_and(|op| {
            let paths = state.tree.paths_of(&request);
            state.hung.iter().any(|(hung, below)| *hung == op && paths.iter().any(|path| path.starts_with(below)))
        });
        if hangs {
            state.parked.push(request);
        } else {
            self.answer(&mut state, &request);
        }
    }

    fn answer(&self, state: &mut State, request: &Request) {
        if let Some(reply) = state.tree.answer(request) {
            // Who asked may be gone.
            let _ = (&self.device).write(&wire::frame(request, reply));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
