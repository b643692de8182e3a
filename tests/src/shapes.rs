//! Every JSON that a test reads is held against the schema that `lrpathctl schema` prints of it.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::OnceLock;

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::program;

/// What `lrpathctl schema` prints, by command.
fn all() -> &'static BTreeMap<String, Validator> {
    static ALL: OnceLock<BTreeMap<String, Validator>> = OnceLock::new();
    ALL.get_or_init(|| {
        let output = Command::new(program("lrpathctl")).arg("schema").output().expect("lrpathctl starts");
        let all: Value = serde_json::from_slice(&output.stdout).expect("schema prints JSON");
        let validator = |shape: &Value| {
            let schema = json!({ "allOf": [shape], "$defs": all["$defs"] });
            jsonschema::validator_for(&schema).expect("a schema")
        };
        let shapes = all["properties"].as_object().expect("shapes by command").iter();
        shapes.map(|(command, shape)| (command.clone(), validator(shape))).collect()
    })
}

/// The commands that have a schema.
pub fn commands() -> impl Iterator<Item = &'static str> {
    all().keys().map(String::as_str)
}

/// The command of a command line.
pub fn command(arguments: &[&str]) -> String {
    match arguments {
        ["config", of, ..] => format!("config {of}"),
        [first, ..] => (*first).to_owned(),
        [] => panic!("a command has a name"),
    }
}

/// Fails where the answer to a command line has not the shape that is documented.
pub fn hold(arguments: &[&str], answer: &Value) {
    let command = command(arguments);
    let validator = all().get(&command).unwrap_or_else(|| panic!("{command} has no schema"));
    let wrong: Vec<String> =
        validator.iter_errors(answer).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(wrong.is_empty(), "{arguments:?} is not what its schema says: {wrong:#?}");
}
