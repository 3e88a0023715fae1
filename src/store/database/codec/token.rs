//! The layout of a token. Big-endian numbers, in this order:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | the format of this value, 1 |
//! | 8 | when it was requested, ms since 1970 |
//! | 8 | when it expires, ms since 1970 |
//! | 8 | the token's fingerprint |
//! | n | the token |
//! | 8 | a [`checksum`] |

use zeroize::Zeroizing;

use super::checksum::{self, checksum};
use crate::domain::{Fingerprint, Record, Token, WallMs};

const FORMAT: u8 = 1;
const HEAD: usize = 1 + 3 * 8;

/// Encodes the value of `key`, in a buffer that is zeroized on drop.
pub(crate) fn encode(key: &str, record: &Record, token: &Token) -> Zeroizing<Vec<u8>> {
    let token = token.expose().as_bytes();
    // The exact size: a buffer that grew would leave pieces of the token behind.
    let mut value = Zeroizing::new(Vec::with_capacity(HEAD + token.len() + checksum::BYTES));
    value.push(FORMAT);
    for number in [record.requested_at.0, record.expires_at.0, record.fingerprint.0] {
        value.extend_from_slice(&number.to_be_bytes());
    }
    value.extend_from_slice(token);
    let checksum = checksum(key.as_bytes(), &value);
    value.extend_from_slice(&checksum);
    value
}

/// The record alone; `None` if the value is not whole, or of an unknown format.
pub(crate) fn decode_record(key: &str, value: &[u8]) -> Option<Record> {
    decode(key, value).map(|(record, _)| record)
}

/// Record and token; `None` as in [`decode_record`], and if the token's fingerprint is not the record's.
pub(crate) fn decode_token(key: &str, value: &[u8]) -> Option<(Record, Token)> {
    let (record, token) = decode(key, value)?;
    let text = Zeroizing::new(std::str::from_utf8(token).ok()?.to_owned());
    let token = Token::new(text).ok()?;
    (token.fingerprint() == record.fingerprint).then_some((record, token))
}

fn decode<'a>(key: &str, value: &'a [u8]) -> Option<(Record, &'a [u8])> {
    let (head, token) = checksum::verified(key.as_bytes(), value)?.split_at_checked(HEAD)?;
    let (format, numbers) = head.split_first()?;
    if *format != FORMAT {
        return None;
    }
    let (numbers, _) = numbers.as_chunks::<8>();
    let [requested_at, expires_at, fingerprint] = numbers else { return None };
    let record = Record {
        requested_at: WallMs(u64::from_be_bytes(*requested_at)),
        expires_at: WallMs(u64::from_be_bytes(*expires_at)),
        fingerprint: Fingerprint(u64::from_be_bytes(*fingerprint)),
    };
    Some((record, token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Token {
        Token::new(Zeroizing::new(text.into())).unwrap()
    }

    fn record(token: &Token) -> Record {
        Record { requested_at: WallMs(1_000), expires_at: WallMs(7_201_000), fingerprint: token.fingerprint() }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let token = token("tok-1");
        let value = encode("crm/ding1", &record(&token), &token);
        assert_eq!(decode_record("crm/ding1", &value), Some(record(&token)));
        assert_eq!(decode_token("crm/ding1", &value).unwrap().1.expose(), "tok-1");
    }

    #[test]
    fn any_changed_or_missing_byte_is_noticed() {
        let token = token("tok-1");
        let whole = encode("crm/ding1", &record(&token), &token).to_vec();
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[at] ^= 1 << bit;
                assert_eq!(decode_record("crm/ding1", &changed), None, "bit {bit} of byte {at}");
            }
            assert_eq!(decode_record("crm/ding1", &whole[..at]), None, "{at} bytes");
        }
    }

    #[test]
    fn a_token_never_passes_as_another_tenants() {
        let token = token("tok-1");
        let value = encode("crm/ding1", &record(&token), &token);
        assert!(decode_token("crm/ding2", &value).is_none());
        assert!(decode_token("crm/ding", &value).is_none());
    }

    #[test]
    fn a_token_that_is_not_the_records_is_not_given_out() {
        let wrong = Record { fingerprint: Fingerprint(7), ..record(&token("tok-1")) };
        let value = encode("crm/ding1", &wrong, &token("tok-1"));
        assert!(decode_record("crm/ding1", &value).is_some());
        assert!(decode_token("crm/ding1", &value).is_none());
    }
}
