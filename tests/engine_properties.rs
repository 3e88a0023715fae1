//! The engine, driven by a model of the daemon around it: what must hold for any sequence of events, and what an operator
//! sees in the cases that matter.
//!
//! A failing seed is printed. Run it again with
//! `ENGINE_SEED=<seed> cargo test --test engine_properties any_sequence -- --nocapture`.

#[path = "engine/chance.rs"]
mod chance;
#[path = "engine/judge.rs"]
mod judge;
#[path = "engine/scenarios_calls.rs"]
mod scenarios_calls;
#[path = "engine/scenarios_faults.rs"]
mod scenarios_faults;
#[path = "engine/scenarios_memory.rs"]
mod scenarios_memory;
#[path = "engine/scenarios_neighbours.rs"]
mod scenarios_neighbours;
#[path = "engine/scenarios_outages.rs"]
mod scenarios_outages;
#[path = "engine/scenarios_patience.rs"]
mod scenarios_patience;
#[path = "engine/scenarios_repairs.rs"]
mod scenarios_repairs;
#[path = "engine/scenarios_sinks.rs"]
mod scenarios_sinks;
#[path = "engine/scenarios_state.rs"]
mod scenarios_state;
#[path = "engine/scenarios_tokens.rs"]
mod scenarios_tokens;
#[path = "engine/shell.rs"]
mod shell;
#[path = "engine/world.rs"]
mod world;

use proptest::prelude::*;

/// How many sequences of events are tried.
const SEQUENCES: u32 = 60;

#[test]
fn any_sequence_of_events_keeps_the_promises() {
    if let Ok(seed) = std::env::var("ENGINE_SEED") {
        chance::play(seed.parse().expect("ENGINE_SEED is a number"));
        return;
    }
    let cases = std::env::var("ENGINE_SEQUENCES").ok().and_then(|n| n.parse().ok()).unwrap_or(SEQUENCES);
    // A seed that was made smaller is another seed altogether, so there is nothing to shrink.
    let config = ProptestConfig { cases, max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(seed in any::<u64>())| {
        let outcome = std::panic::catch_unwind(|| chance::play(seed));
        prop_assert!(outcome.is_ok(), "broken by ENGINE_SEED={seed}");
    });
}
