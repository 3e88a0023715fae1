//! Files and keys, against the real kernel.

#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

mod file;
mod fixture;
mod keyring;
mod keyring_repair;
mod neighbours;
mod places;
mod repair;
#[path = "../support/mod.rs"]
mod support;
