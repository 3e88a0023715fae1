//! The layout of the database's values, byte for byte: a format number first, a checksum last. No other file knows it.

pub(super) mod saved_state;
pub(super) mod token;
