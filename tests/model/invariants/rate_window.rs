//! Counts calls against a limit, over any period whatever moment it begins at.

use std::collections::VecDeque;

use corptokend::domain::Rate;

/// For how many seconds it is remembered how many calls there were.
const SECONDS: usize = 1 << 15;

pub struct Window {
    /// By second, for how many milliseconds its calls use up the limit: each until the next may follow, by the limit of its time.
    busy: Vec<(u32, f32)>,
    /// The limit in force, and those before it: until when each was.
    rate: Rate,
    before: Vec<(u64, Rate)>,
    /// The latest calls: as many as the limit allows in a period.
    calls: VecDeque<u64>,
}

impl Window {
    pub fn new(rate: Rate) -> Self {
        Self { busy: vec![(0, 0.0); SECONDS], rate, before: Vec::new(), calls: VecDeque::new() }
    }

    pub fn rate(&self) -> Rate {
        self.rate
    }

    pub fn set_rate(&mut self, now: u64, rate: Rate) {
        self.before.push((now, self.rate));
        self.rate = rate;
    }

    /// How many calls a period that ends with `now` may hold: what the most generous limit says that was in force in it.
    fn most(&mut self, now: u64) -> usize {
        let period = u64::from(self.rate.period_ms());
        self.before.retain(|(until, _)| until + period > now);
        let scaled = |rate: Rate| (rate.hertz() * period as f64 / 1000.0).ceil() as usize;
        self.before.iter().map(|(_, rate)| scaled(*rate)).fold(self.rate.count() as usize, usize::max)
    }

    /// For how many milliseconds the limit was used up, from one moment until another and outside of `spans`, as far as it
    /// is remembered.
    pub fn busy_ms(&self, from: u64, until: u64, spans: &[(u64, u64)]) -> u64 {
        let seconds = (from / 1000).max((until / 1000).saturating_sub(SECONDS as u64 - 1))..until / 1000 + 1;
        let busy_in = |second: u64| {
            let (which, ms) = self.busy[second as usize % SECONDS];
            if u64::from(which) == second { f64::from(ms) } else { 0.0 }
        };
        let counted = seconds.filter(|second| spans.iter().all(|(a, b)| !(a / 1000..b / 1000).contains(second)));
        counted.map(busy_in).sum::<f64>() as u64
    }

    /// Counts a call. Returns how many there were in the period that ends with it, if those are too many.
    pub fn count(&mut self, now: u64) -> Option<usize> {
        let most = if self.before.is_empty() { self.rate.count() as usize } else { self.most(now) };
        let second = (now / 1000) as u32;
        // The calls are spaced a little wider than the limit says.
        let spacing_ms = (1015.0 / self.rate.hertz()) as f32;
        let busy = &mut self.busy[second as usize % SECONDS];
        *busy = if busy.0 == second { (second, busy.1 + spacing_ms) } else { (second, spacing_ms) };
        self.calls.push_back(now);
        while self.calls.len() > most + 1 {
            self.calls.pop_front();
        }
        let crowded = self.calls.len() > most && now - self.calls[0] < u64::from(self.rate.period_ms());
        crowded.then_some(self.calls.len())
    }
}

#[test]
fn one_call_too_many_is_seen_wherever_the_second_begins() {
    let mut window = Window::new(Rate::per_second(3));
    assert!([0, 400, 800, 1_000, 1_400].iter().all(|&at| window.count(at).is_none()));
    assert_eq!(window.count(1_799), Some(4));
}
