//! Tokens and secrets, and what may be known of a token without knowing it.

mod record;
mod secret;

pub use record::{Fingerprint, Grant, MAX_LIFETIME_S, Record};
pub use secret::{InvalidToken, Secret, Token};
