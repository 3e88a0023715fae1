//! The checksum at the end of each value. It is ours because redb does not notice rot, and it covers the key, so that one
//! tenant's token can never be taken for another's.

use ring::digest;

pub(super) const BYTES: usize = 8;

/// The first 8 bytes of the SHA-256 of the key's length (8 bytes, big-endian, so that no byte can change sides), the key,
/// and the value.
pub(super) fn checksum(key: &[u8], value: &[u8]) -> [u8; BYTES] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&(key.len() as u64).to_be_bytes());
    context.update(key);
    context.update(value);
    let mut first = [0; BYTES];
    first.copy_from_slice(&context.finish().as_ref()[..BYTES]);
    first
}

/// The value without its checksum; `None` if that is wrong.
pub(super) fn verified<'a>(key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (body, sum) = value.split_last_chunk::<BYTES>()?;
    (*sum == checksum(key, body)).then_some(body)
}
