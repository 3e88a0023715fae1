//! The names of temporary files and directories.

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

/// How many names a temporary file can have: a second is only used where somebody else put something under the first
/// that cannot be removed.
const NAMES: u8 = 4;

/// The name under which the file for the place `name` is prepared: always the same, so that a new attempt replaces what
/// an interrupted one left.
pub(crate) fn temporary_name(name: &OsStr) -> OsString {
    nth_name(name, 0)
}

/// All names under which the file for the place `name` may be prepared, the usual one first.
pub(crate) fn temporary_names(name: &OsStr) -> impl Iterator<Item = OsString> + '_ {
    (0..NAMES).map(|number| nth_name(name, number))
}

/// No two places have a name in common: what follows the last dot tells the number, and whether the name before it is the
/// place's own or, being too long, a hash of it.
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

/// Makes something under a temporary name for the place `name`: under the first name at which nothing stands that cannot
/// be removed. Answers with that name as well.
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
            // Somebody was faster, and will be again.
            Err(Errno::EXIST) => {}
            other => return other.map(|made| (temporary, made)),
        }
    }
    Err(Errno::EXIST)
}

/// Removes what an interrupted predecessor left under a temporary name: a file, or a directory that is still empty.
fn remove(directory: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => unlinkat(directory, name, AtFlags::REMOVEDIR),
        other => other,
    }
}

/// What an operator reads when each temporary name is taken.
pub(crate) fn names_are_taken(path: &Path, name: &OsStr) -> SinkFailure {
    let first = path.with_file_name(temporary_name(name));
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
