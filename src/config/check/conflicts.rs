//! Whether a config that was put together, and not read from files, is one that could have been read: its places are judged
//! as those of any other.

use std::sync::Arc;

use super::places;
use crate::config::diagnostics::collect::{Diagnostics, Span};
use crate::config::diagnostics::report::{Diagnostic, Severity};
use crate::config::environment::sources::{Origin, Source};
use crate::config::model::{App, Config};
use crate::config::read::app::AppDraft;
use crate::config::read::reader::Spanned;
use crate::config::read::sink::Sink;
use crate::domain::{AppName, SinkSpec};

/// Where something stands that stands nowhere.
const NOWHERE: Span = Span { file: 0, start: 0, end: 0 };

/// The errors that the places of `config` are. Without a place in a file, since what they are about may stand in none.
pub fn conflicts(config: &Config) -> Vec<Diagnostic> {
    let apps: Vec<AppDraft> = config.apps.iter().map(|(name, app)| as_read(name, app)).collect();
    let nowhere = [Source::new("", "")];
    let mut diagnostics = Diagnostics::new(&nowhere);
    places::check(&apps, &config.own, Origin::Disk, &mut diagnostics);
    let errors =
        diagnostics.into_report().diagnostics.into_iter().filter(|diagnostic| diagnostic.severity == Severity::Error);
    errors.map(|diagnostic| Diagnostic { at: None, also: Vec::new(), ..diagnostic }).collect()
}

fn as_read(name: &AppName, app: &App) -> AppDraft {
    let sinks = |specs: &[SinkSpec]| -> Arc<[Sink]> {
        specs.iter().map(|spec| Sink { kind: spec.kind.clone(), at: None }).collect()
    };
    let own = app.special.iter().filter_map(|(id, special)| {
        let index = app.tenants.binary_search(id).ok()?;
        Some((index, sinks(special.sinks.as_ref()?)))
    });
    AppDraft {
        name: name.clone(),
        tenant_spans: vec![NOWHERE; app.tenants.len()],
        sinks: sinks(&app.sinks),
        own_sinks: own.collect(),
        secret: Some(Spanned { value: app.client_secret.clone(), at: NOWHERE }),
        app: app.clone(),
    }
}
