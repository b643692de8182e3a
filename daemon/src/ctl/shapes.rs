//! What `--json` prints, as JSON schemas: made from the types that are printed, so that none can say what another does.
//!
//! Scripts outlive programs. Within one [`VERSION`] a shape only grows: a field is added, none is renamed, taken away or
//! given another meaning. The socket's `/v1` answers with the same types and keeps the same promise.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::{backup, check, configuration, demo, export, init};
use crate::api::types::{
    AliasAnswer, AliasLine, CancelAnswer, CutAnswer, DrainAnswer, EvaluationAnswer, Explained, GcAnswer,
    JobDetail, PauseAnswer, ReloadAnswer, RetryAnswer, Shards, Status, TreeView, VersionDetail,
    WithdrawAnswer,
};
use crate::config::nearest;
use crate::edge::failure::{Exit, Failure};
use crate::ledger::offline::Report;
use crate::ledger::transition::Record;

/// Version of all shapes.
pub const VERSION: u32 = 1;

/// What a command prints with `--json`.
struct Shape {
    /// The command, as it is typed.
    command: &'static str,
    /// Its schema.
    schema: fn(&mut SchemaGenerator) -> Schema,
}

fn shape<T: JsonSchema>(command: &'static str) -> Shape {
    Shape { command, schema: SchemaGenerator::subschema_for::<T> }
}

fn shapes() -> Vec<Shape> {
    vec![
        shape::<init::Made>("init"),
        shape::<configuration::Checked>("config check"),
        shape::<Status>("status"),
        shape::<TreeView>("tree"),
        shape::<Vec<VersionDetail>>("versions"),
        shape::<Shards>("shards"),
        shape::<Vec<JobDetail>>("jobs"),
        shape::<Explained>("explain"),
        shape::<Record>("events"),
        shape::<CutAnswer>("cut"),
        shape::<PauseAnswer>("pause"),
        shape::<DrainAnswer>("drain"),
        shape::<ReloadAnswer>("reload"),
        shape::<PauseAnswer>("resume"),
        shape::<RetryAnswer>("retry"),
        shape::<CancelAnswer>("cancel"),
        shape::<WithdrawAnswer>("withdraw"),
        shape::<EvaluationAnswer>("evaluate"),
        Shape { command: "alias", schema: alias },
        shape::<GcAnswer>("gc"),
        shape::<paradigm::Report>("plan"),
        shape::<export::Exported>("export"),
        shape::<check::Findings>("check"),
        shape::<Report>("rebuild"),
        shape::<backup::Taken>("backup"),
        shape::<backup::Restored>("restore"),
        shape::<demo::Shown>("demo"),
    ]
}

/// Names are listed, or one is moved.
fn alias(generator: &mut SchemaGenerator) -> Schema {
    let listed = generator.subschema_for::<Vec<AliasLine>>();
    let moved = generator.subschema_for::<AliasAnswer>();
    json_schema!({ "anyOf": [listed, moved] })
}

/// The schema of what a command prints, or, without a command, of what each prints, by its name below `properties`.
///
/// # Errors
/// There is no such command, or it prints no JSON.
pub fn schema(command: &[String]) -> Result<Value, Failure> {
    let mut generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let all = shapes();
    let typed = command.join(" ");
    let (title, root) = if command.is_empty() {
        let properties = all.iter().map(|one| (one.command.to_owned(), (one.schema)(&mut generator).into()));
        let properties: serde_json::Map<String, Value> = properties.collect();
        ("what lrpathctl prints with --json, by command".to_owned(), json!({ "properties": properties }))
    } else {
        let Some(shape) = all.iter().find(|shape| shape.command == typed) else {
            let meant = nearest(&typed, all.iter().map(|shape| shape.command));
            let failure = Failure::new(format!("`{typed}` prints no JSON")).exit(Exit::Usage);
            return Err(match meant {
                Some(meant) => failure.hint(format!("did you mean `{meant}`?")),
                None => failure.hint("`lrpathctl schema` shows all that do, by their names"),
            });
        };
        (format!("what lrpathctl {typed} prints with --json"), (shape.schema)(&mut generator).into())
    };
    let mut schema = json!({
        "$schema": generator.settings().meta_schema,
        "title": title,
        "version": VERSION,
    });
    let parts = [root, json!({ "$defs": generator.take_definitions(true) })];
    if let Value::Object(schema) = &mut schema {
        schema.extend(parts.into_iter().filter_map(|part| part.as_object().cloned()).flatten());
    }
    Ok(schema)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{Command, CommandFactory};

    use super::*;
    use crate::ctl::flags::Cli;

    fn with_json(command: &Command, typed: &str, found: &mut BTreeSet<String>) {
        if command.get_arguments().any(|argument| argument.get_long() == Some("json")) {
            found.insert(typed.to_owned());
        }
        for sub in command.get_subcommands() {
            with_json(sub, format!("{typed} {}", sub.get_name()).trim_start(), found);
        }
    }

    #[test]
    fn each_command_with_json_has_a_shape_and_no_other() {
        let mut flagged = BTreeSet::new();
        with_json(&Cli::command(), "", &mut flagged);
        let shaped: BTreeSet<String> = shapes().iter().map(|shape| shape.command.to_owned()).collect();
        assert_eq!(shaped, flagged);
        for command in shaped {
            let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
            let schema = schema(&words).unwrap();
            assert_eq!(schema["version"], VERSION, "{command}");
        }
    }

    #[test]
    fn an_unknown_command_is_told_the_nearest() {
        let refused = schema(&["versoins".to_owned()]).unwrap_err();
        assert_eq!(refused.exit, Exit::Usage);
        assert_eq!(refused.hint.as_deref(), Some("did you mean `versions`?"));
    }

    /// The file that is committed for the authors of scripts; written anew where `UPDATE_SCHEMAS` is set.
    #[test]
    fn the_committed_schema_is_current() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/lrpathctl.schema.json");
        let current = serde_json::to_string_pretty(&schema(&[]).unwrap()).unwrap() + "\n";
        if std::env::var_os("UPDATE_SCHEMAS").is_some() {
            std::fs::write(&path, &current).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == current,
            "{} is not current: run the tests with UPDATE_SCHEMAS=1",
            path.display()
        );
    }
}
