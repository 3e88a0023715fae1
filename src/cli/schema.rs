//! `corptokend schema`: the JSON Schema of the config, for editors.

use std::io::Write;

use super::terminal::{Exit, output_failed};
use crate::config::schema;

/// Print the JSON Schema of the config
#[derive(Debug, clap::Args)]
pub(super) struct SchemaArgs {}

pub(super) fn run(out: &mut dyn Write) -> Exit {
    match out.write_all(schema::json_schema().as_bytes()) {
        Ok(()) => Exit::Success,
        Err(error) => output_failed(&error),
    }
}
