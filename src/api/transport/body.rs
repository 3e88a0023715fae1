//! Buffers that hold a secret or a token, and are overwritten when they are dropped. The copies that TLS and HTTP make are out of
//! reach; core dumps are disabled because of them.

use bytes::Bytes;
use zeroize::Zeroizing;

use crate::domain::{ClientId, Secret};

/// The size limit of an answer's body, in bytes.
pub(in crate::api) const MAX_ANSWER: usize = 64 * 1024;

/// The request's body. A client_id cannot hold a quote or a backslash, which its type checks; in a secret they are escaped here.
pub(in crate::api) fn request(client_id: &ClientId, secret: &Secret) -> Bytes {
    let parts = ["{\"client_id\":\"", client_id.as_str(), "\",\"client_secret\":\""];
    let tail = "\",\"grant_type\":\"client_credentials\"}";
    let fixed: usize = parts.iter().map(|part| part.len()).sum::<usize>() + tail.len();
    // Capacity for a secret in which every character is escaped: the buffer is never moved, so no copy stays behind.
    let mut body = Zeroizing::new(Vec::with_capacity(fixed + 2 * secret.expose().len()));
    for part in parts {
        body.extend_from_slice(part.as_bytes());
    }
    // A secret is visible ASCII, so no other character needs escaping.
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

/// The answer's body, read chunk by chunk.
pub(in crate::api) struct AnswerBuffer(Zeroizing<Vec<u8>>);

impl AnswerBuffer {
    /// `expected` is the answer's Content-Length, if it has one.
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
            // A Vec that grows leaves its old bytes in memory; this one is overwritten when it is dropped.
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
    fn an_answer_is_read_up_to_its_limit() {
        let mut buffer = AnswerBuffer::new(Some(3));
        for _ in 0..64 {
            assert!(buffer.push(&[b'x'; 1024]).is_ok());
        }
        assert_eq!(buffer.as_slice().len(), MAX_ANSWER);
        assert!(buffer.push(b"x").is_err());
    }
}
