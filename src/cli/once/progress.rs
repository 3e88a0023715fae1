//! How far `once` is.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::say;

/// A bar on a terminal; elsewhere a line for each tenth. Both on stderr: stdout has the outcome.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    tenths_said: u64,
    /// Whether there was anything to do when it was first looked at.
    is_wanted: Option<bool>,
}

impl Progress {
    pub(super) fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:40} {pos}/{len} tenants, {eta} left");
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, tenths_said: 0, is_wanted: None }
    }

    pub(super) fn show(&mut self, done: u64, total: u64) {
        if total == 0 || !*self.is_wanted.get_or_insert(done < total) {
            return;
        }
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        } else if done * 10 / total > self.tenths_said {
            self.tenths_said = done * 10 / total;
            say(format_args!("{done} of {total} tenants have had their turn"));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
