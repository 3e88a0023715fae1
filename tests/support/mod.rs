//! What the tests of the daemon stand on.
//!
//! | room | holds |
//! |---|---|
//! | `machine` | a temporary machine: a simulated endpoint, a config, token files, and the real binary |
//! | `system` | what a test needs of the operating system: file systems that fill up or hang, keyrings, failing system calls |
//! | `readers` | applications that read token files in a loop |
//! | `service_manager` | a systemd that listens to the daemon |
//! | `reliability` | the tables of `docs/reliability.md` |
//! | `wait` | waiting for what must happen |
//!
//! Not every test file uses all of it.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test binary uses its own part")]

pub mod machine;
pub mod readers;
pub mod reliability;
pub mod service_manager;
pub mod system;
pub mod wait;

pub use machine::process::{BINARY, Killed, finish, shown};
pub use machine::{Machine, SECRET, corp_ids};
pub use system::{NOBODY, has, is_root, system_allows};
pub use wait::{PATIENCE, wait_soon, wait_until};
