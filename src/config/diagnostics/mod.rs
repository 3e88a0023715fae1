//! What is wrong with a config: how diagnostics are collected, reported and rendered, and what of a line may be shown.

pub(crate) mod collect;
pub(crate) mod excerpt;
pub(crate) mod redact;
mod render;
pub(crate) mod report;
mod tokens;
