//! Publication to files.
//!
//! `worker` takes jobs and reports. For each it renders the content (`format`), opens the directory (`dir`), replaces the
//! file (`publish`, by way of `temp_file`), and remembers what it left there (`watch`), to report what others change.
//! Imports run one way: worker, watch and publish, temp_file, dir, temp_name, syscall.
//!
//! [`render`] is public for benchmarks; everything else is used by the lane and by `probe` alone.

mod dir;
mod format;
mod publish;
mod syscall;
mod temp_file;
mod temp_name;
mod watch;
mod worker;

pub(super) use dir::{DaemonUser, DirHandle, DirPolicy, DirectoryCache, IfMissing, could_be_made};
pub use format::render;
pub(super) use publish::probe_directory;
