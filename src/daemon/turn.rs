//! One turn: what happened goes in, what there is to do comes out. The daemon executes it, and a simulation takes turns through
//! the same function with a model of the world.

use crate::domain::{BootMs, Now};
use crate::engine::{Action, Capacity, Engine, Event};

/// Whoever carries out what the engine decides.
pub trait Hands {
    /// What can be taken on at this moment.
    fn room(&self) -> &Capacity;

    /// Begins an action. Its outcome comes as an event of a later turn.
    fn perform(&mut self, engine: &Engine, now: Now, action: Action);
}

/// Takes the events in and carries out all that follows. Returns when to turn again if nothing happens before.
pub fn turn(
    engine: &mut Engine,
    now: Now,
    events: impl IntoIterator<Item = Event>,
    hands: &mut impl Hands,
) -> Option<BootMs> {
    for event in events {
        engine.handle(now, event);
    }
    while let Some(action) = engine.poll(now, hands.room()) {
        hands.perform(engine, now, action);
    }
    engine.poll_timeout(now)
}
