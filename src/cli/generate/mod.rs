//! What the program prints about itself: completions, manual pages, and the JSON Schema of the config. In: the declarations of
//! the arguments and of the config's keys. Out: text. One file for each command.

pub(super) mod completions;
pub(super) mod man;
pub(super) mod schema;
