//! Buffers that hold a secret or a token, and are overwritten when they are done with. What TLS and HTTP copy for
//! themselves is out of reach; against that there are no core dumps.

use bytes::Bytes;
use zeroize::Zeroizing;

use crate::domain::{ClientId, Secret};

/// The longest answer that is read, in bytes.
pub(in crate::api) const MAX_ANSWER: usize = 64 * 1024;

/// The request's body. Neither a client_id nor a secret can hold a quote or a backslash that went unescaped: the first is
/// checked by its type, the second is escaped here.
pub(in crate::api) fn request(client_id: &ClientId, secret: &Secret) -> Bytes {
    let parts = ["{\"client_id\":\"", client_id.as_str(), "\",\"client_secret\":\""];
    let tail = "\",\"grant_type\":\"client_credentials\"}";
    let fixed: usize = parts.iter().map(|part| part.len()).sum::<usize>() + tail.len();
    // Room for a secret in which every character is escaped: the buffer never moves, so nothing is left behind.
    let mut body = Zeroizing::new(Vec::with_capacity(fixed + 2 * secret.expose().len()));
    for part in parts {
        body.extend_from_slice(part.as_bytes());
    }
    // A secret is visible ASCII, so nothing else in it needs escaping.
    for byte in secret.expose().bytes() {
        if matches!(byte, b'"' | b'\\') {
            body.push(b'\\');
        }
        body.push(byte);
    }
    body.extend_from_slice(tail.as_bytes());
    Bytes::from_owner(body)
}

/// The answer is longer than [`MAX_ANSWER`].
pub(in crate::api) struct TooLong;

/// The answer's body, as it comes in.
pub(in crate::api) struct Gathered(Zeroizing<Vec<u8>>);

impl Gathered {
    /// `expected` is the answer's own idea of its length, if it has one.
    pub(in crate::api) fn new(expected: Option<u64>) -> Self {
        let expected = expected.and_then(|length| usize::try_from(length).ok()).unwrap_or(1024);
        Self(Zeroizing::new(Vec::with_capacity(expected.min(MAX_ANSWER))))
    }

    pub(in crate::api) fn push(&mut self, chunk: &[u8]) -> Result<(), TooLong> {
        let length = self.0.len() + chunk.len();
        if length > MAX_ANSWER {
            return Err(TooLong);
        }
        if length > self.0.capacity() {
            // A Vec that grows leaves its old bytes behind; this one is overwritten when it is dropped.
            let mut larger = Zeroizing::new(Vec::with_capacity((2 * length).min(MAX_ANSWER)));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(chunk);
        Ok(())
    }

    pub(in crate::api) fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_with_quotes_and_backslashes_arrives_as_it_is() {
        let client_id = ClientId::new("ding1").unwrap();
        let secret = Secret::new(Zeroizing::new(r#"a"b\c\"d"#.to_owned())).unwrap();
        let body = request(&client_id, &secret);
        let sent: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let expected = serde_json::json!({
            "client_id": "ding1", "client_secret": r#"a"b\c\"d"#, "grant_type": "client_credentials"
        });
        assert_eq!(sent, expected);
    }

    #[test]
    fn an_answer_is_gathered_up_to_its_limit() {
        let mut gathered = Gathered::new(Some(3));
        for _ in 0..64 {
            assert!(gathered.push(&[b'x'; 1024]).is_ok());
        }
        assert_eq!(gathered.as_slice().len(), MAX_ANSWER);
        assert!(gathered.push(b"x").is_err());
    }
}
