//! A model of the daemon around its engine, on virtual time: what the endpoint, the state and the sinks do is decided by a test,
//! and what the engine decides is carried out on them, through the turn that the daemon turns. Each of them records what was
//! done to it, and checks what was promised.
//!
//! In come events, faults and plans; out come calls, commits and publications. `tests/engine` and `tests/simulation` use it.
#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test binary uses its own part")]

mod clock;
mod daemon;
mod endpoint;
mod event_queue;
mod executor;
mod invariants;
mod rng;
mod sinks;
mod store;
mod tenants;

pub use daemon::Daemon;
pub use endpoint::{Endpoint, Habit, Reply, Treatment};
pub use invariants::{HANDOVER_MS, Statistics};
pub use rng::Rng;
pub use sinks::{Attempt, Content, place};
pub use store::{StoreFault, Stored};
pub use tenants::{Names, TenantNo};
