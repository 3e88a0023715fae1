//! The kernel's key calls (keyctl(2), add_key(2)), with typed results and failures that an operator can act on.

use std::fs::read_to_string;
use std::num::NonZeroI32;

use keyutils_raw::{
    KEY_POS_ALL, KEY_SPEC_THREAD_KEYRING, KEY_SPEC_USER_KEYRING, KEY_TYPE_KEYRING, KEY_TYPE_USER, KEY_USR_READ,
    KEY_USR_SEARCH, KEY_USR_VIEW,
};
use rustix::io::Errno;
use zeroize::Zeroizing;

use crate::domain::{KeyringRoot, SinkFailure, SinkFailureKind, Token};
use crate::sink::error;

/// A key or a keyring.
pub(crate) type Serial = NonZeroI32;

/// The permissions of the daemon's keys and keyrings: their possessor may do all, their user may find, view and read them.
pub(crate) const PERMISSIONS: u32 = KEY_POS_ALL | KEY_USR_VIEW | KEY_USR_READ | KEY_USR_SEARCH;

/// The types of key in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyType {
    Keyring,
    User,
}

impl KeyType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Keyring => KEY_TYPE_KEYRING,
            Self::User => KEY_TYPE_USER,
        }
    }
}

/// The keyring at which a path starts.
///
/// It is linked into this thread's keyring, so that the thread possesses what is found below it (keyrings(7),
/// "Possession"): a service whose session keyring is its own could otherwise add a key to `@u`, but not set its timeout.
pub(crate) fn root(root: KeyringRoot) -> Result<Serial, Errno> {
    let (named, serial) = match root {
        KeyringRoot::User => {
            (KEY_SPEC_USER_KEYRING, errno(keyutils_raw::keyctl_get_keyring_id(KEY_SPEC_USER_KEYRING, true))?)
        }
        KeyringRoot::Serial(serial) => {
            let serial = Serial::new(serial).ok_or(Errno::NOKEY)?;
            (serial, serial)
        }
    };
    // Without the link the permissions of the key's user may still suffice.
    let _ = keyutils_raw::keyctl_link(named, KEY_SPEC_THREAD_KEYRING);
    Ok(serial)
}

/// What is linked directly in `ring`, sorted.
pub(crate) fn links(ring: Serial) -> Result<Vec<Serial>, Errno> {
    let mut buffer = vec![0; 4096];
    loop {
        let length = errno(keyutils_raw::keyctl_read(ring, Some(buffer.as_mut_slice().into())))?;
        if length > buffer.len() {
            buffer.resize(2 * length, 0);
            continue;
        }
        let words = buffer[..length].chunks_exact(4);
        let mut found: Vec<Serial> =
            words.filter_map(|word| Serial::new(i32::from_ne_bytes([word[0], word[1], word[2], word[3]]))).collect();
        found.sort_unstable();
        return Ok(found);
    }
}

/// A key of this description, in `ring` or in a keyring below it, the nearest first.
pub(crate) fn search(ring: Serial, key_type: KeyType, description: &str) -> Result<Serial, Errno> {
    errno(keyutils_raw::keyctl_search(ring, key_type.as_str(), description, None))
}

/// A key's description.
pub(crate) struct Described {
    pub(crate) is_keyring: bool,
    pub(crate) permissions: u32,
    pub(crate) description: String,
}

/// Describes a key: `type;uid;gid;perm;description`.
pub(crate) fn describe(key: Serial) -> Result<Described, Errno> {
    // A description has at most 4,095 bytes (keyrings(7)).
    let mut buffer = [0; 4224];
    let length = errno(keyutils_raw::keyctl_describe(key, Some(buffer.as_mut_slice().into())))?;
    let text = buffer.get(..length.saturating_sub(1)).ok_or(Errno::ILSEQ)?;
    let text = str::from_utf8(text).map_err(|_| Errno::ILSEQ)?;
    let mut parts = text.splitn(5, ';');
    let (Some(kind), Some(permissions), Some(description)) = (parts.next(), parts.nth(2), parts.next()) else {
        return Err(Errno::ILSEQ);
    };
    Ok(Described {
        is_keyring: kind == KEY_TYPE_KEYRING,
        permissions: u32::from_str_radix(permissions, 16).map_err(|_| Errno::ILSEQ)?,
        description: description.to_owned(),
    })
}

/// A user key's payload.
pub(crate) fn read(key: Serial) -> Result<Zeroizing<Vec<u8>>, Errno> {
    let mut buffer = Zeroizing::new(vec![0; Token::MAX_BYTES + 1]);
    let length = read_into(key, &mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

/// Reads a payload into `buffer`. Returns the payload's length, which may be more than fits.
pub(crate) fn read_into(key: Serial, buffer: &mut [u8]) -> Result<usize, Errno> {
    errno(keyutils_raw::keyctl_read(key, Some(buffer.into())))
}

/// Adds a key, or updates the one of this type and description in `ring`.
pub(crate) fn add(ring: Serial, key_type: KeyType, description: &str, payload: &[u8]) -> Result<Serial, Errno> {
    errno(keyutils_raw::add_key(key_type.as_str(), description, payload, ring))
}

/// Lets the kernel remove a key after this many seconds; 0 is never.
pub(crate) fn set_timeout(key: Serial, seconds: u32) -> Result<(), Errno> {
    errno(keyutils_raw::keyctl_set_timeout(key, seconds))
}

pub(crate) fn set_permissions(key: Serial, permissions: u32) -> Result<(), Errno> {
    errno(keyutils_raw::keyctl_setperm(key, permissions))
}

pub(crate) fn unlink(key: Serial, ring: Serial) -> Result<(), Errno> {
    match errno(keyutils_raw::keyctl_unlink(key, ring)) {
        Err(Errno::NOENT | Errno::NOKEY) => Ok(()),
        other => other,
    }
}

/// The failure when `doing` failed with the key or keyring `what`.
pub(crate) fn failed(doing: &str, what: &str, errno: Errno) -> SinkFailure {
    let (kind, remedy) = match errno {
        Errno::DQUOT => (SinkFailureKind::Full, quota_remedy()),
        Errno::NOMEM => (SinkFailureKind::Full, "the kernel has no memory for it".to_owned()),
        Errno::ACCESS => (
            SinkFailureKind::Denied,
            "under systemd say KeyringMode=shared and not PrivateUsers= in the unit; otherwise let the daemon's user \
             write the keyring (`keyctl setperm`)"
                .to_owned(),
        ),
        Errno::PERM | Errno::NOSYS => (
            SinkFailureKind::Denied,
            "something forbids the kernel's key calls: a seccomp profile (Docker's default one does: give the container \
             one that allows add_key, keyctl and request_key), or SystemCallFilter= or PrivateUsers= in the unit"
                .to_owned(),
        ),
        Errno::NOKEY | Errno::KEYREVOKED | Errno::KEYEXPIRED => {
            (SinkFailureKind::Other, "the keyring is gone (`keyctl show`); correct the sink if it named a number".to_owned())
        }
        Errno::NOTDIR => (SinkFailureKind::Unsafe, "it is a key, and a keyring is needed: correct the sink".to_owned()),
        Errno::INVAL => (SinkFailureKind::Other, "the kernel does not accept the name: correct the sink".to_owned()),
        _ => (SinkFailureKind::Other, "it is tried again".to_owned()),
    };
    SinkFailure { kind, detail: format!("cannot {doing} {what}: {}; {remedy}", error::text(errno)).into() }
}

/// How much of the quota is used, and how to raise it (keyrings(7), "/proc files").
fn quota_remedy() -> String {
    let uid = rustix::process::geteuid().as_raw();
    let prefix = if uid == 0 { "root_" } else { "" };
    let limit = |name: &str| {
        let value = read_to_string(format!("/proc/sys/kernel/keys/{prefix}{name}")).unwrap_or_default();
        let value = value.trim();
        format!("kernel.keys.{prefix}{name}={}", if value.is_empty() { "?" } else { value })
    };
    let users = read_to_string("/proc/key-users").unwrap_or_default();
    let mine = users.lines().find_map(|line| line.trim_start().strip_prefix(&format!("{uid}:")));
    let used = mine.map_or_else(String::new, |line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let of = |at: usize| fields.get(at).map_or("?", |pair| pair.split('/').next().unwrap_or("?"));
        format!(" of which {} keys and {} bytes are used", of(2), of(3))
    });
    format!("raise the quota of user {uid} with `sysctl`: {}, {}{used}", limit("maxkeys"), limit("maxbytes"))
}

fn errno<T>(result: Result<T, impl Into<std::io::Error>>) -> Result<T, Errno> {
    result.map_err(|error| Errno::from_io_error(&error.into()).unwrap_or(Errno::IO))
}
