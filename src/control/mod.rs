//! The control socket: HTTP/1.1 with JSON over a Unix socket, so that `curl --unix-socket` is a client too.
//!
//! At the daemon's end, connections go in and a [`Query`] comes out for each request; `daemon` uses [`bind`] and
//! [`ServerThread`]. At the commands' end, calls of [`ControlClient`] go in and the JSON types of [`protocol`] come out; `cli` uses it.

mod client;
pub mod protocol;
mod server;
mod thread;

pub use client::{ControlClient, ControlError};
pub use server::{AccessPolicy, CONNECTIONS_A_USER, MAX_CONNECTIONS, Query, bind, serve, unbind};
pub use thread::ServerThread;
