//! The control socket from both ends: raw HTTP as curl speaks it, and the commands, against a daemon that is made up.
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

mod access;
mod connection_limits;
mod fake_daemon;
mod reload;
mod socket_file;
mod status;
mod untrusted_server;
mod wire;
