//! The merged tree to a [`Config`](super::Config): typed reading that goes on after a problem, one file a table.

pub(crate) mod app;
pub(crate) mod inherited;
pub(crate) mod reader;
pub(crate) mod sink;
pub(crate) mod tenants;
pub(crate) mod top;
pub(crate) mod values;
