//! Two thousand tenants, and fifty edits of their config under a reader that opens every file in a loop.
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use corptokend::control::ControlClient;
use corptokend::domain::TenantState;
use corptokend::sandbox::{Fault, Scope, Times};
use support::Machine;

const APPS: [&str; 2] = ["crm", "hr"];
const OF_EACH: usize = 1000;

/// `app/corp_id` of every tenant that there should be.
type Tenants = BTreeSet<String>;

fn id(number: usize) -> String {
    format!("ding{number:05}")
}

/// The config with these tenants, one organisation a line, as a list of this size is kept.
fn config(machine: &Machine, tenants: &Tenants) -> String {
    let mut text = machine.config_text();
    for app in APPS {
        let own = tenants.iter().filter_map(|tenant| tenant.strip_prefix(app)?.strip_prefix('/'));
        let lines: String = own.map(|id| format!("  \"{id}\",\n")).collect();
        let head = format!("client_secret = {{ file = \"{app}.secret\" }}\ncorp_ids = ");
        text = text.replace(&format!("{head}[]"), &format!("{head}[\n{lines}]"));
    }
    text
}

/// Two apps with a thousand tenants each, not started yet.
fn two_thousand() -> (Machine, Tenants) {
    let machine = Machine::new().app(APPS[0], &[""; 0], "").app(APPS[1], &[""; 0], "");
    let tenants: Tenants =
        APPS.iter().flat_map(|app| (0..OF_EACH).map(move |number| format!("{app}/{}", id(number)))).collect();
    machine.save(&config(&machine, &tenants));
    (machine, tenants)
}

/// Every file holds the last token that was issued for its tenant, with the right mode, and there is no other file.
#[track_caller]
fn everything_is_in_place(machine: &Machine, tenants: &Tenants) {
    let files = machine.token_files();
    assert!(files.iter().eq(tenants.iter()), "{} files, {} tenants", files.len(), tenants.len());
    for tenant in tenants {
        let (app, corp_id) = tenant.split_once('/').unwrap();
        let path = machine.path("tokens").join(tenant);
        let token = fs::read_to_string(&path).unwrap();
        let client = format!("client-{app}");
        let issued = machine.sandbox.issued(corp_id);
        let last = issued.iter().rfind(|issued| *issued.client_id == client).expect("it was called for");
        assert_eq!(token, last.token, "{tenant}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640, "{tenant}");
    }
    for app in APPS {
        let directory = fs::metadata(machine.path("tokens").join(app)).unwrap();
        assert_eq!(directory.permissions().mode() & 0o7777, 0o750);
    }
}

/// Reads every file of these tenants again and again until told to stop; says what it found wrong, and how many it read.
fn read_on(machine: &Machine, staying: &Mutex<Tenants>, stop: &AtomicBool, reads: &AtomicUsize) -> Vec<String> {
    let mut wrong = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let tenants = staying.lock().unwrap().clone();
        for tenant in &tenants {
            let read = fs::read_to_string(machine.path("tokens").join(tenant));
            reads.fetch_add(1, Ordering::Relaxed);
            // A token of the sandbox is visible ASCII that ends with its number, so a torn one is seen.
            let whole = read.as_deref().is_ok_and(|token| corptokend::sandbox::sequence_of(token).is_some());
            // It may have been about to go while it was read.
            if !whole && staying.lock().unwrap().contains(tenant) {
                wrong.push(format!("{tenant}: {read:?}"));
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    wrong
}

/// The ways in which a config is edited, in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edit {
    Add,
    Remove,
    Touch,
    Bad,
    HalfWritten,
}

const EDITS: [Edit; 5] = [Edit::Add, Edit::Remove, Edit::Touch, Edit::Bad, Edit::HalfWritten];

/// The tenants after this edit, and how many are new.
fn edited(tenants: &Tenants, edit: Edit, round: usize) -> Tenants {
    let mut next = tenants.clone();
    match edit {
        Edit::Add => next.extend((0..7).map(|n| format!("crm/{}", id(10_000 + round * 10 + n)))),
        Edit::HalfWritten => next.extend((0..3).map(|n| format!("hr/{}", id(20_000 + round * 10 + n)))),
        Edit::Remove => drop((0..9).map(|n| next.remove(&format!("hr/{}", id(round * 9 + n)))).count()),
        Edit::Touch | Edit::Bad => {}
    }
    next
}

fn save(machine: &Machine, edit: Edit, text: &str) {
    match edit {
        Edit::Add => machine.write("etc/config.toml", text),
        Edit::Remove => machine.save(text),
        Edit::Touch => machine.save(&format!("# nothing but a remark\n{text}")),
        Edit::Bad => machine.save(&text.replacen("[limits]", "[limit]", 1)),
        Edit::HalfWritten => {
            use std::io::Write;
            let (first, second) = text.as_bytes().split_at(text.len() / 2);
            let mut file = fs::File::create(machine.config_path()).unwrap();
            file.write_all(first).unwrap();
            std::thread::sleep(Duration::from_millis(120));
            file.write_all(second).unwrap();
        }
    }
}

/// Makes fifty edits, one after the other, and returns how long each took to be in force.
fn edit_fifty_times(machine: &Machine, tenants: &mut Tenants, staying: &Mutex<Tenants>) -> Vec<Duration> {
    let mut took = Vec::new();
    for round in 0..50 {
        let edit = EDITS[round % EDITS.len()];
        let next = edited(tenants, edit, round);
        // Those that leave are watched no longer, those that come are not watched yet.
        *staying.lock().unwrap() = tenants.intersection(&next).cloned().collect();
        machine.sandbox.forget_calls();
        let event = if edit == Edit::Bad { "reload_rejected" } else { "reloaded" };
        let before = machine.events(event).len();
        let started = Instant::now();
        save(machine, edit, &config(machine, &next));
        machine.wait_until(&format!("edit {round}, {edit:?}, is noticed"), |m| m.events(event).len() > before);
        machine.wait_until(&format!("edit {round}, {edit:?}, is in force"), |m| m.token_files().iter().eq(next.iter()));
        took.push(started.elapsed());
        let mut called: Vec<String> = machine.sandbox.calls().iter().map(|call| call.corp_id.to_string()).collect();
        called.sort();
        let expected: Vec<&str> = next.difference(tenants).map(|tenant| tenant.split_once('/').unwrap().1).collect();
        assert_eq!(called, expected, "edit {round}, {edit:?}: nobody else is called for");
        *tenants = next;
    }
    took
}

#[test]
fn two_thousand_tenants_are_served_and_fifty_edits_disturb_nobody() {
    let (mut machine, mut tenants) = two_thousand();
    let started = Instant::now();
    machine.start();
    let cold = started.elapsed();
    let totals = machine.sandbox.totals();
    assert_eq!(totals.calls, 2000, "one call for each tenant");
    everything_is_in_place(&machine, &tenants);

    let (stop, reads, staying) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(tenants.clone()));
    let editing = Instant::now();
    let mut took = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_on(&machine, &staying, &stop, &reads));
        let edits = scope.spawn(|| {
            let took = edit_fifty_times(&machine, &mut tenants, &staying);
            (took, tenants)
        });
        let edits = edits.join();
        stop.store(true, Ordering::Relaxed);
        let wrong = reader.join().unwrap();
        assert!(wrong.is_empty(), "{} reads went wrong: {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
        let (took, after) = edits.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        everything_is_in_place(&machine, &after);
        took
    });
    took.sort();
    assert!(reads.load(Ordering::Relaxed) > 20_000, "the reader was there all the time");
    let rejected = machine.events("reload_rejected").len();
    assert_eq!(rejected, 10, "the bad ones are rejected, and no half-written one is");
    println!(
        "cold start of 2,000 tenants: {cold:.1?} ({} calls, {} connections)\n\
         50 edits in {:.1?}: in force after {:.0?} (median), {:.0?} (longest); {rejected} rejected\n\
         {} reads meanwhile, none torn, empty or missing",
        totals.calls,
        totals.connections,
        editing.elapsed(),
        took[took.len() / 2],
        took[took.len() - 1],
        reads.load(Ordering::Relaxed),
    );
}

/// The tenants that the daemon lists in these states, in its order.
fn listed(machine: &Machine, states: &[TenantState]) -> Vec<String> {
    let mut rows = Vec::new();
    let mut client = ControlClient::connect(&machine.path("run/control.sock")).unwrap();
    let each = |row: corptokend::control::protocol::TenantRow| {
        rows.push(row.tenant);
        std::ops::ControlFlow::Continue(())
    };
    client.tenants(states, each).unwrap();
    rows
}

/// The text of `GET /v1/tenants` with this query.
fn listing(machine: &Machine, query: &str) -> String {
    use std::io::{Read, Write};
    let mut socket = std::os::unix::net::UnixStream::connect(machine.path("run/control.sock")).unwrap();
    let request = format!("GET /v1/tenants?{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_listing_over_pages_has_every_tenant_once_and_only_those_that_are_wanted() {
    let (mut machine, mut tenants) = two_thousand();
    // Pages of 1,000 that end within an app.
    tenants.extend((OF_EACH..OF_EACH + 700).map(|number| format!("crm/{}", id(number))));
    machine.save(&config(&machine, &tenants));
    // The first of each app, both ends of the first page, and the last of an app.
    let struck = [id(0), id(OF_EACH - 1), id(OF_EACH)];
    for corp_id in &struck {
        machine.sandbox.inject(Scope::corp(corp_id), Fault::UnauthorizedClient, Times::UntilCleared);
    }
    machine.start();
    // A machine that is busy is ready before everybody was asked for.
    machine.wait_until("everybody was asked for", |machine| machine.status_json()["tenants"]["pending"].is_null());
    assert!(listed(&machine, &[]).iter().eq(&tenants), "all of them, in the order of their ids");
    let is_struck = |tenant: &&String| struck.iter().any(|corp_id| tenant.ends_with(corp_id.as_str()));
    let refused: Vec<&String> = tenants.iter().filter(is_struck).collect();
    assert_eq!(refused.len(), 5, "hr has no third");
    assert!(listed(&machine, &[TenantState::Refused]).iter().eq(refused));
    assert_eq!(listed(&machine, &[TenantState::Fresh, TenantState::Refused]).len(), tenants.len());
    assert!(listed(&machine, &[TenantState::Expired]).is_empty());
    let of_hr = listing(&machine, "app=hr&state=fresh");
    assert_eq!(of_hr.matches("\"tenant\":\"hr/").count(), OF_EACH - 2);
    assert_eq!(of_hr.matches("\"tenant\":\"crm/").count(), 0);
    let all: serde_json::Value = serde_json::from_slice(&machine.run(&["status", "--json"]).stdout).unwrap();
    let named = all["tenants"].as_array().unwrap().iter().map(|row| row["tenant"].as_str().unwrap());
    assert!(named.eq(tenants.iter().map(String::as_str)));
}
