//! The store's threads, and where they meet those who ask.
//!
//! `queue` takes requests, the newest of a tenant in place of older ones. `writer` opens the database, commits what waits in
//! the queue, and opens the database again after an error. `reader` reads tokens while the writer writes or hangs.
//! Replies go to the callback that the store was opened with.

mod queue;
mod reader;
mod writer;

pub(super) use queue::Desk;
pub(super) use reader::{Reader, Wanted};
pub(super) use writer::{Opening, Worker, reason_of};
