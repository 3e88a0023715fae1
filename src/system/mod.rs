//! What the operating system gives: clocks, threads for blocking work, permissions, the log, the service manager's socket, and the
//! process itself.
//!
//! A leaf beside [`domain`](crate::domain), which is all that it may import: every module that does I/O may use it, and it knows
//! none of them.

pub mod blocking;
pub mod clock;
pub mod log;
pub mod permissions;
pub mod process;
pub mod sd_notify;
pub mod terminal;
