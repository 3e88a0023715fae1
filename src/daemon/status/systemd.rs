//! READY, STATUS, RELOADING, WATCHDOG and STOPPING, as systemd wants them. Nothing is sent without `NOTIFY_SOCKET`.
//!
//! Nobody waits for systemd: what its socket does not take at once is sent again by the scheduler, in order. So `WATCHDOG=1` still means
//! that the scheduler makes progress.

use std::collections::VecDeque;

use super::super::reload;
use crate::domain::{BootMs, TenantState};
use crate::engine::Summary;

use crate::system::clock;
use crate::system::sd_notify::{self, Manager, Sent};

/// `STATUS=` is sent at most this often, in milliseconds.
const STATUS_EVERY_MS: u64 = 1000;

/// What systemd did not take is sent again after so long, in milliseconds.
const AGAIN_AFTER_MS: u64 = 250;

/// The service, as systemd sees it.
pub(crate) struct Service {
    manager: Option<Manager>,
    /// How often `WATCHDOG=1` is sent: half of `WATCHDOG_USEC`.
    beat_ms: Option<u64>,
    beat_at: BootMs,
    /// The last status.
    status: String,
    status_at: BootMs,
    /// The status is still to be sent.
    owes_status: bool,
    /// Something happened since the last status.
    is_stale: bool,
    /// Changes of state that are still to be sent, in order.
    owed: VecDeque<ServiceState>,
    again_at: Option<BootMs>,
}

/// A change of the service's state, for systemd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServiceState {
    /// The start is done, or a reload is over.
    Ready,
    /// A reload began, at this moment of CLOCK_MONOTONIC in microseconds.
    Reloading(u64),
    /// The daemon stops.
    Stopping,
}

impl From<reload::ReloadPhase> for ServiceState {
    fn from(phase: reload::ReloadPhase) -> Self {
        match phase {
            reload::ReloadPhase::Begins => Self::Reloading(clock::monotonic_usec()),
            reload::ReloadPhase::Over => Self::Ready,
        }
    }
}

impl ServiceState {
    /// One datagram, or systemd takes the time for another reload's.
    fn datagram(self) -> String {
        match self {
            Self::Ready => "READY=1\n".into(),
            Self::Reloading(moment) => format!("RELOADING=1\nMONOTONIC_USEC={moment}\n"),
            Self::Stopping => "STOPPING=1\nSTATUS=stopping\n".into(),
        }
    }
}

impl Service {
    pub(crate) fn from_env(now: BootMs) -> Self {
        Self::new(Manager::from_env(), sd_notify::watchdog_ms().map(|period| (period / 2).max(1)), now)
    }

    fn new(manager: Option<Manager>, beat_ms: Option<u64>, now: BootMs) -> Self {
        Self {
            manager,
            beat_ms,
            beat_at: now,
            status: String::new(),
            status_at: BootMs(0),
            owes_status: false,
            is_stale: false,
            owed: VecDeque::new(),
            again_at: None,
        }
    }

    /// When the scheduler must wake up for it, whatever else happens.
    pub(crate) fn next_beat(&self) -> Option<BootMs> {
        self.beat_ms.map(|_| self.beat_at).into_iter().chain(self.again_at).min()
    }

    /// The scheduler came by. Nothing else calls this: a scheduler that stands still gets the daemon restarted.
    pub(crate) fn beat(&mut self, now: BootMs) {
        if self.again_at.is_some_and(|at| at <= now) {
            self.again_at = None;
            self.pay(now);
        }
        if let Some(every) = self.beat_ms.filter(|_| now >= self.beat_at) {
            let sent = self.send("WATCHDOG=1\n");
            self.beat_at = now + if sent { every } else { every.min(AGAIN_AFTER_MS) };
        }
    }

    /// The status may have changed.
    pub(crate) fn something_happened(&mut self) {
        self.is_stale = self.manager.is_some();
    }

    /// When the status is to be sent; `None` if it cannot have changed, or nobody listens.
    pub(crate) fn status_due(&self, now: BootMs) -> Option<BootMs> {
        let earliest = if self.status_at == BootMs(0) { now } else { self.status_at + STATUS_EVERY_MS };
        self.is_stale.then_some(earliest)
    }

    /// Sends the status if it changed. Of several that systemd did not take, only the last one is sent again.
    pub(crate) fn status(&mut self, now: BootMs, status: String) {
        self.status_at = now;
        self.is_stale = false;
        if status != self.status {
            self.status = status;
            self.owes_status = true;
            self.pay(now);
        }
    }

    /// Sends a change of state, now or as soon as systemd takes it.
    pub(crate) fn notify(&mut self, now: BootMs, change: ServiceState) {
        if self.manager.is_none() {
            return;
        }
        // A reload that began and ended before anything was taken is dropped once another one begins.
        let unheard = matches!(self.owed.make_contiguous(), [.., ServiceState::Reloading(_), ServiceState::Ready]);
        if unheard && matches!(change, ServiceState::Reloading(_)) {
            self.owed.truncate(self.owed.len() - 2);
        }
        self.owed.push_back(change);
        self.pay(now);
    }

    /// Sends what is owed, as far as systemd takes it.
    fn pay(&mut self, now: BootMs) {
        if self.owes_status {
            // One line, whatever it holds.
            let line = format!("STATUS={}\n", self.status.replace('\n', " "));
            self.owes_status = !self.send(&line);
        }
        while let Some(change) = self.owed.front().copied()
            && self.send(&change.datagram())
        {
            self.owed.pop_front();
        }
        if self.owes_status || !self.owed.is_empty() {
            self.again_at.get_or_insert(now + AGAIN_AFTER_MS);
        }
    }

    /// `false`: systemd does not take it now, and it must be sent again.
    fn send(&self, datagram: &str) -> bool {
        let Some(manager) = &self.manager else { return true };
        match manager.send(datagram.as_bytes()) {
            Ok(Sent::Taken) => true,
            Ok(Sent::NotNow) => false,
            Err(error) => {
                tracing::debug!(event = "notify_failed", "cannot tell systemd: {error}");
                true
            }
        }
    }
}

/// `3 fresh, 1 refused; worst: crm/ding1 is refused`.
pub(crate) fn status_line(summary: &Summary, worst: Option<&str>, complaint: Option<&str>) -> String {
    let counts: Vec<String> = TenantState::WORST_FIRST
        .iter()
        .rev()
        .map(|&state| {
            (summary.counts.of(state), if state == TenantState::Unpublished { "not published" } else { state.as_str() })
        })
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    let mut line = if counts.is_empty() { "no tenants are configured".to_owned() } else { counts.join(", ") };
    if let Some(worst) = worst {
        line.push_str("; worst: ");
        line.push_str(worst);
    }
    if let Some(complaint) = complaint {
        line.push_str("; ");
        line.push_str(complaint);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    /// A manager whose socket is full, and the service.
    fn deaf() -> (tempfile::TempDir, UnixDatagram, Service) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let filler = UnixDatagram::unbound().unwrap();
        filler.set_nonblocking(true).unwrap();
        while filler.send_to(b"X=1", &path).is_ok() {}
        let manager = Manager::at(path.as_os_str());
        (dir, socket, Service::new(manager, Some(10_000), BootMs(1_000)))
    }

    /// What systemd receives, the filling aside.
    fn heard(socket: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 512];
        let datagrams = std::iter::from_fn(|| {
            let length = socket.recv(&mut buffer).ok()?;
            Some(String::from_utf8_lossy(&buffer[..length]).trim_end().replace('\n', " "))
        });
        datagrams.filter(|text| text != "X=1").collect()
    }

    #[test]
    fn what_a_deaf_manager_missed_is_told_when_it_listens_again_in_order_and_only_what_still_matters() {
        let (_dir, socket, mut service) = deaf();
        let mut now = BootMs(2_000);
        service.status(now, "first".into());
        service.notify(now, ServiceState::Ready);
        for moment in 1..=5 {
            service.notify(now, ServiceState::Reloading(moment));
            service.notify(now, ServiceState::Ready);
            service.status(now, format!("status {moment}"));
        }
        service.beat(now);
        now = service.next_beat().unwrap();
        assert!(now <= BootMs(2_000 + AGAIN_AFTER_MS), "it comes back soon: {now:?}");
        assert_eq!(heard(&socket), [""; 0]);
        service.beat(now);
        let owed = ["STATUS=status 5", "READY=1", "RELOADING=1 MONOTONIC_USEC=5", "READY=1", "WATCHDOG=1"];
        assert_eq!(heard(&socket), owed);
        assert_eq!(service.next_beat(), Some(now + 10_000), "and then only when it must");
        service.beat(now + 1);
        assert_eq!(heard(&socket), [""; 0]);
    }

    #[test]
    fn without_a_manager_nothing_is_owed() {
        let mut service = Service::new(None, None, BootMs(0));
        service.notify(BootMs(1), ServiceState::Ready);
        service.status(BootMs(1), "x".into());
        assert_eq!(service.next_beat(), None);
    }
}
