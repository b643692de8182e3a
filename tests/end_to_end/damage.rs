//! Damage of every kind, planted in every kind of file: `check` names the file, and `--repair` mends what it says it mends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::daemon::{Daemon, wait_for_releases};
use harness::program;
use harness::state::{State, byte_config, tokens};
use serde_json::Value;
use tempfile::TempDir;

/// A state with two versions, and with all of their checkpoints.
fn published() -> State {
    let tables = "[schedule]\nwarmup_steps = 2\npeak = 1e-3\nmin = 1e-4\n[checkpoints]\nevery = 8\n[cut]\nevery_tokens = 640\n\
                  [retention]\nautomatic = false";
    let config = byte_config("main_path = \"lazy\"\nseed = 9", tables);
    let state = State::new(&config.replace("[data]\n", "[data]\ntoken_width = \"uint16\"\n"));
    let daemon = Daemon::start(&state);
    state.drop_file("a.bin", &tokens(1, 1500));
    wait_for_releases(&state, "path-switching", 2, 60);
    daemon.stop();
    state
}

/// A copy of a state, to be damaged.
struct Copied {
    _folder: TempDir,
    path: PathBuf,
}

impl Copied {
    fn of(state: &State) -> Self {
        let folder = TempDir::with_prefix("lrpath-damage-").unwrap();
        let path = folder.path().join("state");
        let copied = Command::new("cp").arg("-a").arg(state.path()).arg(&path).status().unwrap();
        assert!(copied.success());
        Self { _folder: folder, path }
    }

    /// The exit code of a check, and what it found.
    fn check(&self, flags: &[&str]) -> (i32, Value, String) {
        let output = Command::new(program("lrpathctl"))
            .args(["check", "--json", "--state"])
            .arg(&self.path)
            .args(flags)
            .output()
            .unwrap();
        let found = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (output.status.code().unwrap(), found, String::from_utf8(output.stderr).unwrap())
    }
}

/// The ways in which a file goes wrong.
const WAYS: [&str; 5] = ["flipped", "cut", "zeroed", "missing", "swapped"];

fn damage(file: &Path, way: &str, other: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    match way {
        "flipped" => bytes[middle] ^= 1,
        "cut" => bytes.truncate(middle),
        "zeroed" => bytes[middle..].fill(0),
        "missing" => return fs::remove_file(file).unwrap(),
        "swapped" => bytes = fs::read(other).unwrap(),
        way => panic!("{way}"),
    }
    fs::write(file, bytes).unwrap();
}

/// The first folder below one, by name.
fn first(state: &Path, folder: &str, begins: &str) -> String {
    let entries = fs::read_dir(state.join(folder)).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let name = names.into_iter().find(|name| name.starts_with(begins)).unwrap();
    format!("{folder}/{name}")
}

#[test]
fn each_kind_of_damage_is_named_with_its_file_and_mended_where_that_is_said() {
    let state = published();
    let path = state.path();
    let checkpoint = first(&path, "checkpoints", "path-switching.main");
    let shard = first(&path, "tokens", "");
    let token_file = first(&path, &shard, "");
    // The file, what is named, and whether it can be mended.
    let cases = [
        (format!("{checkpoint}/model.safetensors"), checkpoint.clone(), true),
        (format!("{checkpoint}/manifest.json"), checkpoint.clone(), true),
        (token_file, shard.clone(), false),
        ("tokenizer.json".to_owned(), "tokenizer.json".to_owned(), true),
        ("releases/v1/model.safetensors".to_owned(), "releases/v1/model.safetensors".to_owned(), true),
        ("releases/v1/config.json".to_owned(), "releases/v1/config.json".to_owned(), true),
        ("releases/v1/lrpath.json".to_owned(), "releases/v1/lrpath.json".to_owned(), false),
    ];
    assert_eq!(Copied::of(&state).check(&["--all"]).0, 0, "sound before");
    for (file, named, can_be_mended) in cases {
        for way in WAYS {
            let copied = Copied::of(&state);
            let other = copied.path.join("releases/v2/README.md");
            damage(&copied.path.join(&file), way, &other);
            let (code, found, _) = copied.check(&[]);
            let told: Vec<&str> =
                found["damage"].as_array().unwrap().iter().map(|one| one["file"].as_str().unwrap()).collect();
            assert_eq!((code, &told[..]), (4, &[named.as_str()][..]), "{file} {way}");
            let hint = found["damage"][0]["hint"].as_str().unwrap();
            assert_eq!(hint.contains("`--repair`"), can_be_mended, "{file}: {hint}");
            if matches!(way, "cut" | "missing") && !file.ends_with("json") {
                assert_eq!(
                    copied.check(&["--quick"]).0,
                    if file.starts_with("releases") && way == "cut" { 0 } else { 4 }
                );
            }

            let (code, found, _) = copied.check(&["--repair"]);
            assert_eq!(code, if can_be_mended { 0 } else { 4 }, "{file} {way}: {found:#}");
            assert_eq!(found["damage"][0]["repaired"].is_string(), can_be_mended);
            let (code, found, _) = copied.check(&["--all"]);
            assert_eq!(code, if can_be_mended { 0 } else { 4 }, "{file} {way}, afterwards: {found:#}");
        }
    }
}

#[test]
fn a_journal_with_a_gap_and_a_copy_that_disagrees_are_told_apart() {
    let state = published();
    let journal = first(&state.path(), "journal", "");
    let lines = fs::read_to_string(state.path().join(&journal)).unwrap();
    let lines: Vec<&str> = lines.split_inclusive('\n').collect();
    let middle = lines.len() / 2;
    for way in ["gap", "flipped", "twice"] {
        let copied = Copied::of(&state);
        let mut damaged: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        match way {
            "gap" => drop(damaged.remove(middle)),
            "twice" => damaged.insert(middle, damaged[middle].clone()),
            _ => damaged[middle] = damaged[middle].replace("\"at\":1", "\"at\":2"),
        }
        fs::write(copied.path.join(&journal), damaged.concat()).unwrap();
        for flags in [&["--quick"][..], &["--repair"]] {
            let (code, _, told) = copied.check(flags);
            assert_eq!(code, 4, "{way}");
            assert!(
                told.contains("the journal is damaged") && told.contains("Restore the state from a backup"),
                "{way}: {told}"
            );
            assert!(told.contains(&journal), "{way}: {told}");
        }
        assert_eq!(
            fs::read_to_string(copied.path.join(&journal)).unwrap(),
            damaged.concat(),
            "nothing was changed"
        );
    }
    let copied = Copied::of(&state);
    fs::remove_dir_all(copied.path.join("tree.sled")).unwrap();
    let (code, found, _) = copied.check(&[]);
    assert_eq!(code, 0);
    assert!(found["mended"][0].as_str().unwrap().contains("copy in sled will be made again"), "{found:#}");
    assert_eq!(copied.check(&["--repair"]).0, 0);
    let (code, found, _) = copied.check(&[]);
    assert_eq!((code, found["mended"].as_array().unwrap().len()), (0, 0), "{found:#}");
    // Links that somebody has taken away.
    fs::remove_file(copied.path.join("releases/latest")).unwrap();
    assert!(copied.check(&[]).1["mended"][0].as_str().unwrap().contains("`releases/latest` does not point"));
    copied.check(&["--repair"]);
    assert!(copied.path.join("releases/latest/model.safetensors").is_file());
}

#[test]
fn nothing_is_mended_under_a_daemon() {
    let state = published();
    let daemon = Daemon::start(&state);
    let refused = state.ctl(&["check", "--repair"]);
    assert_eq!(refused.status.code(), Some(6), "{}", String::from_utf8_lossy(&refused.stderr));
    daemon.stop();
}
