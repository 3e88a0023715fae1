//! What a config is read against, and whatever reads the file system for it: the config's own files, client secrets, the
//! ways to both, and the process's user, groups and limits.

pub(crate) mod bounded;
pub(crate) mod own_files;
pub(crate) mod permissions;
pub(crate) mod process;
pub mod secrets;
pub(crate) mod sources;
