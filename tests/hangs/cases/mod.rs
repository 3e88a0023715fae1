//! The rows, by what hangs.

mod endpoints;
mod inputs;
mod outputs;
mod sinks;
mod states;

use crate::case::Case;

/// All of them, in the document's order.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    [states::CELLS, sinks::CELLS, inputs::CELLS, endpoints::CELLS, outputs::CELLS].into_iter().flatten()
}
