//! The service manager's socket and environment variables: sd_notify(3) and sd_watchdog_enabled(3).

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sendto, socket_with};

/// The service manager, which listens on `NOTIFY_SOCKET`.
pub struct Manager {
    socket: OwnedFd,
    address: SocketAddrUnix,
}

/// What became of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It waits in the manager's socket.
    Taken,
    /// The socket is full.
    NotNow,
}

impl Manager {
    /// The one that started this process, if it wants to be notified.
    pub fn from_env() -> Option<Self> {
        Self::at(&std::env::var_os("NOTIFY_SOCKET")?)
    }

    /// The one that listens on this path, or on this abstract name (`@…`).
    pub fn at(name: &OsStr) -> Option<Self> {
        let address = match name.as_bytes() {
            [b'/', ..] => SocketAddrUnix::new(name),
            [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name),
            _ => return None,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None);
        Some(Self { socket: socket.ok()?, address: address.ok()? })
    }

    /// Sends a datagram without waiting.
    ///
    /// # Errors
    /// As sendto(2).
    pub fn send(&self, datagram: &[u8]) -> io::Result<Sent> {
        match sendto(&self.socket, datagram, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &self.address) {
            Ok(_) => Ok(Sent::Taken),
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => Ok(Sent::NotNow),
            Err(error) => Err(error.into()),
        }
    }
}

/// The watchdog's period, in milliseconds; `None` when there is no watchdog for this process.
pub fn watchdog_ms() -> Option<u64> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    // Children inherit the variables, which are not for them.
    let for_us =
        std::env::var_os("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(std::process::id().into());
    number("WATCHDOG_USEC").filter(|usec| *usec > 0 && for_us).map(|usec| (usec / 1000).max(1))
}
