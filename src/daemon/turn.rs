//! One turn: what happened goes in, and what there is to do is executed. The daemon turns it with real threads, a simulation with a
//! model of the world.

use crate::domain::{BootMs, Now};
use crate::engine::{Action, Capacity, Engine, Event};

/// Executes what the engine decides.
pub trait Execute {
    /// What can be taken on at this moment.
    fn capacity(&self) -> &Capacity;

    /// Begins an action, which carries all that this takes. Its outcome comes as an event of a later turn; `Some`: it has
    /// ended already.
    fn execute(&mut self, now: Now, action: Action) -> Option<Event>;
}

/// Takes the events in and executes all that follows. Returns when to turn again if nothing happens before.
pub fn turn(
    engine: &mut Engine,
    now: Now,
    events: impl IntoIterator<Item = Event>,
    executor: &mut impl Execute,
) -> Option<BootMs> {
    for event in events {
        engine.handle(now, event);
    }
    engine.handle_timeout(now);
    while let Some(action) = engine.poll(now, executor.capacity()) {
        if let Some(ended) = executor.execute(now, action) {
            engine.handle(now, ended);
        }
    }
    engine.poll_timeout(now)
}
