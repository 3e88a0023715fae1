//! The socket's file: it appears with its mode and group, and is removed only if nobody listens on it.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Gid, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// The longest path in `sun_path` (unix(7)), without its final NUL.
const MAX_PATH: usize = 107;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 64;

/// A listening socket at `path` with permission bits `mode` and group `group` (`None`: the daemon's own).
///
/// The socket is made under a private name beside `path`, and renamed once it has its mode and group, so at no moment can anyone
/// connect who may not. A missing directory is made (0755, whatever the umask). A socket without a listener is replaced. Must be
/// called within a Tokio runtime.
///
/// # Errors
/// [`io::ErrorKind::AddrInUse`] if another daemon listens there, [`io::ErrorKind::AlreadyExists`] if something other than a socket
/// lies there, else the system's own. Every text names the path.
pub fn bind(path: &Path, mode: u32, group: Option<u32>) -> io::Result<tokio::net::UnixListener> {
    let listener = bind_std(path, mode, group)
        .map_err(|e| io::Error::new(e.kind(), format!("cannot open the control socket {}: {e}", path.display())))?;
    tokio::net::UnixListener::from_std(listener)
}

/// Removes the socket when the daemon stops. A socket on which another process listens is left.
pub fn unbind(path: &Path) {
    if let Ok(Occupant::Stale) = occupant(path) {
        let _ = fs::remove_file(path);
    }
}

fn bind_std(path: &Path, mode: u32, group: Option<u32>) -> io::Result<std::os::unix::net::UnixListener> {
    let private = private_name(path)?;
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        make_directory(dir)?;
    }
    vacate(path)?;
    if occupant(&private)? == Occupant::Stale {
        fs::remove_file(&private)?;
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Linux gives the file the mode of the unbound socket (less the umask), so there is no moment with a wider one.
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(0o600))?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(&private)?)?;
    let finish = || -> io::Result<()> {
        if let Some(group) = group {
            rustix::fs::chownat(CWD, &private, None, Some(Gid::from_raw(group)), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| {
                    io::Error::new(io::Error::from(e).kind(), format!("group {group}: {}", io::Error::from(e)))
                })?;
        }
        rustix::fs::chmod(&private, Mode::from_raw_mode(mode))?;
        rustix::net::listen(&socket, BACKLOG)?;
        fs::rename(&private, path)
    };
    finish().inspect_err(|_| {
        let _ = fs::remove_file(&private);
    })?;
    Ok(socket.into())
}

/// Makes a missing directory, and missing ones above it, with mode 0755 whatever the umask is. Under the unit's umask of 0077
/// members of the socket's group could not reach the socket. An existing directory is left as it is.
fn make_directory(dir: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => match dir.parent() {
            Some(above) if !above.as_os_str().is_empty() => {
                make_directory(above)?;
                fs::DirBuilder::new().mode(0o700).create(dir)?;
            }
            _ => return Err(e),
        },
        Err(_) if dir.is_dir() => return Ok(()),
        Err(e) => return Err(e),
    }
    // By descriptor: a user who may rename in the directory above must not redirect the chmod to another directory.
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::open(dir, flags, Mode::empty())?;
    if rustix::fs::fstat(&made)?.st_uid == rustix::process::geteuid().as_raw() {
        rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
    }
    Ok(())
}

/// The name is fixed, so that the socket of a killed daemon is found and replaced.
fn private_name(path: &Path) -> io::Result<PathBuf> {
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidInput, text);
    let name = path.file_name().ok_or_else(|| invalid("the path has no last part".into()))?;
    let private = path.with_file_name(format!(".{}~", name.to_string_lossy()));
    if private.as_os_str().as_bytes().len() > MAX_PATH {
        return Err(invalid(format!("a socket's path has at most {} bytes; choose a shorter one", MAX_PATH - 2)));
    }
    Ok(private)
}

#[derive(Debug, PartialEq, Eq)]
enum Occupant {
    Nothing,
    /// A socket without a listener.
    Stale,
    /// A socket with a listener.
    Listening,
    Other,
}

fn occupant(path: &Path) -> io::Result<Occupant> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Occupant::Nothing),
        Err(e) => return Err(e),
    };
    if !meta.file_type().is_socket() {
        return Ok(Occupant::Other);
    }
    // Non-blocking: connecting to a stopped process whose queue is full would block forever.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) | Err(Errno::AGAIN) => Ok(Occupant::Listening),
        Err(Errno::CONNREFUSED) => Ok(Occupant::Stale),
        Err(Errno::NOENT) => Ok(Occupant::Nothing),
        Err(errno) => Err(errno.into()),
    }
}

fn vacate(path: &Path) -> io::Result<()> {
    match occupant(path)? {
        // The rename replaces a stale socket.
        Occupant::Nothing | Occupant::Stale => Ok(()),
        Occupant::Listening => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another daemon listens there; stop it, or give this one another [control] socket",
        )),
        Occupant::Other => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "something that is not a socket lies there; move it away, or choose another path",
        )),
    }
}
