//! The layout of the database's values, byte for byte. No other file knows it.

mod bytes;
mod checksum;
pub(super) mod config_text;
pub(super) mod saved_state;
pub(super) mod token;
