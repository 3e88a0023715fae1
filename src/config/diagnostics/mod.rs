//! What is wrong with a config. In: spans and messages, while it is read and checked. Out: a [`Report`](report::Report) that is
//! rendered as a compiler would, or as JSON. Lines of the config are shown with everything hidden that could be a secret
//! (`redact`), whatever is wrong with them. For all of `config`.

pub(crate) mod collect;
mod excerpt;
mod lexemes;
pub(crate) mod redact;
mod render;
pub(crate) mod report;
pub(crate) mod sources;
