//! The call to the token endpoint: request, answer, classification. The only place that names reqwest or one of
//! DingTalk's codes.
//!
//! | file | what it is |
//! |---|---|
//! | `client` | one call from beginning to end |
//! | `route` | HTTP/2 or HTTP/1.1: which, and how that is found out |
//! | `resolve` | names to addresses, by a resolver that may hang |
//! | `metering` | how much a server may send |
//! | `tls` | whom to trust |
//! | `transport` | what it means when there is no answer |
//! | `body` | buffers that are overwritten when they are done with |
//! | `fields` | an answer's JSON |
//! | `classify` | what an answer means |
//! | `quote` | what of it may be shown |

mod body;
mod classify;
mod client;
mod fields;
mod metering;
mod quote;
mod resolve;
mod route;
mod tls;
mod transport;

use crate::domain::{Failure, Token, WallMs};

pub use client::{Client, ClientError};
pub use quote::withhold;
pub use tls::TrustError;

/// What one call brought.
#[derive(Debug)]
pub struct Answer {
    /// The token and its life in seconds, or why there is none.
    pub outcome: Result<(Token, u32), Failure>,
    /// The server's clock, where the answer had a `Date`.
    pub server_date: Option<WallMs>,
}
