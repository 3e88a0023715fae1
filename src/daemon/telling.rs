//! What systemd and the operators are told: READY, the status line, and the answers on the control socket.

use super::{Daemon, READY_AFTER_MS, answers, systemd};
use crate::control::Query;
use crate::control::protocol::{self, ConfigStatus, HeldBack, StateHealth, Status};
use crate::domain::{BootMs, Now, WallMs};
use crate::engine::{State, Summary};

/// How many failing sink roots `status` names.
const ROOTS_SHOWN: usize = 20;

impl Daemon {
    /// Says READY when it is time, and keeps systemd's status line up to date. Returns when to come by again for it.
    pub(super) fn tell(&mut self, now: Now) -> Option<BootMs> {
        let deadline = self.started.boot + READY_AFTER_MS;
        if !self.ready {
            let summary = self.engine.summary(now);
            if self.has_settled(&summary) || now.boot >= deadline {
                // Whoever waits for READY looks at the status next.
                let line = self.status_line(now, &summary);
                self.service.status(now.boot, line);
                self.become_ready(now, &summary);
            }
        }
        if let Some(on_turn) = &mut self.on_turn {
            on_turn(&self.engine.summary(now));
        }
        let status_at = self.service.status_due(now.boot);
        if status_at.is_some_and(|at| at <= now.boot) {
            let line = self.status_line(now, &self.engine.summary(now));
            self.service.status(now.boot, line);
        }
        [status_at.filter(|&at| at > now.boot), (!self.ready).then_some(deadline)].into_iter().flatten().min()
    }

    /// Whether every tenant had an outcome and every sink an attempt.
    fn has_settled(&self, summary: &Summary) -> bool {
        self.reload.is_idle()
            && summary.every_tenant_had_an_outcome
            && summary.every_sink_had_an_attempt
            && self.hands.all_kept()
    }

    pub(super) fn is_caught_up(&self, now: Now) -> bool {
        let summary = self.engine.summary(now);
        if !self.events.is_empty() {
            return false;
        }
        // A banned address gets no outcome for minutes: there is nothing to wait for then.
        if summary.paused_until.is_some() && self.reload.is_idle() {
            return self.hands.calls.under_way() == 0 && self.hands.all_kept() && summary.every_sink_had_an_attempt;
        }
        self.has_settled(&summary) && !summary.calls_are_wanted
    }

    fn become_ready(&mut self, now: Now, summary: &Summary) {
        self.ready = true;
        self.reload.announces = true;
        let (pending, unpublished) = (summary.counts.of(State::Pending), summary.counts.of(State::Unpublished));
        let total = summary.counts.total();
        match pending + unpublished {
            0 if total == 0 => tracing::info!(
                event = "ready",
                "ready: no tenants are configured yet; waiting for the config to change"
            ),
            0 if total == 1 => tracing::info!(event = "ready", tenants = total, "ready: 1 tenant"),
            0 => tracing::info!(event = "ready", tenants = total, "ready: {total} tenants"),
            missing => tracing::warn!(
                event = "ready",
                tenants = total,
                missing,
                "ready: {total} tenants, {pending} of them without an outcome yet, {unpublished} not published"
            ),
        }
        self.service.tell(now.boot, systemd::Phase::Ready);
    }

    fn status_line(&self, now: Now, summary: &Summary) -> String {
        let worst = self.worst(now, summary).map(|row| format!("{} is {}", row.tenant, row.state));
        let rejected = self.reload.last.headline.as_ref().map(|line| format!("config rejected: {line}"));
        let held_back = (self.reload.last.held_back > 0)
            .then(|| format!("removal of {} tenants held back", self.reload.last.held_back));
        let failing = || self.failing_roots().next();
        let complaint = rejected.or(held_back).or_else(|| self.hands.state.trouble()).or_else(failing);
        systemd::status_line(summary, worst.as_deref(), complaint.as_deref())
    }

    /// The sink roots below which publication fails, a line each.
    fn failing_roots(&self) -> impl Iterator<Item = String> {
        self.engine.failing_roots().map(|(root, places, failure)| {
            let root = self.hands.outlets.root(root).fixed.display();
            let places = if places == 1 { "1 place".to_owned() } else { format!("{places} places") };
            format!("{places} below {root} cannot be published: {failure}")
        })
    }

    /// The tenant that is worst off. Looked for only when not all are well.
    fn worst(&self, now: Now, summary: &Summary) -> Option<protocol::TenantRow> {
        let bad = [State::Expired, State::Refused, State::Unpublished, State::Failing];
        let state = bad.into_iter().find(|&state| summary.counts.of(state) > 0)?;
        let row = self.engine.first_in(now, state)?;
        Some(answers::tenant_row(row, &self.hands.ways, now))
    }

    pub(super) fn answer(&mut self, now: Now, query: Query) {
        let ways = std::sync::Arc::clone(&self.hands.ways);
        // Who went away in the meantime need not know.
        match query {
            Query::Status(reply) => drop(reply.send(self.status(now))),
            Query::Page { after, limit, filter, reply } => {
                drop(reply.send(answers::page(&self.engine, &ways, now, after.as_ref(), limit, &filter)));
            }
            Query::Tenant(id, reply) => {
                let row = self.engine.slot(&id).map(|slot| self.engine.row(now, slot));
                drop(reply.send(row.map(|row| answers::tenant_row(row, &ways, now))));
            }
            Query::Reload { request, reply } => self.reload.asked(now, request, Some(reply)),
        }
    }

    fn status(&self, now: Now) -> Status {
        let summary = self.engine.summary(now);
        let last = &self.reload.last;
        let mut warnings = last.warnings.clone();
        warnings.extend(self.skew.warning());
        warnings.extend(self.engine.hanging().map(ToString::to_string));
        warnings.extend(self.failing_roots().take(ROOTS_SHOWN));
        warnings.extend(self.engine.contested().map(|(root, places)| {
            let root = self.hands.outlets.root(root).fixed.display();
            format!("somebody else keeps changing what is published below {root} ({places} places): it is set right ever more slowly")
        }));
        warnings.extend(self.hands.outlets.flooded().map(|root| {
            let root = root.display();
            format!("somebody writes below {root} without end: what he alters there is set right within a minute, not at once")
        }));
        match self.hands.outlets.unwatched() {
            0 => {}
            n => warnings.push(format!(
                "{n} directories of token files are swept each minute, not watched: raise fs.inotify.max_user_watches \
                 (or fs.inotify.max_user_instances)"
            )),
        }
        let backlog = self.log.backlog();
        if backlog.hangs {
            let lost = backlog.lost;
            warnings.push(format!(
                "the log is not taken by whoever reads it (stderr, or the journal): its lines wait, {lost} are lost already"
            ));
        }
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at: self.started.wall.rfc3339(),
            ready: self.ready,
            longest_turn_ms: self.pauses.longest_ms(),
            tenants: answers::counts(&summary.counts),
            apps: summary.apps.iter().map(|app| (app.name.to_string(), answers::counts(&app.counts))).collect(),
            repairs: summary.apps.iter().map(|app| (app.name.to_string(), app.repairs)).collect(),
            config: ConfigStatus {
                path: self.reload.path().display().to_string(),
                last_reload_successful: !last.rejected,
                last_reload_at: last.at.map(WallMs::rfc3339),
                problems: last.problems.clone(),
                held_back: (last.held_back > 0).then_some(HeldBack { removed: last.held_back as u64 }),
            },
            state: state_health(self.hands.state.trouble()),
            holds: self.engine.holds(now).iter().map(|hold| self.hands.ways.row(hold)).collect(),
            api_paused_until: summary.paused_until.map(|at| (now.wall + at.since(now.boot)).rfc3339()),
            log_lines_lost: backlog.lost,
            warnings,
            worst: self.worst(now, &summary),
        }
    }
}

fn state_health(reason: Option<String>) -> StateHealth {
    StateHealth { healthy: reason.is_none(), reason }
}
