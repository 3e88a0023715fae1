//! Time as a daemon meets it: a process that stood still, a clock that is set, a machine that slept.
//!
//! The last two need a machine whose clock may be set. Where `CORPTOKEND_VM_KERNEL` names a kernel image, they boot one.
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

mod guest;
mod set;
mod slept;
mod stopped;
#[path = "../support/mod.rs"]
mod support;
