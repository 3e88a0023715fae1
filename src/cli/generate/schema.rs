//! `corptokend schema`: the JSON Schema of the config, for editors.

use std::io::Write;

use super::super::terminal::{Exit, output_failed};
use crate::config::schema;

/// Print the JSON Schema of the config
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct SchemaArgs {}

pub(in crate::cli) fn run(out: &mut dyn Write) -> Exit {
    match out.write_all(schema::json_schema().as_bytes()) {
        Ok(()) => Exit::Success,
        Err(error) => output_failed(&error),
    }
}
