//! A state that cannot be read for now, that can be read late, and that is begun anew.

use corptokend::domain::*;
use corptokend::engine::{Event, State};

use crate::scenarios_calls::{
    HOUR, add, calls_of, fails, new_tokens, outlet, policy, restore, set_policy, shell, state, tenant,
};
use crate::shell::{Shell, place};

fn record_from(shell: &Shell, n: usize, age_s: u64) -> Record {
    let asked = shell.now.wall - age_s * 1000;
    Record { asked, expires: asked + 7_200_000, fingerprint: Fingerprint(1_000_000 + n as u64) }
}

/// The state turns out to hold a token that was asked for so long ago.
fn find(shell: &mut Shell, n: usize, age_s: u64, freshness: Freshness) {
    let record = record_from(shell, n, age_s);
    shell.stored.insert(tenant(n), (None, record));
    shell.tell(Event::Found(vec![(tenant(n), record)], freshness));
}

fn shows(shell: &Shell, n: usize) -> Option<Fingerprint> {
    shell.places.get(&place(&outlet(0), &tenant(n))).map(|content| content.fingerprint)
}

#[test]
fn a_token_that_is_found_late_serves_a_tenant_that_could_not_be_called_for() {
    let mut shell = shell();
    shell.endpoint = Box::new(|_, _| fails(FailureKind::ServerError));
    add(&mut shell, 0..1);
    shell.run_ms(10_000);
    assert_eq!((shows(&shell, 0), state(&shell, 0)), (None, State::Failing));
    find(&mut shell, 0, 60, Freshness::Current);
    shell.run_ms(1_000);
    assert_eq!(shows(&shell, 0), Some(Fingerprint(1_000_000)));
    let calls = shell.calls.len();
    shell.endpoint = Box::new(new_tokens(7200));
    shell.run_ms(HOUR);
    assert_eq!(shell.calls.len(), calls, "it is not due yet");
    shell.run_ms(HOUR);
    assert_eq!((shell.calls.len(), state(&shell, 0)), (calls + 1, State::Fresh));
}

#[test]
fn a_token_that_is_found_late_does_not_replace_a_newer_one_nor_one_that_is_being_asked_for() {
    let mut shell = shell();
    add(&mut shell, 0..1);
    shell.run_ms(1_000);
    let newer = shows(&shell, 0);
    shell.tell(Event::Found(vec![(tenant(0), record_from(&shell, 0, 60))], Freshness::Current));
    shell.run_ms(1_000);
    assert_eq!(shows(&shell, 0), newer);
    // A call that is under way brings a newer one, too.
    let (mut slow, mut answers) = (shell, new_tokens(7200));
    let _ = answers(slow.now, &tenant(0)); // the one that it has
    slow.endpoint = Box::new(move |now, id| (5_000, answers(now, id).1));
    add(&mut slow, 1..2);
    slow.run_ms(1_000);
    find(&mut slow, 1, 60, Freshness::Current);
    slow.run_ms(1_000);
    assert_eq!(shows(&slow, 1), Some(Fingerprint(1_000_001)), "until then there is the old one");
    slow.run_ms(10_000);
    assert!(shows(&slow, 1).is_some_and(|shown| shown != Fingerprint(1_000_001)));
    assert_eq!(calls_of(&slow, 1).len(), 1);
}

#[test]
fn a_token_of_other_credentials_is_published_and_fetched_anew_at_once() {
    let mut shell = shell();
    shell.endpoint = Box::new(|_, _| fails(FailureKind::ServerError));
    add(&mut shell, 0..1);
    shell.run_ms(10_000);
    shell.endpoint = Box::new(new_tokens(7200));
    find(&mut shell, 0, 60, Freshness::Stale);
    shell.run_ms(HOUR / 2);
    assert!(shows(&shell, 0).is_some_and(|shown| shown != Fingerprint(1_000_000)));
    assert_eq!(state(&shell, 0), State::Fresh);
}

#[test]
fn what_cannot_be_read_for_now_is_tried_again_and_not_called_for() {
    let mut shell = shell();
    let unreadable = || SinkFailure { kind: SinkFailureKind::State, detail: "it does not answer".into() };
    shell.disk = Box::new(move |_, _, _| (1, Err(unreadable())));
    restore(&mut shell, 0, 60);
    shell.run_ms(60_000);
    assert_eq!((shell.calls.len(), state(&shell, 0)), (0, State::Unpublished));
    shell.disk = Box::new(|_, _, _| (1, Ok(Wrote::Replaced)));
    shell.run_ms(60_000);
    assert_eq!((shell.calls.len(), state(&shell, 0)), (0, State::Fresh));
    assert_eq!(shows(&shell, 0), Some(Fingerprint(1_000_000)));
}

#[test]
fn a_token_that_is_lost_while_its_tenant_waits_for_its_turn_holds_nobody_up() {
    let mut shell = shell();
    add(&mut shell, 0..1);
    shell.run_ms(400);
    assert_eq!(shell.calls.len(), 1);
    // Another app, whose token expires later. Both are to be fetched anew, and there is no room for a call.
    let other = AppName::new("hr").unwrap();
    let another = |freshness| Change::App {
        name: other.clone(),
        policy: policy(),
        path: crate::scenarios_calls::way(1),
        freshness,
    };
    let id = TenantId { app: other.clone(), corp_id: CorpId::new("ding0").unwrap() };
    let record = Record { expires: shell.now.wall + 7_300_000, ..record_from(&shell, 0, 0) };
    shell.stored.insert(id.clone(), (None, record));
    shell.change(another(Freshness::Current));
    shell.change(Change::Added { id: id.clone(), sinks: SinkSetId(0), record: Some(record) });
    shell.room.calls = 0;
    set_policy(&mut shell, policy(), Freshness::Stale);
    shell.change(another(Freshness::Stale));
    shell.run_ms(200);
    let slot = shell.engine.slot(&tenant(0)).unwrap();
    let ticket = shell.engine.ticket(slot).unwrap();
    shell.tell(Event::Lost(ticket));
    // The one whose token is lost was called a moment ago, and must wait for a second; the other need not.
    shell.room.calls = 64;
    shell.run_ms(100);
    assert_eq!(shell.calls.last().map(|(_, called)| called), Some(&id));
    shell.run_ms(5_000);
    assert_eq!(shell.calls.last().map(|(_, called)| called), Some(&tenant(0)));
}

#[test]
fn a_state_that_was_begun_anew_is_told_all_that_the_last_one_knew() {
    let mut shell = shell();
    shell.endpoint = Box::new(|_, id| match id.corp_id.as_str().ends_with('0') {
        true => fails(FailureKind::Unauthorized),
        false => fails(FailureKind::ServerError),
    });
    add(&mut shell, 0..3);
    shell.run_ms(60_000);
    let before = shell.remembered.clone();
    assert_eq!(before.len(), 3, "{before:?}");
    shell.remembered.clear();
    shell.tell(Event::Forgotten);
    shell.run_ms(200);
    assert_eq!(shell.remembered.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
}
