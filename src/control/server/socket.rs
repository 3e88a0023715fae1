//! The socket file: made whole, and removed only when nobody listens.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Gid, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// What `sun_path` holds (unix(7)), less its final NUL.
const MAX_PATH: usize = 107;

/// The connections that may wait to be accepted.
const BACKLOG: i32 = 64;

/// A listening socket at `path` with permission bits `mode`, owned by `group` (the daemon's own, where `None`).
///
/// The socket is made under a private name beside `path` and renamed once its mode and group are right, so at no moment
/// can anyone connect who may not. A missing directory is made (0755, whatever the umask). A socket where nobody listens is replaced.
/// Must be called within a Tokio runtime.
///
/// # Errors
/// [`io::ErrorKind::AddrInUse`] when another daemon listens there, [`io::ErrorKind::AlreadyExists`] when something that
/// is no socket lies there, else the system's own. Every text names the path.
pub fn bind(path: &Path, mode: u32, group: Option<u32>) -> io::Result<tokio::net::UnixListener> {
    let listener = bind_std(path, mode, group)
        .map_err(|e| io::Error::new(e.kind(), format!("cannot open the control socket {}: {e}", path.display())))?;
    tokio::net::UnixListener::from_std(listener)
}

/// Removes the socket at the end of a daemon's life. A socket that is already gone, or that others took over, is left.
pub fn unbind(path: &Path) {
    if let Ok(Occupant::Stale) = occupant(path) {
        let _ = fs::remove_file(path);
    }
}

fn bind_std(path: &Path, mode: u32, group: Option<u32>) -> io::Result<std::os::unix::net::UnixListener> {
    let private = private_name(path)?;
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        make_passable(dir)?;
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

/// Makes a directory, and those above it that are missing, so that everybody can pass through, whatever the umask is:
/// under the unit's 0077 members of the socket's group could not reach it. One that is there is left as it is.
fn make_passable(dir: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => match dir.parent() {
            Some(above) if !above.as_os_str().is_empty() => {
                make_passable(above)?;
                fs::DirBuilder::new().mode(0o700).create(dir)?;
            }
            _ => return Err(e),
        },
        Err(_) if dir.is_dir() => return Ok(()),
        Err(e) => return Err(e),
    }
    // By descriptor: whoever may rename in the directory above must not have us open another directory up.
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::open(dir, flags, Mode::empty())?;
    if rustix::fs::fstat(&made)?.st_uid == rustix::process::geteuid().as_raw() {
        rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
    }
    Ok(())
}

/// Fixed, so that what a killed daemon left is found and replaced.
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
    /// A socket where nobody listens.
    Stale,
    /// A socket where somebody listens.
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
    // Without waiting: one that is stopped, and has as many connections waiting as it takes, would hold us up for ever.
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
