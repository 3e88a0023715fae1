//! All places of many tenants take linear time, whatever is wrong with them.

use std::time::Duration;

use super::conflicts::check;
use super::places::AppPlaces;
use std::sync::Arc;

use crate::config::diagnostics::collect::{Diagnostics, Span};
use crate::config::diagnostics::sources::Source;
use crate::config::environment::Environment;
use crate::config::model::OwnFiles;
use crate::config::read::app::AppDraft;
use crate::config::read::sink::SinkDraft;
use crate::domain::{AppName, CorpId, Placeholder, SinkKind, Template};

fn file(path: &str, at: u32) -> SinkDraft {
    let mut sink = SinkDraft::standard("/run");
    let SinkKind::File(file) = &mut sink.kind else { unreachable!() };
    Arc::make_mut(file).path = Template::parse(path, Placeholder::IN_PATHS).unwrap();
    SinkDraft { at: Some(Span { file: 0, start: at, end: at }), ..sink }
}

/// An app whose tenants each have sinks of their own, the `n`th those that `sinks` makes.
fn app(tenants: u32, sinks: impl Fn(u32) -> Vec<SinkDraft>) -> AppDraft {
    AppDraft::with_tenants(
        AppName::new("crm").unwrap(),
        (0..tenants)
            .map(|n| (CorpId::new(&format!("ding{n:06}")).unwrap(), Span { file: 0, start: n, end: n }, sinks(n))),
    )
}

/// The processor time of looking at all places, and how many diagnostics there are.
fn look(apps: &[AppDraft]) -> (Duration, usize) {
    let source = [Source::new("/etc/corptokend/config.toml", "\n".repeat(500_000))];
    let own = OwnFiles { files: vec![("/var/lib/corptokend/state.redb".into(), "the state")], ..OwnFiles::default() };
    let now = || Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime)).unwrap();
    let diagnostics = Diagnostics::new(&source);
    let apps: Vec<AppPlaces<'_>> = apps.iter().map(AppPlaces::of_draft).collect();
    let start = now();
    check(&apps, &own, &Environment::default(), &diagnostics);
    (now() - start, diagnostics.into_report().diagnostics.len())
}

#[test]
fn twice_as_many_tenants_with_sinks_of_their_own_take_about_twice_as_long_whatever_is_wrong_with_them() {
    let wrong = |tenants| app(tenants, |n| vec![file("/var/lib/corptokend/state.redb/x", n)]);
    let right = |tenants| app(tenants, |n| vec![file("/a/{corp_id}", n), file("/b/{corp_id}", n + 250_000)]);
    let same = |tenants| app(tenants, |n| vec![file(&format!("/a/{}", n / 2), n)]);
    let below = |tenants| app(tenants, |n| vec![file(&format!("/a/{n}"), n), file(&format!("/a/{n}/x"), n)]);
    let kinds: [(&str, &dyn Fn(u32) -> AppDraft); 4] =
        [("wrong", &wrong), ("right", &right), ("same", &same), ("below", &below)];
    for (kind, make) in kinds {
        let ((one, few), (two, many)) = (look(&[make(20_000)]), look(&[make(40_000)]));
        assert!(two < one * 3, "{kind}: {one:?} for 20,000 ({few} diagnostics), {two:?} for 40,000 ({many})");
    }
}
