//! The endpoint that is called: how it is reached, and which calls fail or are banned together.

mod connection;
mod route;

pub use connection::{Connection, Endpoint, InvalidEndpoint, Proxy, SecretSource};
pub use route::{CallPath, OriginId, RouteId};
