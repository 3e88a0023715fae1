//! The engine's rows in the words of the control protocol.

use super::super::executor::running_config::RunningConfig;
use crate::config::Config;
use crate::control::protocol::{self, LastError, SinkState, TenantFilter, TenantRow};
use crate::domain::{Names, Now, TenantId, WallMs};
use crate::engine::{SinkStatus, TenantStatus};

/// The tenants after `after` whose app `filter` admits, in the order of their ids.
pub(super) fn ids_after<'a>(
    config: &'a Config,
    after: Option<&'a TenantId>,
    filter: &'a TenantFilter,
) -> impl Iterator<Item = TenantId> + 'a {
    let apps = config.apps.iter().skip_while(move |(name, _)| after.is_some_and(|after| **name < after.app));
    apps.filter(|(name, _)| filter.admits_app(name.as_str())).flat_map(move |(name, app)| {
        let from = match after {
            Some(after) if after.app == *name => app.tenants.partition_point(|corp_id| *corp_id <= after.corp_id),
            _ => 0,
        };
        app.tenants[from..].iter().map(|corp_id| TenantId { app: name.clone(), corp_id: corp_id.clone() })
    })
}

/// One row, as it goes over the socket.
pub(super) fn tenant_row(row: TenantStatus, ways: &RunningConfig, now: Now) -> TenantRow {
    let config = ways.config.as_ref();
    let names = config.apps.get(&row.id.app).map(|app| app.names_of(&row.id.app, &row.id.corp_id));
    let in_s = |at: WallMs| {
        (i64::try_from(at.0).unwrap_or(i64::MAX) - i64::try_from(now.wall.0).unwrap_or(0)).div_euclid(1000)
    };
    TenantRow {
        tenant: [row.id.app.as_str(), "/", row.id.corp_id.as_str()].concat(),
        app: row.id.app.as_str().to_owned(),
        corp_id: row.id.corp_id.as_str().to_owned(),
        name: names.as_ref().and_then(|names| names.name.as_ref()).map(|name| name.as_str().to_owned()),
        state: row.state,
        expires_at: row.expires_at.map(WallMs::rfc3339),
        expires_in_s: row.expires_at.map(in_s),
        next_refresh_at: row.next_call.map(WallMs::rfc3339),
        next_refresh_in_s: row.next_call.map(in_s),
        why: match &row.hold {
            Some(hold) => ways.sentence(hold, now),
            _ => row.why.to_owned(),
        },
        fingerprint: row.fingerprint.map(|fingerprint| fingerprint.to_string()),
        sinks: names.map(|names| sink_rows(&row, config, &names)).unwrap_or_default(),
        last_error: row.failure.map(|failure| LastError {
            kind: failure.failure.kind.as_str().to_owned(),
            code: failure.failure.code.map(Into::into),
            requestid: failure.failure.request_id.map(Into::into),
            detail: failure.failure.detail.into(),
            at: Some(failure.at.rfc3339()),
        }),
    }
}

fn sink_rows(row: &TenantStatus, config: &Config, names: &Names) -> Vec<protocol::SinkRow> {
    let Some(app) = config.apps.get(&row.id.app) else { return Vec::new() };
    let specs = app.sinks_of(&row.id.corp_id).iter();
    let rows = specs.zip(&row.sinks).map(|(spec, sink)| {
        let (state, error) = match sink {
            SinkStatus::Published => (SinkState::Published, None),
            SinkStatus::Pending => (SinkState::Pending, None),
            SinkStatus::Failing(failure) => (SinkState::Failing, failure.as_ref().map(ToString::to_string)),
        };
        protocol::SinkRow { place: spec.place(names).to_string(), state, error }
    });
    rows.collect()
}
