//! What goes into the engine and what comes out of it.

mod action;
mod event;
mod notice;
mod reminder;

pub use action::{Action, Expire, Publish};
pub use event::{Capacity, Event};
pub use notice::{CallScope, Notice};
pub(crate) use reminder::{REMIND_MS, Reminder};
