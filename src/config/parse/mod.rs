//! Text to one tree: parsing that goes on after a fault, and the tables of several files merged into one.

pub(crate) mod merge;
pub(crate) mod recover;
