//! A clock that somebody sets, by a day, in both directions.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use corptokend::sandbox::Options;

use crate::guest;
use crate::support::Machine;
use crate::support::reliability;

const TENANTS: [&str; 3] = ["ding0", "ding1", "ding2"];
const LIFETIME_S: i64 = 600;
const DAY_S: i64 = 24 * 3600;

/// Three tenants, each with a raw file, a file that shows the expiry, and a key that the kernel withdraws. The endpoint's
/// clock is right, and stays so.
fn machine() -> Machine {
    let options = Options { lifetime_s: u32::try_from(LIFETIME_S).unwrap(), date_skew_s: 1, ..Options::default() };
    let machine = Machine::with(options);
    let tokens = machine.path("tokens").display().to_string();
    let sinks = format!(
        "[[app.crm.sink]]\nfile = \"{tokens}/crm/{{corp_id}}\"\n[[app.crm.sink]]\nfile = \"{tokens}/{{corp_id}}.env\"\n\
         format = \"env\"\n[[app.crm.sink]]\nkeyring = \"@u/time/{{corp_id}}\""
    );
    machine.app("crm", &TENANTS, &sinks)
}

fn now_s() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

fn set_clock(by_s: i64) {
    let set = Command::new("date").args(["-s", &format!("@{}", now_s() + by_s)]).stdout(Stdio::null()).status();
    assert!(set.unwrap().success(), "the clock of this machine cannot be set");
}

/// How long a token lives by what a reader of its file sees, in seconds.
fn shown_life_s(machine: &Machine, corp_id: &str) -> Option<i64> {
    let text = machine.read(&format!("tokens/{corp_id}.env"))?;
    let expires_at: i64 = text.lines().find_map(|line| line.strip_prefix("EXPIRES_AT=")?.parse().ok())?;
    Some(expires_at - now_s())
}

/// How long a key lives by what the kernel shows, such as `59s` or `9m`, in seconds; `None` when it is gone, has expired, or
/// lives for hours.
fn key_life_s(corp_id: &str) -> Option<i64> {
    let keys = std::fs::read_to_string("/proc/keys").unwrap();
    let line = keys.lines().find(|line| line.contains(&format!(" user      {corp_id}:")))?;
    let life = line.split_whitespace().nth(3)?;
    let (number, unit) = life.split_at(life.len() - 1);
    let scale = [("s", 1), ("m", 60)].into_iter().find(|(name, _)| *name == unit)?.1;
    Some(number.parse::<i64>().ok()? * scale)
}

/// Files, keys and status say of each token that it has no more than its whole life left, and some.
fn all_is_shown_right(machine: &Machine) -> bool {
    let status: serde_json::Value =
        serde_json::from_slice(&machine.run(&["status", "--json"]).stdout).unwrap_or_default();
    let lives = (0..TENANTS.len()).map(|row| status["tenants"][row]["expires_in_s"].as_i64());
    let shown = TENANTS.iter().map(|corp_id| shown_life_s(machine, corp_id));
    let keys = TENANTS.iter().map(|corp_id| key_life_s(corp_id));
    lives.chain(shown).chain(keys).all(|life| life.is_some_and(|life| (1..=LIFETIME_S).contains(&life)))
}

/// Sets the clock; how long it took until that was noticed, and until everything was shown right.
fn step(machine: &Machine, by_s: i64) -> (Duration, Duration) {
    let (steps, calls) = (machine.events("clock_stepped").len(), machine.sandbox.totals().calls);
    set_clock(by_s);
    let set = Instant::now();
    machine.wait_until("the step is noticed", |machine| machine.events("clock_stepped").len() > steps);
    let noticed = set.elapsed();
    machine.wait_until("everything is shown right", all_is_shown_right);
    let right = set.elapsed();
    assert_eq!(machine.sandbox.totals().calls, calls, "nobody is called for because the clock was set");
    assert_eq!(machine.events("clock_stepped").len(), steps + 1, "it is said once");
    (noticed, right)
}

/// A tenant is added, and its answer tells the endpoint's time.
fn add(machine: &Machine, corp_id: &str) {
    machine.edit("corp_ids = [", &format!("corp_ids = [\"{corp_id}\","));
    machine.wait_until("the new tenant is served", |machine| machine.token("crm", corp_id).is_some());
}

fn set_by_a_day_and_back() -> String {
    let mut machine = machine();
    machine.start();
    machine.wait_until("everything is published", all_is_shown_right);
    let before = machine.issued(&TENANTS);
    let mut slowest = (Duration::ZERO, Duration::ZERO);
    for (by_s, warning, newcomer) in [(DAY_S, "ahead of", "ding8"), (-2 * DAY_S, "behind", "ding9")] {
        let (noticed, right) = step(&machine, by_s);
        slowest = (slowest.0.max(noticed), slowest.1.max(right));
        add(&machine, newcomer);
        machine.wait_until("the endpoint's clock is heard", |machine| {
            machine.status_json()["warnings"].to_string().contains(warning)
        });
        assert!(all_is_shown_right(&machine));
    }
    // The state was written a moment ago, on a clock that was a day behind.
    let (noticed, _) = step(&machine, DAY_S);
    assert!(noticed.max(slowest.0) < Duration::from_secs(1), "it was noticed after {noticed:?}, {slowest:?}");
    // A storm would have broken by now.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(
        machine.issued(&TENANTS),
        before,
        "nobody is called for because the clock was set; the log:\n{}",
        machine.log()
    );
    assert!(machine.events("expired").is_empty(), "no token expired");
    assert!(machine.stop().success());
    format!(
        "+1 day, −2 days, +1 day: noticed within {} ms, files, keys and status right within {} ms (an emulated machine); no call",
        slowest.0.as_millis(),
        slowest.1.as_millis()
    )
}

#[test]
fn a_clock_that_is_set_by_a_day_moves_what_is_shown_and_calls_nobody() {
    let test = "a_clock_that_is_set_by_a_day_moves_what_is_shown_and_calls_nobody";
    let Some(figures) = guest::within(&format!("set::{test}"), set_by_a_day_and_back) else { return };
    reliability::leave(
        test,
        "the clock of a (virtual) machine is set by a day, forwards and backwards",
        "noticed and reported within a second; files, status and the kernel's timeouts show the right expiry; no token expires; nobody is called for; the skew is warned of",
        &figures,
    );
}
