//! Publication to the kernel's keyrings.
//!
//! `worker` takes jobs and reports, `path` finds or makes the keyrings on the way to a key, `sweep` looks at published
//! keys from time to time, since the kernel has no events for them, and `sys` is the kernel's interface. Imports run
//! one way: worker, then path and sweep, then sys.

mod path;
mod sweep;
mod sys;
mod worker;

pub(super) use worker::probe;
