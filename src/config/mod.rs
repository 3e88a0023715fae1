//! Text to [`Config`]: reading the files, all problems at once, and the difference of two configs.

mod model;

pub use model::{Api, App, Config, Control, Limits, Log, LogFormat, LogLevel, Special, State};
