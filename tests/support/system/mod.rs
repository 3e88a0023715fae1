//! What a test needs of the operating system.

pub mod fuse;
pub mod keyring;
pub mod syscall_faults;
