//! The pure parts, in steady state and at full size: a turn of the engine, a config read and compared, a file's bytes.
//!
//! `cargo bench --bench pure`, or a part of it: `cargo bench --bench pure -- turn`.

use std::fmt::Write;
use std::hint::black_box;
use std::time::Duration;

use corptokend::config::{self, Config, Process, Source, Sources};
use corptokend::daemon::turn::{Execute, turn};
use corptokend::domain::*;
use corptokend::engine::{Action, Capacity, Engine, Event, Publish};
use corptokend::environment;
use corptokend::sink;
use criterion::{BatchSize, Criterion, Throughput};
use zeroize::Zeroizing;

/// What the endpoint promises.
const LIFETIME_MS: u64 = 7_200_000;
const TENANTS: usize = 1_000_000;
/// What an app can keep fresh at DingTalk's limits.
const AN_APP: usize = 75_600;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    turns(&mut criterion);
    configs(&mut criterion);
    formats(&mut criterion);
    criterion.final_summary();
}

/// Everything that is asked for happens at once, and is told in the next turn.
struct Obliging {
    room: Capacity,
    events: Vec<Event>,
    calls: u64,
}

impl Execute for Obliging {
    fn capacity(&self) -> &Capacity {
        &self.room
    }

    fn execute(&mut self, _now: Now, action: Action) -> Option<Event> {
        self.events.extend(match action {
            Action::Call { ticket, .. } => {
                self.calls += 1;
                let lifetime_s = u32::try_from(LIFETIME_MS / 1000).unwrap();
                Some(Event::Called(ticket, Ok(Grant { lifetime_s, fingerprint: Fingerprint(self.calls) })))
            }
            Action::Commit { ticket, .. } => Some(Event::CommitEnded(ticket)),
            Action::Publish(Publish { ticket, sink, .. }) => Some(Event::Published(ticket, sink, Ok(Wrote::Replaced))),
            _ => None,
        });
        None
    }
}

/// A daemon's engine among obliging process.
struct World {
    engine: Engine,
    hands: Obliging,
    now: Now,
}

impl World {
    /// A million tenants whose tokens are of every age: some 200 are due each second.
    fn new() -> Self {
        let now = Now { boot: BootMs(LIFETIME_MS), wall: WallMs(1_795_000_000_000) };
        let rate = Rate::per_second(100_000);
        let hands =
            Obliging { room: Capacity { calls: 64, max_calls: 64, lanes: vec![64] }, events: Vec::new(), calls: 0 };
        let mut world = Self { engine: Engine::new(now, 7, rate), hands, now };
        let outlet = SinkPolicy { root: RootId(0), lane: LaneId(0), shows_expiry: false, on_expiry: OnExpiry::Keep };
        world.change(Change::SinkSet { id: SinkSetId(0), sinks: [outlet].into() });
        let refresh = Refresh { at: 0.7, jitter: 0.05 };
        let retry = Retry { min: Duration::from_secs(1), max: Duration::from_secs(300) };
        let policy = AppPolicy { rate, refresh, retry, enabled: true };
        for number in 0..TENANTS {
            let name = AppName::new(&format!("app{}", number / AN_APP)).unwrap();
            if number.is_multiple_of(AN_APP) {
                let path = CallPath { route: RouteId(1), origin: OriginId(1) };
                world.change(Change::App { name: name.clone(), policy, path, freshness: Freshness::Current });
            }
            world.change(Self::restored(now, TenantId { app: name, corp_id: corp_id(number) }, number));
        }
        // Each file is looked at once; then the jitter has time to spread out what is due.
        world.settle();
        (0..60).for_each(|_| world.second());
        world
    }

    /// A tenant whose token is of an age that lies evenly between none and its refresh point.
    fn restored(now: Now, id: TenantId, number: usize) -> Change {
        let age_ms = LIFETIME_MS * 7 / 10 * (number as u64 * 7919 % TENANTS as u64) / TENANTS as u64;
        let asked = now.wall - age_ms;
        let record = Record {
            requested_at: asked,
            expires_at: asked + LIFETIME_MS,
            fingerprint: Fingerprint(u64::MAX - number as u64),
        };
        Change::Added { id, sinks: SinkSetId(0), record: Some(record) }
    }

    fn change(&mut self, change: Change) {
        self.engine.handle(self.now, Event::Change(change));
    }

    /// Turns until there is nothing left to do at this moment.
    fn settle(&mut self) {
        loop {
            let events = std::mem::take(&mut self.hands.events);
            turn(&mut self.engine, self.now, events, &mut self.hands);
            if self.hands.events.is_empty() {
                return;
            }
        }
    }

    /// A second of a daemon's life.
    fn second(&mut self) {
        self.now = Now { boot: self.now.boot + 1000, wall: self.now.wall + 1000 };
        self.settle();
    }
}

fn turns(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a million tenants");
    group.sample_size(20);
    let mut world = World::new();
    let (before, began) = (world.hands.calls, world.now.boot);
    group.bench_function("a second: what is due is called for, kept and published", |bencher| {
        bencher.iter(|| world.second());
    });
    let seconds = world.now.boot.since(began) / 1000;
    // None when a filter left it out.
    if let Some(each) = (world.hands.calls - before).checked_div(seconds) {
        println!("{each} refreshes a second");
    }
    group.bench_function("a turn with nothing to do", |bencher| bencher.iter(|| world.settle()));
    group.bench_function("the summary", |bencher| bencher.iter(|| black_box(world.engine.summary(world.now))));
    group.bench_function("a page of 1,000 rows", |bencher| {
        bencher.iter(|| black_box(world.engine.page(world.now, Slot(500_000), 1000)));
    });
    group.bench_function("a thousand tenants leave and come back", |bencher| {
        bencher.iter(|| world.replace_a_thousand());
    });
    group.finish();
}

impl World {
    /// The largest step of a reload that one turn takes, twice.
    fn replace_a_thousand(&mut self) {
        for number in 0..1000 {
            let id = TenantId { app: AppName::new("app0").unwrap(), corp_id: corp_id(number) };
            self.change(Change::Removed { id, withdraw: Vec::new() });
        }
        self.settle();
        for number in 0..1000 {
            let id = TenantId { app: AppName::new("app0").unwrap(), corp_id: corp_id(number) };
            self.change(Self::restored(self.now, id, number));
        }
        self.settle();
    }
}

fn corp_id(number: usize) -> CorpId {
    CorpId::new(&format!("ding{number:016}")).unwrap()
}

/// A config with so many tenants, one a line.
fn sources(tenants: usize) -> Sources {
    let mut text = String::new();
    for number in 0..tenants {
        if number.is_multiple_of(AN_APP) {
            let end = if number == 0 { "" } else { "]\n" };
            let app = number / AN_APP;
            let secret = "{ file = \"/etc/corptokend/secret\" }";
            writeln!(text, "{end}[app.app{app}]\nclient_id = \"ding\"\nclient_secret = {secret}\ncorp_ids = [")
                .unwrap();
        }
        writeln!(text, "  \"{}\",", corp_id(number)).unwrap();
    }
    text.push_str("]\n");
    Sources::remembered(vec![Source::new("/etc/corptokend/config.toml", text)])
}

fn checked(sources: &Sources) -> Config {
    environment::check(sources, &Process::default()).config.expect("the config is valid")
}

fn configs(criterion: &mut Criterion) {
    const TENANTS: usize = 100_000;
    let mut group = criterion.benchmark_group("a config of 100,000 tenants");
    group.sample_size(20);
    let text = sources(TENANTS);
    group.bench_function("parsed and checked", |bencher| bencher.iter_with_large_drop(|| checked(&text)));
    let (old, new) = (checked(&text), checked(&sources(TENANTS + 1)));
    assert_eq!(config::diff(Some(&old), &new).counts.added, 1);
    group.bench_function("compared with the next, one tenant more", |bencher| {
        bencher.iter(|| config::diff(Some(black_box(&old)), &new));
    });
    group.bench_function("dropped", |bencher| {
        bencher.iter_batched(|| old.clone(), drop, BatchSize::LargeInput);
    });
    group.finish();
}

fn formats(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("the bytes of a file");
    group.throughput(Throughput::Elements(1));
    let names = Names {
        id: TenantId { app: AppName::new("crm").unwrap(), corp_id: corp_id(1) },
        name: None,
        client_id: ClientId::new("ding9f50b15bccd16741").unwrap(),
    };
    let token = Token::new(Zeroizing::new("0123456789abcdef0123456789abcdef".to_owned())).unwrap();
    let template = Template::parse("TOKEN={token}\nUNTIL={expires_at}\n", Placeholder::IN_CONTENT).unwrap();
    for (name, format) in
        [("raw", Format::Raw), ("json", Format::Json), ("env", Format::Env), ("template", Format::Template(template))]
    {
        let expires = WallMs(1_795_000_000_000);
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(sink::render(black_box(&format), &names, &token, expires)));
        });
    }
    group.finish();
}
