//! The engine, driven by a model of the daemon around it: what must hold for any sequence of events, and what an operator
//! sees in the cases that matter.
//!
//! A failing seed is printed. Run it again with
//! `ENGINE_SEED=<seed> cargo test --test engine any_sequence -- --nocapture`.

#[path = "../model/mod.rs"]
mod model;
mod random_sequences;
mod scenarios;

use proptest::prelude::*;

/// How many sequences of events are tried.
const SEQUENCES: u32 = 60;

#[test]
fn any_sequence_of_events_keeps_the_promises() {
    if let Ok(seed) = std::env::var("ENGINE_SEED") {
        random_sequences::play(seed.parse().expect("ENGINE_SEED is a number"));
        return;
    }
    let cases = std::env::var("ENGINE_SEQUENCES").ok().and_then(|n| n.parse().ok()).unwrap_or(SEQUENCES);
    // A seed that was made smaller is another seed altogether, so there is nothing to shrink.
    let config = ProptestConfig { cases, max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(seed in any::<u64>())| {
        let outcome = std::panic::catch_unwind(|| random_sequences::play(seed));
        prop_assert!(outcome.is_ok(), "broken by ENGINE_SEED={seed}");
    });
}
