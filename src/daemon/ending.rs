//! How the daemon ends: calls under way get their time, publications that began end, the state is committed.

use std::io;
use std::time::Duration;

use super::{Daemon, Ended, Until, answers, clock, systemd, turn};
use crate::control::protocol::TenantRow;
use crate::domain::{Now, Slot};
use crate::engine::{Event, Row, SinkRow, State};

/// What calls under way may still take when the daemon stops.
const STOP_CALLS_MS: u64 = 5_000;
/// What publications may still take then.
const STOP_LANES: Duration = Duration::from_secs(2);
/// What the last commit may still take then.
const STOP_STORE: Duration = Duration::from_secs(2);

impl Daemon {
    /// Ends: calls under way get their time, publications that began end, the state is committed.
    pub(super) async fn stop(mut self, until: Until) -> io::Result<Ended> {
        self.service.tell(clock::now().boot, systemd::Phase::Stopping);
        self.finish_calls().await?;
        let now = clock::now();
        self.reload.remember_if_done(&self.engine, &mut self.hands, now);
        let not_fresh = if until == Until::CaughtUp { self.not_fresh(now) } else { Vec::new() };
        let ended = Ended { not_fresh, tenants: self.engine.summary(now).counts.total() };
        if let Some(control) = self.control.take() {
            control.stop().await;
        }
        self.hands.stop(STOP_LANES, STOP_STORE);
        Ok(ended)
    }

    /// Turns on, without new calls, until what is under way has come back and is published.
    async fn finish_calls(&mut self) -> io::Result<()> {
        let deadline = clock::now().boot + STOP_CALLS_MS;
        self.hands.no_more_calls();
        loop {
            let now = clock::now();
            self.service.beat(now.boot);
            let events: Vec<Event> = std::mem::take(&mut self.events);
            turn::turn(&mut self.engine, now, events, &mut self.hands);
            self.hands.look_at_store(&self.engine, now, &mut self.events);
            self.hands.flush();
            let is_idle = self.events.is_empty() && self.hands.all_kept() && !self.hands.publishes();
            let done = is_idle && self.hands.calls.under_way() == 0;
            if done || now.boot >= deadline {
                return Ok(());
            }
            self.alarm.set(Some(deadline.min(now.boot + 1000)))?;
            tokio::select! {
                input = self.inputs.recv() => if let Some(input) = input { self.take(clock::now(), input) },
                Some(ended) = self.hands.calls.next() => self.take_answer(ended)?,
                rung = self.alarm.rings() => rung?,
            }
            self.take_waiting_inputs(clock::now())?;
        }
    }

    fn not_fresh(&self, now: Now) -> Vec<TenantRow> {
        let is_well = |row: &Row| {
            let published = row.sinks.iter().all(|sink| *sink == SinkRow::Published);
            row.state == State::Disabled || (row.state == State::Fresh && published)
        };
        let mut bad = self.engine.page(now, Slot(0), usize::MAX);
        bad.retain(|row| !is_well(row));
        bad.sort_by(|a, b| (a.state, &a.id).cmp(&(b.state, &b.id)));
        bad.into_iter().map(|row| answers::tenant_row(row, &self.hands.ways, now)).collect()
    }
}
