//! daemon

pub mod log;
