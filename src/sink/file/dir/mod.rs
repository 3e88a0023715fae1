//! The directories on the way to a published file.
//!
//! In: a sink's path, and which part of it is fixed. Out: an open [`DirHandle`] that nobody untrusted could have put in
//! another's place; all work in it goes through its descriptor.
//!
//! `cache` holds what is open and syncs it, `open` walks the fixed part of a path, `create` makes what is missing, `trust`
//! judges who may change a directory, `handle` is one that is open, `stale_files` knows which temporary files a killed
//! daemon may have left there, `pending_sync` which directories need another sync.

mod cache;
mod create;
mod handle;
mod open;
mod pending_sync;
mod stale_files;
mod trust;

pub(crate) use cache::DirectoryCache;
pub(crate) use create::IfMissing;
pub(crate) use handle::{DirHandle, DirNumber};
pub(crate) use open::could_be_made;
pub(crate) use trust::{DaemonUser, DirPolicy};
