//! Parameters are counted as transformers counts them.

use std::collections::BTreeMap;

use harness::python;
use paradigm::Model;
use paradigm::model::PRESETS;
use serde::Deserialize;

#[derive(Deserialize)]
struct Preset {
    id: String,
    config: serde_json::Value,
}

#[test]
fn every_preset_has_the_parameters_that_transformers_gives_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("presets.json");
    std::fs::write(&file, PRESETS).unwrap();
    let theirs: BTreeMap<String, Option<u64>> =
        serde_json::from_value(python::ask("parameters.py", &[python::text(&file)])).unwrap();
    let presets: Vec<Preset> = serde_json::from_str(PRESETS).unwrap();
    let mut compared = 0;
    for Preset { id, config } in presets {
        let is_unknown_there = config["model_type"] == "internlm2";
        let ours = serde_json::from_value::<Model>(config).unwrap().parameters();
        assert_eq!(theirs[&id], (!is_unknown_there).then_some(ours), "{id}");
        compared += usize::from(!is_unknown_there);
    }
    assert_eq!(compared, 34);
}
