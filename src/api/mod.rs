//! The call to the token endpoint: the request, the answer, and what the answer means.
//!
//! Goes in: a [`Connection`](crate::domain::Connection), an app's credentials and an organisation. Comes out: an [`Answer`],
//! which is a token and its lifetime or a typed [`Failure`]. The only module that names reqwest or one of DingTalk's codes.
//! `daemon` calls it for tenants that are due, `cli` for `check --online`.
//!
//! | to find | open |
//! |---|---|
//! | one call from beginning to end | `client` |
//! | what an answer means, and what of it may be quoted | `classify` |
//! | TLS, DNS, HTTP/2 or HTTP/1.1, buffers, read limits, connection errors | `transport` |

mod classify;
mod client;
mod transport;

use crate::domain::{Failure, Token, WallMs};

pub use classify::redact_failure;
pub use client::{TokenClient, TokenClientError};
pub use transport::TrustError;

/// The result of one call.
#[derive(Debug)]
pub struct Answer {
    /// The token and its lifetime in seconds, or why there is none.
    pub outcome: Result<(Token, u32), Failure>,
    /// The server's clock, where the answer had a `Date`.
    pub server_date: Option<WallMs>,
}
