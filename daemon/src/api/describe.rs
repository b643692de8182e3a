//! The description of the API (OpenAPI 3.1), made from the routes that answer and from the types that they answer with.
//!
//! utoipa knows the routes, schemars the types; both speak JSON Schema 2020-12, so the schemas are put beside the routes
//! as they are.

use std::borrow::Cow;

use paradigm::Paradigm;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use utoipa::openapi::{OpenApi, Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::types::{
    AliasAnswer, AliasAsked, AliasLine, CancelAnswer, CancelAsked, Curve, CutAnswer, CutAsked, DrainAnswer,
    EvaluationAnswer, EvaluationAsked, Explained, GcAnswer, GcAsked, JobDetail, PauseAnswer, Refusal,
    ReloadAnswer, RetryAnswer, RetryAsked, Shards, Status, TreeView, VersionDetail, WithdrawAnswer,
    WithdrawAsked,
};
use crate::ledger::transition::Record;

/// Where a description keeps its schemas.
const SCHEMAS: &str = "/components/schemas";

/// The whole document.
pub(super) fn document(api: &OpenApi) -> Value {
    let mut document = serde_json::to_value(api).unwrap_or_default();
    document["info"] = json!({
        "title": "lrpath",
        "version": env!("CARGO_PKG_VERSION"),
        "license": { "name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE") },
        "description": "The control API of `lrpathd`, on its socket and, read-only without a token, over TCP on the \
                        loopback interface. A field is added, never renamed. Steps count from 0, moments are \
                        milliseconds since the Unix epoch, sizes are bytes.",
    });
    document["components"] = json!({
        "schemas": schemas(),
        "securitySchemes": {
            "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "What `control.token_file` holds; whoever comes in over TCP shows it to change anything.",
            },
        },
    });
    for methods in document["paths"].as_object_mut().into_iter().flat_map(Map::values_mut) {
        for (method, operation) in methods.as_object_mut().into_iter().flatten() {
            complete(method, operation);
        }
    }
    bound(&mut document);
    document
}

/// utoipa and schemars call numbers without a sign differently, and neither says where they end.
fn bound(value: &mut Value) {
    match value {
        Value::Object(object) => {
            let has_no_sign = object.get("minimum") == Some(&json!(0));
            let largest = match object.get("format").and_then(Value::as_str) {
                Some("uint32" | "int32") if has_no_sign => Some(("uint32", u64::from(u32::MAX))),
                Some("uint64" | "int64" | "uint") if has_no_sign => Some(("uint64", u64::MAX)),
                _ => None,
            };
            if let Some((format, maximum)) = largest {
                object.insert("format".to_owned(), json!(format));
                object.insert("maximum".to_owned(), json!(maximum));
            }
            object.values_mut().for_each(bound);
        }
        Value::Array(items) => items.iter_mut().for_each(bound),
        _ => {}
    }
}

/// What all operations have.
fn complete(method: &str, operation: &mut Value) {
    if let Some(operation) = operation.as_object_mut() {
        // The rooms that the routes lie in are nothing to a reader.
        operation.remove("tags");
    }
    operation["responses"]["default"] = json!({
        "description": "It was refused: why, and what to do.",
        "content": { "application/json": { "schema": { "$ref": format!("#{SCHEMAS}/Refusal") } } },
    });
    if method != "get" {
        operation["security"] = json!([{}, { "token": [] }]);
    }
    if operation.get("requestBody").is_some() {
        // None at all means the default.
        operation["requestBody"]["required"] = json!(false);
    }
}

/// Lets utoipa know types by the names under which schemars describes them, and describes them.
macro_rules! shapes {
    ($name:ident, $settings:ident: $($known:ty),+ $(,)?) => {
        $(
            impl PartialSchema for $known {
                fn schema() -> RefOr<Schema> {
                    Ref::from_schema_name(<$known as JsonSchema>::schema_name()).into()
                }
            }

            impl ToSchema for $known {
                fn name() -> Cow<'static, str> {
                    <$known as JsonSchema>::schema_name()
                }
            }
        )+

        fn $name() -> Map<String, Value> {
            let settings = SchemaSettings::draft2020_12().with(|settings| settings.definitions_path = SCHEMAS.into());
            let mut generator = settings.$settings().into_generator();
            $(let _ = generator.subschema_for::<$known>();)+
            generator.take_definitions(true)
        }
    };
}

shapes!(
    answers, for_serialize: AliasAnswer, AliasLine, CancelAnswer, Curve, CutAnswer, DrainAnswer, EvaluationAnswer, Explained, GcAnswer,
    JobDetail, PauseAnswer, Record, Refusal, ReloadAnswer, RetryAnswer, Shards, Status, TreeView, VersionDetail, WithdrawAnswer,
);
// What may be left out of a request is always in an answer.
shapes!(
    questions, for_deserialize: AliasAsked, CancelAsked, CutAsked, EvaluationAsked, GcAsked, RetryAsked, WithdrawAsked,
    NamedParadigm,
);

/// A paradigm, as it stands in a path or a query.
#[derive(JsonSchema)]
#[serde(transparent)]
pub(super) struct NamedParadigm(#[expect(dead_code, reason = "only described")] Paradigm);

fn schemas() -> Map<String, Value> {
    let mut schemas = questions();
    schemas.extend(answers());
    schemas
}
