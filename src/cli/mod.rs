//! One file per command.

pub mod reload;
pub mod status;
