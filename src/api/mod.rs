//! The call to the token endpoint: request, answer, classification. The only place that names reqwest or one of
//! DingTalk's codes.

use crate::domain::{Failure, Token, WallMs};

/// What one call brought.
#[derive(Debug)]
pub struct Answer {
    /// The token and its life in seconds, or why there is none.
    pub outcome: Result<(Token, u32), Failure>,
    /// The server's clock, where the answer had a `Date`.
    pub server_date: Option<WallMs>,
}
