//! The shell around the engine: it reads the clock, turns what happens into events, executes actions, and talks to systemd
//! and to the operators.
//!
//! In come a config path ([`start`]), signals, and queries of the control socket. Out go calls, commits, publications, answers
//! and log lines. Only `cli` uses it. Imports run one way: `turn`, `sinks`, `executor`, `reload`, `status`, `driver`, then `startup` and
//! `shutdown`, which begin and end what the driver runs.

mod driver;
mod executor;
mod reload;
mod shutdown;
mod sinks;
mod startup;
mod status;
pub mod turn;

use std::io;

pub use driver::{Daemon, Until};
pub use shutdown::Ended;
pub use startup::{StartError, Startup, start};

impl Daemon {
    /// Runs until the work is done, or a signal says so.
    ///
    /// # Errors
    /// When a part of the daemon ended that must not, or the system gives us no timer.
    pub async fn run(mut self, until: Until) -> io::Result<Ended> {
        let ended_by = self.drive(until).await?;
        shutdown::stop(self, ended_by).await
    }
}
