//! The endpoint of an app, its proxy, and the resolver of names: nobody answers.

use std::sync::Arc;
use std::time::Duration;

use corptokend::sandbox::{Fault, Options, Scope, Times};

use crate::case::{Case, LATE, Start, run_all};
use crate::fixture::{Fixture, Setup};
use crate::nameserver::Nameserver;
use crate::relay::{Manner, Relay};
use crate::support::{Machine, has, is_root, system_allows};

/// The calls of `crm` go by way of a relay.
fn relayed(manner: Manner) -> Option<Fixture> {
    let draft = Setup::new();
    let relay = Arc::new(Relay::to(draft.machine.sandbox.address, manner));
    let crm = match manner {
        Manner::Proxy => format!("proxy = \"http://{}\"", relay.address),
        Manner::Unaccepting | Manner::Silent => format!("endpoint = \"https://{}\"", relay.address),
    };
    let (shut, open) = (Arc::clone(&relay), Arc::clone(&relay));
    Some(draft.with(&crm, relay, Box::new(move |_| shut.shut()), Box::new(move |_| open.open())))
}

/// The endpoint takes the request and answers so.
fn answering(fault: Fault) -> Option<Fixture> {
    let inject = move |machine: &Machine| machine.sandbox.inject(Scope::everyone(), fault.clone(), Times::UntilCleared);
    Some(Setup::new().with("", (), Box::new(inject), Box::new(|machine| machine.sandbox.clear_faults())))
}

/// The endpoint has a name, and the nameserver takes questions and never answers.
fn unresolved() -> Option<Fixture> {
    if !system_allows("a resolv.conf of our own (root, unshare)", is_root() && has("unshare")) {
        return None;
    }
    // Each call has a connection of its own, so that the name is asked for again.
    let draft = Setup::of(Options { requests_per_connection: Some(1), ..Options::default() });
    let nameserver = Arc::new(Nameserver::start());
    let write = |name: &str, text: &str| draft.machine.write_with_mode(name, text, 0o644);
    write("resolv.conf", &format!("nameserver {}\noptions timeout:5 attempts:5\n", nameserver.address));
    // The certificate is for this name, which the resolver must not know by itself.
    write("hosts", "127.0.0.1 elsewhere\n");
    let crm = format!("endpoint = \"https://localhost:{}\"", draft.machine.sandbox.address.port());
    let dir = draft.path("").display().to_string();
    let script = format!(
        "mount --bind {dir}/resolv.conf /etc/resolv.conf && mount --bind {dir}/hosts /etc/hosts && exec \"$@\""
    );
    let (shut, open) = (Arc::clone(&nameserver), Arc::clone(&nameserver));
    let fixture =
        draft.with(&crm, nameserver, Box::new(move |_| shut.answers(false)), Box::new(move |_| open.answers(true)));
    Some(fixture.launched_under(&["unshare", "-m", "sh", "-c", &script, "sh"]))
}

const UNREACHABLE: &[&str] = &["\"kind\":\"unreachable\""];
const TIMEOUT: &[&str] = &["\"kind\":\"timeout\""];

const fn case(
    hangs: &'static str,
    who_waits: &'static str,
    seen: &'static [&'static str],
    fixture: fn() -> Option<Fixture>,
) -> Case {
    Case {
        hangs,
        who_waits,
        how_long: "`api.timeout` a call; then one probe at a time, 15 s apart at most",
        status_says: "the app's tenants are failing, expired in time; the endpoint does not answer, and when it is probed next",
        comes_back: "all of them at once, within the limits, with the first probe that is answered: 16 s",
        seen,
        seen_at_start: seen,
        in_vain: 1,
        found_out: LATE,
        back: Duration::from_secs(20),
        start: Start::Serves,
        fixture,
        file: "tokens/crm/{}",
    }
}

pub(super) const CELLS: &[Case] = &[
    case("endpoint: connect", "calls of the apps with that endpoint", UNREACHABLE, || relayed(Manner::Unaccepting)),
    case("endpoint: TLS", "calls of the apps with that endpoint", UNREACHABLE, || relayed(Manner::Silent)),
    case("endpoint: headers", "calls of the apps with that endpoint", TIMEOUT, || answering(Fault::Hang)),
    case("endpoint: body", "calls of the apps with that endpoint", TIMEOUT, || answering(Fault::Trickle)),
    case("proxy", "calls of the apps with that proxy", UNREACHABLE, || relayed(Manner::Proxy)),
    Case {
        comes_back: "the same; the resolver repeats a question that is under way every 5 s",
        back: Duration::from_secs(30),
        ..case("DNS", "calls of the apps whose endpoint has that name", UNREACHABLE, unresolved)
    },
];

#[test]
fn an_endpoint_that_hangs_is_the_trouble_of_its_own_apps_alone() {
    run_all(CELLS);
}
