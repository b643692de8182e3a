//! The contract as JSON schemas, for trainers in other languages.

use artifacts::event::Line;
use artifacts::job::Job;
use schemars::{Schema, schema_for};

/// The schema of `job.json`.
pub fn job_schema() -> String {
    text(schema_for!(Job))
}

/// The schema of one line of events.
pub fn event_schema() -> String {
    text(schema_for!(Line))
}

fn text(schema: Schema) -> String {
    format!("{:#}\n", schema.to_value())
}
