//! The matrix of neighbours in `docs/reliability.md`: one app has a fault for all of its 2,000 tenants, and another app's
//! 300 do not notice. `CORPTOKEND_NEIGHBOURS=ban_page` plays that fault alone.
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

mod cases;
mod faults;
mod fixture;
mod recovery;
#[path = "../support/mod.rs"]
mod support;
mod table;
