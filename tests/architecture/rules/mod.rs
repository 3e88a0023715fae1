//! The rules. Each says what is wrong with a file, or with the crate; `docs/architecture.md` says why.

pub(crate) mod clock;
pub(crate) mod dingtalk;
pub(crate) mod hub;
pub(crate) mod purity;
pub(crate) mod shape;
