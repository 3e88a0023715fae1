//! Temporary names: each follows from the final name, so that a new attempt finds and replaces what an interrupted one left.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fd::BorrowedFd;
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::syscall::unlinkat;
use crate::domain::{Fingerprint, SinkFailure, TEMPORARY_EXTENSION};
use crate::sink::error;

/// The longest name of a directory entry, in bytes (NAME_MAX).
const NAME_MAX: usize = 255;

/// How many temporary names a place has. The second is used where somebody put something under the first that cannot be
/// removed.
const NAMES: u8 = 4;

/// The temporary names of `name`, the usual one first.
pub(crate) fn temporary_names(name: &OsStr) -> impl Iterator<Item = OsString> + '_ {
    (0..NAMES).map(|number| nth_name(name, number))
}

/// No two names share a temporary name: what follows the last dot tells the number, and whether the part before it is the
/// name itself or, where that is too long, its hash.
fn nth_name(name: &OsStr, number: u8) -> OsString {
    let room = NAME_MAX - "..".len() - TEMPORARY_EXTENSION.len() - "h1".len();
    let (stem, mark) = match name.len() <= room {
        true => (name.as_bytes().to_vec(), ""),
        false => (format!("{:016x}", Fingerprint::of(name.as_bytes()).0).into_bytes(), "h"),
    };
    let number = if number == 0 { String::new() } else { number.to_string() };
    let extension = format!(".{TEMPORARY_EXTENSION}{mark}{number}");
    OsString::from_vec([b".", &stem[..], extension.as_bytes()].concat())
}

/// Makes something under the first temporary name of `name` that is free or can be freed. Returns that name as well.
///
/// # Errors
/// What `make` met; EEXIST when each of the names is taken.
pub(crate) fn under_temporary_name<T>(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    make: impl Fn(&OsStr) -> rustix::io::Result<T>,
) -> rustix::io::Result<(OsString, T)> {
    for temporary in temporary_names(name) {
        let made = match make(&temporary) {
            Err(Errno::EXIST) => match remove(directory, &temporary) {
                Ok(()) => make(&temporary),
                Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST | Errno::PERM | Errno::BUSY) => continue,
                Err(errno) => return Err(errno),
            },
            other => other,
        };
        match made {
            // Somebody took the name at once, and would do so again.
            Err(Errno::EXIST) => {}
            other => return other.map(|made| (temporary, made)),
        }
    }
    Err(Errno::EXIST)
}

/// Removes a stale file, or a stale directory if it is empty.
fn remove(directory: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => unlinkat(directory, name, AtFlags::REMOVEDIR),
        other => other,
    }
}

/// The failure when each temporary name is taken.
pub(crate) fn names_are_taken(path: &Path, name: &OsStr) -> SinkFailure {
    let first = path.with_file_name(nth_name(name, 0));
    let remedy = format!("remove {} and its like, which somebody else put there", first.display());
    error::with_remedy("prepare a file or directory for", path, Errno::EXIST, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::is_temporary_name;

    #[test]
    fn a_temporary_name_is_never_too_long_and_always_the_same() {
        let long = "n".repeat(255);
        for name in ["token", "阿里", &"n".repeat(237), &"n".repeat(238), &long] {
            for (first, second) in temporary_names(OsStr::new(name)).zip(temporary_names(OsStr::new(name))) {
                assert_eq!(first, second);
                assert!(first.len() <= NAME_MAX && is_temporary_name(first.as_bytes()), "{first:?}");
            }
        }
        assert!(!is_temporary_name(b"token") && !is_temporary_name(b".token"));
    }

    #[test]
    fn no_two_places_have_a_temporary_name_in_common() {
        let [long, longer] = ["n".repeat(240), "n".repeat(255)];
        let hash = format!("{:016x}", Fingerprint::of(long.as_bytes()).0);
        let names = ["token", "token.1", "token1", "1", &hash, &format!("{hash}h"), &long, &longer, &"m".repeat(255)];
        let all: Vec<OsString> = names.iter().flat_map(|name| temporary_names(OsStr::new(name))).collect();
        let different: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!((all.len(), different.len()), (names.len() * 4, names.len() * 4));
    }
}
