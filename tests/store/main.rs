//! The store as the daemon meets it.

mod damage;
mod disk;
mod rig;
mod saved_state;
mod tokens;
