//! The control socket: HTTP/1.1 with JSON over a Unix socket, so that `curl --unix-socket` is a client too.
//!
//! [`protocol`] is what goes over the wire, [`bind`] makes the socket, [`serve`] answers on it by asking the daemon
//! ([`Query`]), and [`Client`] is what the commands use.

mod admission;
mod client;
mod patient;
pub mod protocol;
mod rows;
mod server;
mod shares;
mod socket;

pub use admission::Admission;
pub use client::{Client, ClientError};
pub use server::{Query, serve};
pub use shares::{CONNECTIONS_A_USER, MAX_CONNECTIONS};
pub use socket::{bind, unbind};
