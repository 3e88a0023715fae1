//! What can only be judged over all tenants: conflicts of places, and capacity.

pub(crate) mod capacity;
pub(crate) mod conflicts;
pub(crate) mod places;
