//! What the tests of the daemon stand on: a machine with an endpoint, a config and the real binary, and what a test needs of
//! the operating system.
//!
//! Not every test file uses all of it.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test binary uses its own part")]

pub mod figures;
pub mod machine;
pub mod readers;
pub mod reliability;
pub mod service_manager;
pub mod system;

pub use machine::*;
