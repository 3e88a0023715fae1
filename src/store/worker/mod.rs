//! The store's threads.
//!
//! `queue` takes requests, newer ones of a tenant replacing older ones. `writer` opens the database, commits what waits in
//! the queue, and opens the database again after an error. `reader` reads tokens while the writer writes or hangs.
//! Replies go to the callback that the store was opened with.

mod queue;
mod reader;
mod writer;

pub(super) use queue::StoreQueue;
pub(super) use reader::{LoadRequest, StoreReader};
pub(super) use writer::{OpenResult, StoreWriter};
