//! Tokens, deadlines and failures over restarts, in an embedded database.
//!
//! [`open`] reads what is there and starts the threads. In: [`StoreRequest`]s, by [`Store::send`]. Out: [`StoreReply`]s, by callback
//! from the store's threads. What was committed before a crash is there after it; what could not be committed stays in
//! memory until it can.
//!
//! `worker` has the threads: one writes, one reads. `database` is the file and everything that touches redb. A disk that
//! hangs holds up these threads and nobody else: [`Store::stalled`] tells for how long, by way of `stall`. The daemon is the
//! only user.

mod database;
mod handle;
mod message;
mod pending;
mod snapshot;
mod stall;
mod worker;

pub use handle::{HANGS_AFTER_MS, OpenError, Opened, Stalled, Store, hangs, open};
pub use message::{Applied, Contents, Kept, Lookup, SetAside, StoreReply, StoreRequest};
pub use snapshot::Snapshot;
