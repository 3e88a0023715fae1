//! What is still known after a restart, and after the clock was set.

use corptokend::domain::*;
use corptokend::engine::Notice;

use super::fixture::*;
use crate::model::Daemon;

const MINUTE: u64 = 60_000;

/// Kills the daemon and starts the next one after `down_ms`, with these tenants, as the state knows them.
fn restart(mut daemon: Daemon, down_ms: u64, tenants: std::ops::Range<usize>) -> Daemon {
    daemon.pass(down_ms);
    daemon.restart(&[]);
    set_policy(&mut daemon, policy(), Freshness::Current);
    for n in tenants {
        let record = daemon.stored(&tenant(n));
        daemon.change(Change::Added { id: tenant(n), sinks: SinkSetId(0), record });
    }
    daemon
}

/// A daemon whose calls all fail alike, with so many tenants, after a minute.
fn failing(kind: FailureKind, tenants: usize) -> Daemon {
    let mut daemon = daemon();
    daemon.endpoint.respond_with(move |_, _| fails(kind));
    add(&mut daemon, 0..tenants);
    daemon.run_ms(MINUTE);
    daemon
}

/// Lets all calls succeed from here on.
fn mend(daemon: &mut Daemon) {
    daemon.endpoint.respond_with(new_tokens(7200));
}

/// When the first call after a restart came, in milliseconds since then.
fn first_call(daemon: &Daemon, restarted: Now) -> Option<u64> {
    daemon.seen.calls.first().map(|(at, _)| at - restarted.boot.0)
}

#[test]
fn a_refused_tenant_is_not_called_before_its_time_by_the_next_process() {
    let daemon = failing(FailureKind::Unauthorized, 3);
    let mut next = restart(daemon, 4 * MINUTE, 0..3);
    let restarted = next.now();
    assert_eq!(state(&next, 0), TenantState::Refused);
    assert!(next.engine.summary(next.now()).every_tenant_had_an_outcome, "READY does not wait for it");
    let trouble = next.engine.row(next.now(), next.engine.slot(&tenant(0)).unwrap()).failure.unwrap();
    assert_eq!(trouble.failure.kind, FailureKind::Unauthorized);
    mend(&mut next);
    next.run_ms(HOUR);
    let waited = first_call(&next, restarted).unwrap();
    assert!((599_000..601_000).contains(&waited), "{waited} ms after the restart, 5 of 15 minutes being over");
    assert_eq!(state(&next, 0), TenantState::Fresh);
    let mended = next.seen.notices.iter().filter(|(_, said)| matches!(said, Notice::Recovered { .. })).count();
    assert_eq!((mended, next.store.saved.len()), (3, 0), "its end is told, and nothing is left of it");
}

#[test]
fn backoff_of_its_own_goes_on_where_it_was() {
    let mut daemon = daemon();
    let mut good = new_tokens(60);
    daemon.endpoint.respond_with(move |now, id| match id.corp_id.as_str() {
        "ding0" => fails(FailureKind::Timeout),
        _ => good(now, id),
    });
    add(&mut daemon, 0..5);
    daemon.run_ms(HOUR);
    let calls = calls_of(&daemon, 0).len();
    let mut next = restart(daemon, 0, 0..5);
    assert_eq!(state(&next, 0), TenantState::Failing);
    next.run_ms(HOUR);
    let after = calls_of(&next, 0).len();
    assert!(calls > 8 && calls < 40 && after < 30, "{calls} calls before, {after} in the hour after the restart");
}

#[test]
fn nobody_waits_after_a_restart_for_what_was_the_endpoints() {
    for tenants in [1, 2, 50] {
        let mut daemon = failing(FailureKind::Timeout, tenants);
        daemon.run_ms(HOUR);
        assert!(daemon.store.saved.is_empty(), "{:?}", daemon.store.saved);
        let mut next = restart(daemon, 0, 0..tenants);
        mend(&mut next);
        next.run_ms(5_000);
        assert_eq!(next.engine.summary(next.now()).counts.of(TenantState::Fresh) as usize, tenants);
    }
}

#[test]
fn what_earlier_releases_remembered_of_everybody_is_every_origins() {
    let mut daemon = daemon();
    let wait = Wait { told: daemon.now().wall, until: daemon.now().wall + 5 * MINUTE };
    daemon.store.saved.insert(SavedKey::EveryBan, SavedState::Paused(wait));
    daemon.store.saved.insert(SavedKey::EveryPace, SavedState::Slowed { share: 512, hold: wait.cut_short() });
    let mut next = restart(daemon, MINUTE, 0..0);
    let restarted = next.now();
    add(&mut next, 0..3);
    mend(&mut next);
    next.run_ms(1_000);
    let subjects: Vec<_> = next.store.saved.keys().cloned().collect();
    assert_eq!(
        subjects,
        [SavedKey::Ban(OriginId(1)), SavedKey::Pace(OriginId(1))],
        "from here on it is told by origin"
    );
    next.run_ms(HOUR);
    let waited = first_call(&next, restarted).unwrap();
    assert!((240_000..241_100).contains(&waited), "{waited} ms after the restart, one of five minutes being over");
    assert!(!next.store.saved.contains_key(&SavedKey::Ban(OriginId(1))));
}

#[test]
fn a_suspect_is_still_suspect() {
    let mut daemon = failing(FailureKind::SuspectCorp, 1);
    daemon.run_ms(MINUTE);
    assert_eq!(state(&daemon, 0), TenantState::Refused);
    let mut next = restart(daemon, 0, 0..1);
    assert_eq!(state(&next, 0), TenantState::Refused);
    next.run_ms(12 * MINUTE);
    assert_eq!(next.seen.calls, []);
}

#[test]
fn a_broken_app_gets_one_probe_when_that_is_due() {
    let mut daemon = failing(FailureKind::WrongCredentials, 1_000);
    daemon.run_ms(HOUR);
    let last = daemon.seen.calls.last().unwrap().0;
    let mut next = restart(daemon, 1_000, 0..1_000);
    let summary = next.engine.summary(next.now());
    assert_eq!(summary.apps[0].broken, Some(FailureKind::WrongCredentials));
    assert_eq!(summary.counts.of(TenantState::Refused), 1_000);
    next.run_ms(HOUR);
    let waited = next.seen.calls[0].0 - last;
    assert!((900_000..901_000).contains(&waited), "the probe came {waited} ms after the last");
    assert!(next.seen.calls.len() <= 4, "{} calls in an hour", next.seen.calls.len());
    mend(&mut next);
    next.run_ms(HOUR);
    assert_eq!(next.engine.summary(next.now()).counts.of(TenantState::Fresh), 1_000);
    assert!(next.store.saved.is_empty(), "{:?}", next.store.saved);
}

#[test]
fn new_credentials_leave_nothing_of_the_failures_with_the_old_ones() {
    for kind in [FailureKind::WrongCredentials, FailureKind::Unauthorized, FailureKind::Timeout] {
        let mut daemon = failing(kind, 5);
        daemon.capacity.calls = 0;
        set_policy(&mut daemon, policy(), Freshness::Stale);
        daemon.run_ms(1_000);
        assert!(daemon.store.saved.is_empty(), "{kind}: {:?}", daemon.store.saved);
        let mut next = restart(daemon, 0, 0..5);
        mend(&mut next);
        next.run_ms(5_000);
        assert_eq!(next.engine.summary(next.now()).counts.of(TenantState::Fresh), 5, "{kind}");
    }
}

#[test]
fn a_ban_is_kept() {
    let daemon = failing(FailureKind::Banned, 50);
    let banned = daemon.seen.calls.last().unwrap().0;
    let mut next = restart(daemon, 10_000, 0..50);
    assert!(next.engine.summary(next.now()).paused_until.is_some());
    mend(&mut next);
    next.run_ms(HOUR);
    let waited = next.seen.calls[0].0 - banned;
    assert!((300_000..302_000).contains(&waited), "the next call came {waited} ms after the last");
    assert_eq!(next.engine.summary(next.now()).counts.of(TenantState::Fresh), 50);
    assert!(!next.store.saved.contains_key(&SavedKey::Ban(OriginId(1))), "{:?}", next.store.saved);
}

#[test]
fn a_ban_is_kept_but_no_longer_if_the_clock_was_set_back_meanwhile() {
    let mut daemon = failing(FailureKind::Banned, 1);
    daemon.clock.step_wall(-30 * 24 * HOUR as i64);
    let mut next = restart(daemon, 0, 0..1);
    let restarted = next.now();
    mend(&mut next);
    next.run_ms(HOUR);
    let waited = first_call(&next, restarted).unwrap();
    assert!((299_000..302_000).contains(&waited), "{waited}");
}

#[test]
fn a_ban_is_told_on_the_new_clock_when_that_is_set() {
    let mut daemon = failing(FailureKind::Banned, 1);
    let banned = daemon.seen.calls.last().unwrap().0;
    daemon.step_clock(24 * HOUR as i64);
    daemon.run_ms(1_000);
    let mut next = restart(daemon, 0, 0..1);
    mend(&mut next);
    next.run_ms(HOUR);
    assert!(next.seen.calls[0].0 - banned >= 300_000);
}

#[test]
fn a_throttled_app_goes_on_slowly() {
    let mut daemon = failing(FailureKind::AppThrottled, 100);
    mend(&mut daemon);
    let mut next = restart(daemon, 2_000, 0..100);
    next.run_ms(10_000);
    assert!((1..20).contains(&next.seen.calls.len()), "{} calls in ten seconds at 15/s", next.seen.calls.len());
    next.run_ms(HOUR);
    assert_eq!(next.engine.summary(next.now()).counts.of(TenantState::Fresh), 100);
}

/// An endpoint that answers with one token until that expires, and with what is left of its life.
fn remaining_life(daemon: &mut Daemon) {
    let (mut token, mut until) = (0, 0);
    daemon.endpoint.respond_with(move |now, _| {
        if until < now.boot.0 + 1_000 {
            (token, until) = (token + 1, now.boot.0 + 7_200_000);
        }
        let lifetime_s = u32::try_from((until - now.boot.0) / 1000).unwrap();
        (20, Ok(Grant { lifetime_s, fingerprint: Fingerprint(token) }))
    });
}

#[test]
fn that_a_token_does_not_extend_is_known_to_every_later_process() {
    let mut daemon = daemon();
    remaining_life(&mut daemon);
    add(&mut daemon, 0..1);
    daemon.run_ms(HOUR * 7 / 4);
    let mut calls = calls_of(&daemon, 0).len();
    assert_eq!(calls, 2, "the first, and one at the refresh point");
    for _ in 0..5 {
        daemon = restart(daemon, 1_000, 0..1);
        daemon.run_ms(MINUTE);
        calls += calls_of(&daemon, 0).len();
    }
    assert_eq!(calls, 2, "no restart asks again");
    daemon.run_ms(HOUR / 4);
    assert!(daemon.seen.calls.len() <= 2, "{:?}", daemon.seen.calls);
    assert_eq!(state(&daemon, 0), TenantState::Fresh);
    assert!(daemon.store.saved.is_empty(), "a new token has a new life: {:?}", daemon.store.saved);
}

#[test]
fn a_failure_from_before_the_token_is_over() {
    let daemon = failing(FailureKind::Unauthorized, 1);
    let mut daemon = restart(daemon, 0, 0..1);
    // As an older release does, which knows nothing of what is remembered.
    let asked = daemon.now().wall;
    let record = Record { requested_at: asked, expires_at: asked + 7_200_000, fingerprint: Fingerprint(5) };
    daemon.store_token(&tenant(0), record);
    let next = restart(daemon, 1_000, 0..1);
    assert_eq!(state(&next, 0), TenantState::Fresh);
}

#[test]
fn the_database_is_told_when_the_clock_is_set() {
    for by in [3_600_000_i64, -3_600_000, 86_400_000, -86_400_000] {
        let mut daemon = daemon();
        add(&mut daemon, 0..2_500);
        daemon.run_ms(300_000);
        let before = calls_of(&daemon, 7);
        daemon.step_clock(by);
        daemon.run_ms(1_000);
        for n in 0..2_500 {
            let told = daemon.engine.record(daemon.engine.slot(&tenant(n)).unwrap());
            assert_eq!(daemon.stored(&tenant(n)), told, "tenant {n}");
        }
        // The next process asks when this one would have.
        let mut next = restart(daemon, 0, 0..2_500);
        next.run_ms(HOUR);
        assert_eq!((before.len(), next.seen.calls.len()), (1, 0), "nobody is called before its time after {by} ms");
        next.run_ms(HOUR);
        assert!(next.seen.notices.iter().all(|(_, said)| !matches!(said, Notice::Expired { .. })), "nobody expires");
        assert_eq!(next.engine.summary(next.now()).counts.of(TenantState::Fresh), 2_500);
    }
}

#[test]
fn a_step_of_the_clock_that_is_too_small_to_matter_writes_nothing() {
    let mut daemon = daemon();
    add(&mut daemon, 0..1);
    daemon.run_ms(1_000);
    let before = daemon.stored(&tenant(0));
    daemon.step_clock(400);
    daemon.run_ms(1_000);
    assert_eq!(daemon.stored(&tenant(0)), before);
}

#[test]
fn an_app_and_a_tenant_that_left_are_not_remembered() {
    let mut daemon = failing(FailureKind::WrongCredentials, 2);
    assert_eq!(daemon.store.saved.len(), 3, "the breaker, and the tenants that met it: {:?}", daemon.store.saved);
    for n in 0..2 {
        daemon.change(Change::Removed { id: tenant(n), withdraw: Vec::new() });
    }
    daemon.change(Change::AppGone { name: app() });
    daemon.run_ms(1_000);
    assert!(daemon.store.saved.is_empty(), "{:?}", daemon.store.saved);
}
