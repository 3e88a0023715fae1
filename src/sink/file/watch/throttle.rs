//! Reports drift of a place at once, and then at most once a second: a fight with another writer must not spin.
//!
//! Time is counted in ticks of a timer that runs only after a report, so no clock is read and an idle lane sleeps.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use rustix::fd::BorrowedFd;

use crate::domain::{SinkId, Slot, Ticket};
use crate::sink::job::PublicationId;
use crate::sink::ticker::Ticker;

const TICK: Duration = Duration::from_millis(100);

/// A second, plus the tick in progress.
const PAUSE: u64 = 11;

/// The places reported within the last second.
#[derive(Debug)]
pub(crate) struct Throttle {
    ticker: Ticker,
    now: u64,
    recent: HashMap<(Slot, SinkId), Recent>,
}

#[derive(Debug)]
struct Recent {
    until: u64,
    /// Drifted again in the meantime: to be reported when the second is over.
    again: Option<Ticket>,
}

impl Throttle {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { ticker: Ticker::new(TICK)?, now: 0, recent: HashMap::new() })
    }

    /// Whether the drift of this place may be reported now; if not, [`due`](Self::due) returns it later.
    pub(crate) fn admits(&mut self, (ticket, sink): PublicationId) -> bool {
        self.ticker.run(true);
        let until = self.now + PAUSE;
        let recent = self.recent.entry((ticket.slot, sink)).or_insert(Recent { until: 0, again: None });
        if recent.until != 0 {
            recent.again = Some(ticket);
            return false;
        }
        recent.until = until;
        true
    }

    /// The reports that were held back until now.
    pub(crate) fn due(&mut self) -> Vec<PublicationId> {
        self.now += self.ticker.elapsed();
        let (now, mut due) = (self.now, Vec::new());
        self.recent.retain(|(_, sink), recent| {
            if recent.until > now {
                return true;
            }
            let again = recent.again.take();
            recent.until = now + PAUSE;
            due.extend(again.map(|ticket| (ticket, *sink)));
            again.is_some()
        });
        self.ticker.run(!self.recent.is_empty());
        due
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.ticker.fd()
    }
}
