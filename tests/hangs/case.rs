//! One row of the matrix, played: it hangs while the daemon runs, it goes on, it hangs when the daemon is told to stop,
//! and when it starts.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::fixture::{Fixture, REFRESH, WATCHDOG};
use crate::reader::Findings;
use crate::support::reliability;
use crate::support::service_manager::ServiceManager;
use crate::support::system::threads::has_ended;
use crate::support::{Machine, PATIENCE, shown};

/// How much later than undisturbed a healthy tenant may be renewed.
pub(crate) const LATE: Duration = Duration::from_secs(1);
/// `status` answers within so long.
const ANSWER: Duration = Duration::from_secs(5);
/// SIGTERM ends the daemon within so long.
const STOP: Duration = Duration::from_secs(10);
/// READY waits for so long for whom nothing was heard of, and then comes.
const READY: Duration = Duration::from_secs(30);

/// What the neighbours may expect of a start while it hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// They are served.
    Serves,
    /// They hang as well: it is theirs too.
    Waits,
    /// It is not there at a start.
    Untested,
}

/// A row: the words are the document's.
pub(crate) struct Case {
    pub(crate) hangs: &'static str,
    pub(crate) who_waits: &'static str,
    pub(crate) how_long: &'static str,
    pub(crate) status_says: &'static str,
    pub(crate) comes_back: &'static str,
    /// What is found in `status --json` while it hangs, and after a start while it does.
    pub(crate) seen: &'static [&'static str],
    pub(crate) seen_at_start: &'static [&'static str],
    /// How many calls in vain there may be a second.
    pub(crate) in_vain: u64,
    /// How much later a healthy tenant may be renewed until it is known to hang.
    pub(crate) found_out: Duration,
    /// How long it may take until all is right again.
    pub(crate) back: Duration,
    pub(crate) start: Start,
    pub(crate) fixture: fn() -> Option<Fixture>,
    /// Below the machine, where a file of `crm` lies, with `{}` for the organisation.
    pub(crate) file: &'static str,
}

impl Case {
    fn file_of(&self, machine: &Machine) -> impl Fn(&str) -> PathBuf + use<> {
        let (root, file) = (machine.path(""), self.file);
        move |corp_id: &str| root.join(Path::new(&file.replace("{}", corp_id)))
    }

    /// Plays it, and leaves its row. Not where the machine lacks something.
    pub(crate) fn run(&self) {
        let Some(mut fixture) = (self.fixture)() else { return };
        fixture.launch();
        fixture.machine.wait_until_ready();
        fixture.machine.wait_until("all are served", |_| fixture.healthy_are_served());
        fixture.reader.take();
        std::thread::sleep(2 * REFRESH + LATE);
        let undisturbed = fixture.reader.take().oldest;

        let before = fixture.given();
        let hung = Instant::now();
        (fixture.hang)(&fixture.machine);
        let slowest_answer = self.watch_while_it_hangs(&fixture, hung, undisturbed);
        let said = fixture.manager.as_ref().map(ServiceManager::status);

        let released = Instant::now();
        (fixture.release)(&fixture.machine);
        self.comes_back(&fixture, released, &before);
        let back = released.elapsed();
        let (calls, due) = (fixture.calls(), fixture.calls_due() + self.in_vain * hung.elapsed().as_secs());
        assert!(calls <= due, "{}: {calls} calls, {due} at most were due", self.hangs);

        let ended = self.ends_while_it_hangs(&mut fixture);
        let started = self.starts_while_it_hangs(&mut fixture);
        let figures = format!(
            "oldest token of a neighbour {} ms beyond the undisturbed; `status` within {} ms; right {} ms after; ended within {} ms; {started}",
            lateness(undisturbed, slowest_answer.0).as_millis(),
            slowest_answer.1.as_millis(),
            back.as_millis(),
            ended.as_millis(),
        );
        eprintln!("{}: {figures}; STATUS={}", self.hangs, said.unwrap_or_default());
        reliability::leave_row(
            "hangs",
            &[self.hangs, self.who_waits, self.how_long, self.status_says, self.comes_back, &figures],
        );
    }

    /// The neighbours are on time, `status` answers and says it, systemd is content. The oldest token seen, and the
    /// slowest answer.
    fn watch_while_it_hangs(&self, fixture: &Fixture, since: Instant, undisturbed: Duration) -> (Duration, Duration) {
        let slowest = self.wait_until_reported(fixture, since, self.seen);
        let found = self.assert_punctual(fixture, undisturbed + self.found_out);
        if self.found_out > LATE {
            // It is known now.
            std::thread::sleep(2 * REFRESH + LATE);
            self.assert_punctual(fixture, undisturbed + LATE);
        }
        assert!(slowest <= ANSWER + 2 * found.stall, "{}: status took {slowest:?}", self.hangs);
        if let Some(manager) = &fixture.manager {
            let silence = manager.longest_silence(since);
            assert!(silence < WATCHDOG + found.stall, "{}: no heartbeat for {silence:?}", self.hangs);
        }
        (found.oldest, slowest)
    }

    /// No token of a neighbour was in use for longer since the last look.
    fn assert_punctual(&self, fixture: &Fixture, most: Duration) -> Findings {
        let found = fixture.reader.take();
        let Findings { oldest, stall } = found;
        assert!(oldest <= most + 2 * stall, "{}: a token was {oldest:?} old, {most:?} at most; {stall:?}", self.hangs);
        found
    }

    /// Waits until `status` says it, for some refreshes at least. The slowest answer.
    fn wait_until_reported(&self, fixture: &Fixture, since: Instant, reported: &[&str]) -> Duration {
        let mut slowest = Duration::ZERO;
        loop {
            let asked = Instant::now();
            let output = fixture.machine.run(&["status", "--json"]);
            slowest = slowest.max(asked.elapsed());
            let status = shown(&output);
            assert!(status.contains("\"tenants\""), "{}: status does not answer: {status}", self.hangs);
            let missing: Vec<_> = reported.iter().filter(|text| !status.contains(**text)).collect();
            if missing.is_empty() && since.elapsed() > 3 * REFRESH {
                return slowest;
            }
            assert!(since.elapsed() < PATIENCE, "{}: status does not say {missing:?}: {status}", self.hangs);
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn comes_back(&self, fixture: &Fixture, released: Instant, before: &[Option<u32>]) {
        let file_of = self.file_of(&fixture.machine);
        fixture.machine.wait_until(&format!("`{}` comes back", self.hangs), |_| fixture.is_right(&file_of, before));
        let (took, stall) = (released.elapsed(), fixture.reader.take().stall);
        assert!(took <= self.back + 4 * stall, "{}: right only after {took:?}, stall {stall:?}", self.hangs);
    }

    fn ends_while_it_hangs(&self, fixture: &mut Fixture) -> Duration {
        (fixture.hang)(&fixture.machine);
        // For as long as somebody needs what hangs.
        std::thread::sleep(REFRESH + LATE);
        let asked = Instant::now();
        fixture.machine.signal("TERM");
        fixture.machine.wait_until(&format!("the daemon ends: {}", self.hangs), |machine| has_ended(machine.pid()));
        let (took, stall) = (asked.elapsed(), fixture.reader.take().stall);
        assert!(took <= STOP + 2 * stall, "{}: it ended after {took:?}", self.hangs);
        (fixture.release)(&fixture.machine);
        fixture.machine.exit();
        took
    }

    fn starts_while_it_hangs(&self, fixture: &mut Fixture) -> String {
        if self.start == Start::Untested {
            return "no start".to_owned();
        }
        (fixture.hang)(&fixture.machine);
        let (began, held) = (Instant::now(), fixture.held_by_the_healthy());
        let ready = |fixture: &Fixture| match &fixture.manager {
            Some(manager) => !manager.moments_of("READY=1", began).is_empty(),
            None => fixture.machine.status_json()["ready"] == true,
        };
        fixture.launch();
        if self.start == Start::Serves {
            fixture.machine.wait_until(&format!("neighbours are served: {}", self.hangs), |_| {
                fixture.healthy_hold_others_than(&held)
            });
        }
        let served = began.elapsed();
        fixture.machine.wait_until(&format!("READY comes: {}", self.hangs), |_| ready(fixture));
        let (took, stall) = (began.elapsed(), fixture.reader.take().stall);
        assert!(took <= READY + 5 * LATE + 2 * stall, "{}: ready after {took:?}", self.hangs);
        self.wait_until_reported(fixture, began, self.seen_at_start);
        let before = fixture.given();
        let released = Instant::now();
        (fixture.release)(&fixture.machine);
        self.comes_back(fixture, released, &before);
        assert!(fixture.machine.stop().success());
        format!("neighbours served {} ms after a start, READY after {} ms", served.as_millis(), took.as_millis())
    }
}

fn lateness(undisturbed: Duration, oldest: Duration) -> Duration {
    oldest.saturating_sub(undisturbed)
}

/// Plays several rows at once: they wait, mostly. Each that fails is named.
pub(crate) fn run_all(cases: &[Case]) {
    let only = std::env::var("CORPTOKEND_HANGS").unwrap_or_default();
    let failed: Vec<&str> = std::thread::scope(|scope| {
        let cases: Vec<&Case> = cases.iter().filter(|case| case.hangs.contains(&only)).collect();
        let running: Vec<_> = cases.iter().map(|case| (case.hangs, scope.spawn(|| case.run()))).collect();
        running.into_iter().filter_map(|(name, thread)| thread.join().is_err().then_some(name)).collect()
    });
    assert!(failed.is_empty(), "failed: {failed:#?}");
}
