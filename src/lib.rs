//! corptokend keeps the access tokens of many organisations fresh, in files and kernel keyrings.
//!
//! The map, in the order in which a token flows (`docs/architecture.md` tells the whole story):
//!
//! | module | what it is |
//! |---|---|
//! | [`domain`] | the plain words everyone shares: ids, tokens, records, failures, sinks, plans |
//! | [`system`] | what the operating system gives: clock, log, permissions, work that may hang |
//! | [`config`] | text to [`config::Config`], with diagnostics; the difference of two configs |
//! | [`environment`] | what a config depends on outside of its text: files, secrets, accounts, and who could change them |
//! | [`engine`] | the state machine that decides everything and does nothing |
//! | [`api`] | the call to the token endpoint, and what its answers mean |
//! | [`store`] | tokens and deadlines over restarts |
//! | [`sink`] | publication: files and kernel keyrings |
//! | [`daemon`] | the shell around the engine: clock, lanes, reload, systemd |
//! | [`control`] | the Unix socket: server, client and their shared types |
//! | [`sandbox`] | a simulated token endpoint, a real TLS server, for `dev` and the tests |
//! | [`cli`] | one file per command |

pub mod api;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod domain;
pub mod engine;
pub mod environment;
pub mod sandbox;
pub mod sink;
pub mod store;
pub mod system;
