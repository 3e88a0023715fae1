//! The store as the daemon meets it.

mod damage;
mod disk;
mod fixture;
mod saved_state;
mod tokens;
