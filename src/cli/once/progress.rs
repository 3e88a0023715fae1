//! How far `once` is.

use std::io;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::terminal::{counted, print_line};
use crate::system::terminal::is_capable;

/// A bar on a terminal, elsewhere a line for each tenth. Both go to stderr; stdout gets the outcome.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    tenths_reported: u64,
    /// Whether there was anything to do at first; `None`: not known yet.
    is_wanted: Option<bool>,
}

impl Progress {
    pub(super) fn new() -> Self {
        let bar = is_capable(&io::stderr()).then(|| {
            let style = ProgressStyle::with_template("{bar:40} {pos}/{len} tenants, {eta} left");
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, tenths_reported: 0, is_wanted: None }
    }

    pub(super) fn show(&mut self, done: u64, total: u64) {
        if total == 0 || !*self.is_wanted.get_or_insert(done < total) {
            return;
        }
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        } else if done * 10 / total > self.tenths_reported {
            self.tenths_reported = done * 10 / total;
            print_line(format_args!("{done} of {} have had their turn", counted(total, "tenant")));
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
