//! How the daemon stops: calls in flight get their time, publications that began end, the state is committed.

use std::io;
use std::time::Duration;

use super::driver::{Daemon, Until};
use super::status::systemd::ServiceState;
use super::turn::turn;
use crate::control::protocol::TenantRow;
use crate::engine::Event;
use crate::system::clock;

/// What calls in flight may still take when the daemon stops, in milliseconds.
const STOP_CALLS_MS: u64 = 5_000;
/// What publications may still take then.
const STOP_LANES: Duration = Duration::from_secs(2);
/// What the last commit may still take then.
const STOP_STORE: Duration = Duration::from_secs(2);

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// What ended it.
    pub by: Until,
    /// If the daemon caught up: the tenants that are not fresh, or not published everywhere, worst first. If it was told to stop,
    /// none: looking at a million tenants would delay the stop.
    pub not_fresh: Vec<TenantRow>,
    /// How many there are in all.
    pub tenants: u64,
}

/// Stops the daemon.
pub(super) async fn stop(mut daemon: Daemon, by: Until) -> io::Result<Ended> {
    daemon.service.notify(clock::now().boot, ServiceState::Stopping);
    finish_calls(&mut daemon).await?;
    let now = clock::now();
    daemon.reload.persist_when_done(&daemon.engine, &mut daemon.executor, now);
    let not_fresh = if by == Until::CaughtUp { daemon.view().not_fresh(now) } else { Vec::new() };
    let ended = Ended { by, not_fresh, tenants: daemon.engine.summary(now).counts.total() };
    if let Some(control) = daemon.control.take() {
        control.stop().await;
    }
    daemon.executor.stop(STOP_LANES, STOP_STORE);
    Ok(ended)
}

/// Takes turns, without new calls, until what is in flight has come back and is published.
async fn finish_calls(daemon: &mut Daemon) -> io::Result<()> {
    let deadline = clock::now().boot + STOP_CALLS_MS;
    daemon.executor.no_more_calls();
    loop {
        let now = clock::now();
        daemon.service.beat(now.boot);
        let events: Vec<Event> = std::mem::take(&mut daemon.events);
        turn(&mut daemon.engine, now, events, &mut daemon.executor);
        daemon.executor.look_at_store(now, &mut daemon.events);
        daemon.executor.flush();
        if is_idle(daemon) || now.boot >= deadline {
            return Ok(());
        }
        daemon.alarm.set(Some(deadline.min(now.boot + 1000)))?;
        tokio::select! {
            input = daemon.inputs.recv() => if let Some(input) = input { daemon.take(clock::now(), input) },
            Some(ended) = daemon.executor.calls.next() => daemon.take_answer(ended)?,
            rung = daemon.alarm.rings() => rung?,
        }
        daemon.take_waiting_inputs(clock::now())?;
    }
}

fn is_idle(daemon: &Daemon) -> bool {
    daemon.events.is_empty() && daemon.engine.every_sink_had_an_attempt() && daemon.executor.calls.in_flight() == 0
}
