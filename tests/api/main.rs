//! The real client against the real sandbox, over TLS on loopback.

mod admin;
mod cases;
mod floods;
mod refusals;
mod rig;
mod routes;
mod trust;
mod wires;
