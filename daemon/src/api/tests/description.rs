use std::collections::BTreeSet;

use serde_json::Value;

use super::super::description;
use super::{PathSwitching, Served, World};

fn document() -> Value {
    serde_json::from_str(&description()).unwrap()
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (key, inner) in object {
                match (key.as_str(), inner) {
                    ("$ref", Value::String(to)) => _ = found.insert(to.clone()),
                    _ => references(inner, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn the_committed_description_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    let current = description();
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        std::fs::write(path, &current).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == current, "{path} is not current: run the tests with UPDATE_SCHEMAS=1");
}

#[test]
fn nothing_in_the_description_leads_nowhere_and_nothing_lies_about() {
    let document = document();
    let mut used = BTreeSet::new();
    references(&document, &mut used);
    let of = |name: &String| format!("#/components/schemas/{name}");
    let known: BTreeSet<String> =
        document["components"]["schemas"].as_object().unwrap().keys().map(of).collect();
    assert_eq!(used, known);
    assert!(known.len() > 40, "{}", known.len());
}

#[test]
fn every_operation_says_what_it_is_for_and_what_it_refuses() {
    let mut names = BTreeSet::new();
    for (path, methods) in document()["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name.to_owned()), "two operations are called {name}");
            assert!(operation["summary"].as_str().is_some_and(|text| text.ends_with('.')), "{method} {path}");
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.contains_key("200") && responses.contains_key("default"), "{method} {path}");
            assert_eq!(method == "get", operation.get("security").is_none(), "{method} {path}");
        }
    }
    assert!(names.len() >= 20, "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_is_what_is_committed() {
    let served = Served::new(&World::new(&[PathSwitching]));
    assert_eq!(served.ask("GET", "/v1/openapi.json", "").await, (200, document()));
}
