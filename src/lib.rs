//! corptokend keeps the access tokens of many organisations fresh, in files and kernel keyrings.
//!
//! The map, in the order in which a token flows (`docs/architecture.md` tells the whole story):
//!
//! | module | what it is |
//! |---|---|
//! | [`domain`] | the plain types that everyone shares: ids, tokens, records, failures, sinks, plans |
//! | [`system`] | what the operating system gives: clocks, blocking work, permissions, the log, sd_notify, the process |
//! | [`config`] | text to [`config::Config`], with diagnostics; the difference of two configs |
//! | [`environment`] | what a config depends on outside of its text: files, secrets, accounts, and who could change them |
//! | [`engine`] | the state machine that decides everything and does nothing |
//! | [`api`] | the call to the token endpoint, and what its answers mean |
//! | [`store`] | the state: tokens, deadlines, failures and the applied config over restarts |
//! | [`sink`] | publication: files and kernel keyrings |
//! | [`daemon`] | the shell around the engine: the loop, the executor, sinks by number, reload, start and stop, status |
//! | [`control`] | the Unix socket: server, client and their shared types |
//! | [`sandbox`] | a simulated token endpoint, a real TLS server, for `dev` and the tests |
//! | [`cli`] | the commands, a file or a folder each |

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
