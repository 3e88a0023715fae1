//! What the daemon is: for READY, for systemd's status line, and for the control socket.
//!
//! A [`DaemonView`] borrows what runs and changes nothing. [`rows`] turns the engine's rows into the protocol's; [`systemd`] keeps the
//! service manager informed.

pub(crate) mod readiness;
mod rows;
pub(crate) mod systemd;

use std::sync::Arc;

use super::executor::Executor;
use super::reload::Reload;
use crate::control::protocol::{ConfigStatus, DaemonStatus, HeldBack, Page, StateHealth, TenantFilter, TenantRow};
use crate::domain::{Now, Slot, TenantId, TenantState, WallMs};
use crate::engine::{Engine, SinkStatus, Summary, TenantStatus};
use crate::system::log::Backlog;

/// How many failing sink roots `status` names.
const ROOTS_SHOWN: usize = 20;

/// What runs, to be looked at.
pub(crate) struct DaemonView<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) executor: &'a Executor,
    pub(crate) reload: &'a Reload,
    /// What an operator should know of the clock.
    pub(crate) clock_warning: Option<String>,
    pub(crate) backlog: Backlog,
    pub(crate) started: WallMs,
    pub(crate) ready: bool,
    pub(crate) longest_turn_ms: u64,
}

impl DaemonView<'_> {
    /// Whether every tenant had an outcome and every sink an attempt.
    pub(crate) fn has_settled(&self, summary: &Summary) -> bool {
        self.reload.is_idle() && summary.every_tenant_had_an_outcome && summary.every_sink_had_an_attempt
    }

    /// Whether everything that was due is done.
    pub(crate) fn is_caught_up(&self, now: Now) -> bool {
        let summary = self.engine.summary(now);
        // A banned address gets no outcome for minutes: there is nothing to wait for then.
        if summary.paused_until.is_some() && self.reload.is_idle() {
            return self.executor.calls.in_flight() == 0 && summary.every_sink_had_an_attempt;
        }
        self.has_settled(&summary) && !summary.calls_are_wanted
    }

    pub(crate) fn status_line(&self, now: Now, summary: &Summary) -> String {
        let worst = self.worst(now, summary).map(|row| format!("{} is {}", row.tenant, row.state));
        let rejected = self.reload.last.headline.as_ref().map(|line| format!("config rejected: {line}"));
        let held_back = (self.reload.last.held_back > 0)
            .then(|| format!("removal of {} tenants held back", self.reload.last.held_back));
        let failing = || self.failing_roots().next();
        let complaint = rejected.or(held_back).or_else(|| self.executor.state.trouble()).or_else(failing);
        systemd::status_line(summary, worst.as_deref(), complaint.as_deref())
    }

    /// The sink roots below which publication fails, a line each.
    fn failing_roots(&self) -> impl Iterator<Item = String> {
        self.engine.failing_roots().map(|(root, places, failure)| {
            let root = self.executor.sinks.root(root).display();
            let places = if places == 1 { "1 place".to_owned() } else { format!("{places} places") };
            format!("{places} below {root} cannot be published: {failure}")
        })
    }

    /// The tenant that is worst off. Looked for only when not all are well.
    fn worst(&self, now: Now, summary: &Summary) -> Option<TenantRow> {
        let bad = [TenantState::Expired, TenantState::Refused, TenantState::Unpublished, TenantState::Failing];
        let state = bad.into_iter().find(|&state| summary.counts.of(state) > 0)?;
        let row = self.engine.first_in(now, state)?;
        Some(rows::tenant_row(row, &self.executor.config, now))
    }

    /// One tenant's row.
    pub(crate) fn tenant(&self, now: Now, id: &TenantId) -> Option<TenantRow> {
        let row = self.engine.row(now, self.engine.slot(id)?);
        Some(rows::tenant_row(row, &self.executor.config, now))
    }

    /// Rows in the order of their ids: those of the `limit` tenants after `after` that `filter` admits. Here they are only looked
    /// up; the control socket's thread formats them as it takes them.
    pub(crate) fn page(&self, now: Now, after: Option<&TenantId>, limit: usize, filter: &TenantFilter) -> Page {
        let mut rows = Vec::with_capacity(limit);
        let mut ids = rows::ids_after(&self.executor.config.config, after, filter);
        let mut last = None;
        for id in ids.by_ref().take(limit) {
            let row = self.engine.slot(&id).map(|slot| self.engine.row(now, slot));
            rows.extend(row.filter(|row| filter.admits_state(row.state)));
            last = Some(id);
        }
        let next = last.filter(|_| ids.next().is_some());
        let ways = Arc::clone(&self.executor.config);
        Page { rows: Box::new(rows.into_iter().map(move |row| rows::tenant_row(row, &ways, now))), next }
    }

    /// The tenants that are not fresh, or not published everywhere, worst first.
    pub(crate) fn not_fresh(&self, now: Now) -> Vec<TenantRow> {
        let is_well = |row: &TenantStatus| {
            let published = row.sinks.iter().all(|sink| *sink == SinkStatus::Published);
            row.state == TenantState::Disabled || (row.state == TenantState::Fresh && published)
        };
        let mut bad = self.engine.page(now, Slot(0), usize::MAX);
        bad.retain(|row| !is_well(row));
        bad.sort_by(|a, b| (a.state.rank(), &a.id).cmp(&(b.state.rank(), &b.id)));
        bad.into_iter().map(|row| rows::tenant_row(row, &self.executor.config, now)).collect()
    }

    /// What `corptokend status` shows before the tenants.
    pub(crate) fn status(&self, now: Now) -> DaemonStatus {
        let summary = self.engine.summary(now);
        let last = &self.reload.last;
        let mut warnings = last.warnings.clone();
        warnings.extend(self.clock_warning.clone());
        warnings.extend(self.engine.hanging().map(ToString::to_string));
        warnings.extend(self.failing_roots().take(ROOTS_SHOWN));
        warnings.extend(self.engine.contested().map(|(root, places)| {
            let root = self.executor.sinks.root(root).display();
            format!("somebody else keeps changing what is published below {root} ({places} places): it is set right ever more slowly")
        }));
        warnings.extend(self.executor.sinks.flooded().map(|root| {
            let root = root.display();
            format!("somebody writes below {root} without end: what he alters there is set right within a minute, not at once")
        }));
        match self.executor.sinks.lanes.unwatched() {
            0 => {}
            n => warnings.push(format!(
                "{n} directories of token files are swept each minute, not watched: raise fs.inotify.max_user_watches \
                 (or fs.inotify.max_user_instances)"
            )),
        }
        let backlog = self.backlog;
        if backlog.hangs {
            let lost = backlog.lost;
            warnings.push(format!(
                "nobody reads the log (stderr, or the journal): its lines wait, and {lost} are lost already"
            ));
        }
        DaemonStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at: self.started.rfc3339(),
            ready: self.ready,
            longest_turn_ms: self.longest_turn_ms,
            tenants: summary.counts,
            apps: summary.apps.iter().map(|app| (app.name.to_string(), app.counts)).collect(),
            repairs: summary.apps.iter().map(|app| (app.name.to_string(), app.repairs)).collect(),
            config: ConfigStatus {
                path: self.reload.path().display().to_string(),
                last_reload_successful: !last.rejected,
                last_reload_at: last.at.map(WallMs::rfc3339),
                problems: last.problems.clone(),
                held_back: (last.held_back > 0).then_some(HeldBack { removed: last.held_back as u64 }),
            },
            state: state_health(self.executor.state.trouble()),
            holds: self.engine.held_calls(now).iter().map(|hold| self.executor.config.row(hold)).collect(),
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
