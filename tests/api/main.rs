//! The real client against the real sandbox, over TLS on loopback.

mod connections;
mod fixture;
mod floods;
mod proxies;
mod refusals;
mod sandbox_admin;
mod taxonomy;
mod trust;
