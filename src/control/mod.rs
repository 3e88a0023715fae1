//! The control socket: HTTP/1.1 with JSON over a Unix socket, so that `curl --unix-socket` is a client too.
//!
//! Goes in at the daemon's end: connections, and answers of the daemon to each [`Query`]. Goes in at the commands' end: calls
//! of [`ControlClient`]. Comes out: the JSON types of [`protocol`]. `daemon` uses [`bind`] and [`serve`], `cli` uses [`ControlClient`].

mod client;
pub mod protocol;
mod server;
mod thread;

pub use client::{ControlClient, ControlError};
pub use server::{AccessPolicy, CONNECTIONS_A_USER, MAX_CONNECTIONS, Query, bind, serve, unbind};
pub use thread::ServerThread;
