use std::path::{Path, PathBuf};

use artifacts::Digest;
use paradigm::Paradigm;

use super::*;

fn examples(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    files
}

/// A configuration in a folder of its own, beside the default model.
fn load(text: &str) -> Result<(Config, Given), String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("model")).unwrap();
    std::fs::write(folder.path().join("model/config.json"), DEFAULT_MODEL).unwrap();
    let file = folder.path().join(FILE);
    std::fs::write(&file, text).unwrap();
    Config::load_with_files(&file)
        .map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
}

#[test]
fn the_examples_are_taken() {
    let files = examples("");
    assert!(files.len() >= 3);
    for file in files {
        if let Err(error) = Config::load(&file) {
            panic!("{error}");
        }
    }
}

#[test]
fn each_invalid_example_is_refused_with_its_sentence() {
    let mut told = String::new();
    for file in examples("invalid") {
        let error = Config::load(&file).expect_err(&file.display().to_string()).to_string();
        let folder = format!("{}/", file.parent().unwrap().display());
        told.push_str(&error.replace(&folder, ""));
        told.push_str("\n\n");
    }
    insta::assert_snapshot!(told);
}

#[test]
fn the_default_file_says_the_defaults() {
    let (as_written, _) = load(DEFAULT_TOML).unwrap();
    let (bare, _) = load("[model]\nconfig = \"model/config.json\"").unwrap();
    assert_eq!(as_written, bare);

    // Each key behind a `#`, taken at its word, is the default; those without one are examples.
    let without_default = [
        "weights",
        "file",
        "vocabulary",
        "hold",
        "every_tokens",
        "quiet_seconds",
        "min_steps",
        "command",
        "threads",
    ];
    let is_example = |line: &str| {
        let key = line.trim_start_matches('#').split(' ').next().unwrap_or_default();
        without_default.contains(&key)
            || [
                "micro_batch",
                "socket",
                "listen",
                "token_file",
                "page",
                "pre_publish",
                "on_release",
                "on_failure",
            ]
            .contains(&key)
    };
    let mut table = "";
    let mut text = String::new();
    for line in DEFAULT_TOML.lines() {
        if line.starts_with('[') {
            table = line;
        }
        let is_setting = line.starts_with('#') && !line.starts_with("# ");
        let keeps = is_setting
            && !is_example(line)
            && !((table == "[evaluate]" && line.starts_with("#every "))
                || (table == "[tensorboard]" && line.starts_with("#folder ")));
        text.push_str(if keeps { line.trim_start_matches('#') } else { line });
        text.push('\n');
    }
    assert!(text.contains("\nalpha = 0.6\n") && text.contains("\n[[slots]]\n"));
    let (spelled_out, _) = load(&text).unwrap();
    assert_eq!(spelled_out, bare);
}

#[test]
fn every_key_stands_in_the_default_file_and_in_the_documentation() {
    let page = include_str!("../../../docs/operating.md");
    for name in read::known_keys() {
        let (table, key) = name.rsplit_once('.').unwrap_or(("", &name));
        if !table.is_empty() || !DEFAULT_TOML.contains(&format!("[{key}]")) {
            let mut lines = DEFAULT_TOML.lines().map(|line| line.trim_start_matches('#'));
            assert!(
                lines.any(|line| line.starts_with(&format!("{key} = "))),
                "{name} is missing in default.toml"
            );
            assert!(page.contains(&format!("`{name}`")), "{name} is missing in docs/operating.md");
        }
    }
}

#[test]
fn pointing_changes_paths_and_nothing_else() {
    let text = "# mine\n[model]\nconfig = '../m.json' # the small one\n[tokenizer]\nvocabulary = 300\n";
    let pointed =
        point_at(text, &[("model.config", "model/config.json"), ("tokenizer.file", "tokenizer.json")]);
    assert_eq!(
        pointed.unwrap(),
        "# mine\n[model]\nconfig = \"model/config.json\" # the small one\n[tokenizer]\nvocabulary = 300\n"
    );
    let dotted =
        point_at("model.config = \"a\"\ntokenizer = { file = \"b\" }", &[("tokenizer.file", "c\"d")]);
    let expected: toml::Table = "model.config = \"a\"\ntokenizer = { file = 'c\"d' }".parse().unwrap();
    assert_eq!(dotted.unwrap().parse::<toml::Table>().unwrap(), expected);
}

#[test]
fn what_is_fixed_may_not_change_and_the_rest_may() {
    let (config, given) = load(DEFAULT_TOML).unwrap();
    let fixed = config.fixed(&given);
    let mut changed = config.clone();
    changed.schedule.alpha = 0.3;
    changed.schedule.decay = paradigm::Decay::Linear;
    changed.schedule.hold = Some(0.2);
    changed.cut.every_tokens = Some(1 << 30);
    changed.checkpoints.every = 5;
    changed.main_path = MainPath::Lazy;
    changed.trainer.micro_batch = Some(1);
    assert_eq!(differences(&fixed, &changed.fixed(&given)), []);

    changed.schedule.peak = 1e-3;
    changed.seed = 7;
    changed.paradigm = Paradigms::Several(vec![Paradigm::PathSwitching, Paradigm::Continual]);
    let mut other = given.clone();
    other.model["hidden_size"] = 128.into();
    other.tokenizer = Some(Digest::of(b"other"));
    let told: Vec<String> =
        differences(&fixed, &changed.fixed(&other)).iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn defaults_are_filled_in() {
    let (mut config, _) = load(DEFAULT_TOML).unwrap();
    let machine = Machine { cores: 9, program: None, path: Some("/usr/bin:/bin".into()) };
    config.trainer.command = Some(vec!["sh".into(), "train.sh".into()]);
    config.slots.push(SlotConfig { name: "two".into(), devices: vec!["cpu".into()], shared: false });
    config.cut.every_tokens = Some(10 * 32_768 + 5);
    let settings = config.settings(Path::new("/state"), &machine).unwrap();
    assert_eq!(settings.trainer.threads, 4, "the cores, shared among two slots");
    assert_eq!(settings.ahead_steps, Some(1000), "one interval of the grid");
    assert_eq!(settings.micro_batch, 32);
    assert_eq!(settings.every_steps, Some(10));
    assert_eq!(settings.train_bytes, 10 * 32_768, "a tokenizer never waits for more than an increment");
    assert_eq!(settings.data, Path::new("/state/data"));
    assert_eq!(settings.socket, Path::new("/state/control.sock"));
    assert!(settings.trainer.command[0].to_string_lossy().ends_with("/sh"));
    config.main_path = MainPath::Lazy;
    assert_eq!(config.settings(Path::new("/state"), &machine).unwrap().ahead_steps, None);

    config.trainer.command = None;
    let error = config.settings(Path::new("/state"), &machine).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the trainer `lrpath-train` was not found beside this program or on the path: build or install it, or set \
         `trainer.command`"
    );
}

#[test]
fn of_a_folder_of_weights_only_what_a_trainer_reads_counts() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    assert!(weights_digest(folder.path()).unwrap_err().to_string().starts_with("model.safetensors: "));
    put("model.safetensors", "whole");
    let whole = weights_digest(folder.path()).unwrap();
    put("adapter.safetensors", "stray");
    assert_eq!(weights_digest(folder.path()).unwrap(), whole);

    let index = r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors", "c": "one.safetensors"}}"#;
    put("model.safetensors.index.json", index);
    put("one.safetensors", "1");
    assert!(weights_digest(folder.path()).unwrap_err().to_string().starts_with("two.safetensors: "));
    put("two.safetensors", "2");
    let parts = weights_digest(folder.path()).unwrap();
    assert_ne!(parts, whole);
    put("adapter.safetensors", "another stray");
    assert_eq!(weights_digest(folder.path()).unwrap(), parts);
    put("two.safetensors", "3");
    assert_ne!(weights_digest(folder.path()).unwrap(), parts);
    for bad in ["[", "{}", r#"{"weight_map": {"a": "../out"}}"#, r#"{"weight_map": {"a": 1}}"#] {
        put("model.safetensors.index.json", bad);
        assert!(weights_digest(folder.path()).is_err(), "{bad}");
    }
}

#[test]
fn a_state_that_is_made_does_not_ask_for_its_weights_at_every_look() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(FILE);
    let weights = folder.path().join("given");
    std::fs::create_dir(folder.path().join("model")).unwrap();
    std::fs::write(folder.path().join("model/config.json"), DEFAULT_MODEL).unwrap();
    std::fs::create_dir(&weights).unwrap();
    std::fs::write(weights.join("model.safetensors"), "weights").unwrap();
    let text = |weights: &str| format!("[model]\nconfig = \"model/config.json\"\n{weights}");
    std::fs::write(&file, text("weights = \"given\"\n")).unwrap();
    let (config, given) = Config::load_with_files(&file).unwrap();
    let fixed = config.fixed(&given);

    std::fs::remove_dir_all(&weights).unwrap();
    assert!(Config::load_with_files(&file).unwrap_err().to_string().contains("model.weights"));
    let (config, given) = Config::load_of_state(&file, &fixed).unwrap();
    assert_eq!(is_unchanged(&fixed, &config.fixed(&given), &file), Ok(()));
    // Not to name them any more, or to name some where there were none, is another configuration.
    std::fs::write(&file, text("")).unwrap();
    let (config, given) = Config::load_of_state(&file, &fixed).unwrap();
    let without = config.fixed(&given);
    assert_eq!(is_unchanged(&fixed, &without, &file).unwrap_err().differences[0].key, "model.weights");
    std::fs::write(&file, text("weights = \"given\"\n")).unwrap();
    assert!(Config::load_of_state(&file, &without).is_err());
}
