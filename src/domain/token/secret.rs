//! Values that must never be shown. They have no `Display` and no `Serialize`, their `Debug` shows nothing of them, and their bytes
//! are overwritten when the last reference is dropped.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::record::Fingerprint;

/// An app's client secret.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    /// Takes `text` as a secret. `None` if it is empty, holds control characters or blanks, or is longer than 4,096 bytes: such a
    /// text is not meant to be a secret.
    pub fn new(text: Zeroizing<String>) -> Option<Self> {
        let plausible = (1..=4096).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        plausible.then(|| Self(Arc::new(text)))
    }

    /// The secret itself, for the request.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// A digest that shows only whether a secret changed.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.0.as_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Why an answer's token was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// It has no characters.
    #[error("the token is empty")]
    Empty,
    /// It is longer than any token could be.
    #[error("the token is longer than {} bytes", Token::MAX_BYTES)]
    TooLong,
    /// It holds a blank, a control character or something outside ASCII.
    #[error("the token holds characters other than visible ASCII")]
    NotVisibleAscii,
}

/// An access token: opaque, visible ASCII, 1 to 4,096 bytes.
#[derive(Clone)]
pub struct Token(Arc<Zeroizing<Box<str>>>);

impl Token {
    /// The longest token that is accepted, in bytes. The endpoint's documentation gives no length.
    pub const MAX_BYTES: usize = 4096;

    /// Checks that `text` can be a token.
    pub fn new(text: Zeroizing<String>) -> Result<Self, InvalidToken> {
        match text.len() {
            0 => Err(InvalidToken::Empty),
            n if n > Self::MAX_BYTES => Err(InvalidToken::TooLong),
            _ if !text.bytes().all(|b| b.is_ascii_graphic()) => Err(InvalidToken::NotVisibleAscii),
            _ => Ok(Self(Arc::new(Zeroizing::new(text.as_str().into())))),
        }
    }

    /// The token itself, for sinks and the database.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// A digest that may be shown.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.0.as_bytes())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_neither_token_nor_secret() {
        let token = Token::new(Zeroizing::new("tok-visible".into())).unwrap();
        let secret = Secret::new(Zeroizing::new("sec-visible".into())).unwrap();
        let shown = format!("{token:?} {secret:?}");
        assert!(!shown.contains("visible"), "{shown}");
    }

    #[test]
    fn a_token_is_visible_ascii_of_1_to_4096_bytes() {
        let token = |text: &str| Token::new(Zeroizing::new(text.to_owned())).map(|_| ());
        assert_eq!(token("0a7-_x"), Ok(()));
        assert_eq!(token(&"x".repeat(4096)), Ok(()));
        assert_eq!(token(""), Err(InvalidToken::Empty));
        assert_eq!(token(&"x".repeat(4097)), Err(InvalidToken::TooLong));
        for bad in ["a b", "a\n", "a\0b", "tök", "\u{7f}"] {
            assert_eq!(token(bad), Err(InvalidToken::NotVisibleAscii), "{bad:?}");
        }
    }
}
