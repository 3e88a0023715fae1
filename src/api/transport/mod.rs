//! How a call reaches the endpoint, and how its bytes come back.

pub(super) mod body;
pub(super) mod connection_error;
mod dns;
mod http_version;
mod read_budget;
pub(super) mod tls;

pub(super) use dns::Resolver;
pub(super) use http_version::ProtocolChoice;
pub(super) use read_budget::Metered;
pub use tls::TrustError;
