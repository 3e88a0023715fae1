//! The layout of one file of the applied config: its rank (4 bytes, big-endian), its text, and a [`checksum`].

use super::checksum::{self, checksum};

pub(crate) fn encode(key: &[u8], rank: u32, text: &str) -> Vec<u8> {
    let mut value = Vec::with_capacity(4 + text.len() + checksum::BYTES);
    value.extend_from_slice(&rank.to_be_bytes());
    value.extend_from_slice(text.as_bytes());
    let checksum = checksum(key, &value);
    value.extend_from_slice(&checksum);
    value
}

/// `None` if the value is not whole.
pub(crate) fn decode<'a>(key: &[u8], value: &'a [u8]) -> Option<(u32, &'a str)> {
    let (rank, text) = checksum::verified(key, value)?.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*rank), std::str::from_utf8(text).ok()?))
}
