//! The check is checked: what breaks a rule is planted in a copy of the sources, and must be named with its file, its
//! line and the rule.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::floors::CRATES;
use crate::rules::{self, Breach};
use crate::workspace;

/// A copy of all that the check reads, where things can be planted.
struct Copy {
    folder: TempDir,
    before: BTreeSet<Breach>,
}

impl Copy {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for file in ["Cargo.toml", "Cargo.lock"] {
            fs::copy(workspace().join(file), folder.path().join(file)).unwrap();
        }
        for (name, _) in CRATES {
            copy(&workspace().join(name).join("src"), &folder.path().join(name).join("src"));
            let manifest = Path::new(name).join("Cargo.toml");
            fs::copy(workspace().join(&manifest), folder.path().join(&manifest)).unwrap();
        }
        let before = rules::breaches(folder.path());
        Self { folder, before }
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.path().join(file)).unwrap()
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.folder.path().join(file), text).unwrap();
    }

    /// Adds lines at a file's end, and gives the number of the first one.
    fn append(&self, file: &str, text: &str) -> usize {
        let before = self.read(file);
        self.write(file, &format!("{before}{text}\n"));
        before.lines().count() + 1
    }

    fn replace(&self, file: &str, old: &str, new: &str) {
        let text = self.read(file);
        assert!(text.contains(old), "{file} has no `{old}`");
        self.write(file, &text.replacen(old, new, 1));
    }

    /// What is broken since the copy was made.
    fn found(&self) -> Vec<Breach> {
        rules::breaches(self.folder.path()).difference(&self.before).cloned().collect()
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[track_caller]
fn assert_found(found: &[Breach], file: &str, line: usize, rule: &str, words: &str) {
    let as_expected = |breach: &&Breach| {
        breach.file == Path::new(file)
            && breach.line == line
            && breach.rule == rule
            && breach.what.contains(words)
    };
    assert!(
        found.iter().any(|breach| as_expected(&breach)),
        "{file}:{line}: {rule}: {words}, but {found:#?}"
    );
}

const ABOVE: &str = "leads from ledger to scheduler, which stands above it in daemon";

/// Plants lines in a file of the ledger; the one with a mark, or else the last one, leads up to the scheduler.
#[track_caller]
fn leads_up(planted: &str) {
    let copy = Copy::new();
    let marked = planted.lines().position(|line| line.ends_with("// up"));
    let line = copy.append(TREE, planted) + marked.unwrap_or(planted.lines().count() - 1);
    let found = copy.found();
    assert_found(&found, TREE, line, rules::FLOOR, ABOVE);
    assert!(found.iter().all(|breach| [rules::FLOOR, rules::CIRCLE].contains(&breach.rule)), "{found:#?}");
}

const TREE: &str = "daemon/src/ledger/tree/mod.rs";

#[test]
fn an_import_that_leads_up_is_named() {
    leads_up("use crate::scheduler::decide::Slot;");
    leads_up("use crate::{\n    config as _,\n    scheduler::{self as planner, decide}, // up\n};");
}

#[test]
fn a_path_in_the_middle_of_the_code_is_named() {
    leads_up("fn planted() {\n    if let Some(slot) = crate::scheduler::decide::planted() {} // up\n}");
    leads_up("struct Planted(Vec<Option<crate::scheduler::decide::Slot>>);");
    leads_up("impl Planted for <crate::scheduler::decide::Slot as Iterator>::Item {}");
}

#[test]
fn a_chain_of_super_is_followed() {
    leads_up("type Planted = super::super::scheduler::decide::Slot;");
    leads_up("fn planted() {\n    super::super::scheduler::decide::planted(); // up\n}");
    let copy = Copy::new();
    let line = copy.append(TREE, "mod planted {\n    use super::super::super::scheduler::decide::Slot;\n}");
    assert_found(&copy.found(), TREE, line + 1, rules::FLOOR, ABOVE);
}

#[test]
fn globs_are_followed() {
    leads_up("use crate::scheduler::decide::*;");
    leads_up("use crate::*;\ntype Planted = scheduler::decide::Slot;");
    let copy = Copy::new();
    copy.append("daemon/src/ledger/mod.rs", "use crate::scheduler::decide::Slot as Hidden;");
    let line = copy.append(TREE, "use super::*;\ntype Planted = Hidden;");
    assert_found(&copy.found(), TREE, line + 1, rules::FLOOR, ABOVE);
}

#[test]
fn other_names_are_followed() {
    leads_up("use crate as house;\ntype Planted = house::scheduler::decide::Slot;");
    leads_up("use super::super as up;\nfn planted() { let slot = up::scheduler::decide::Slot; }");
    leads_up("fn planted() {\n    use crate as house;\n    house::scheduler::decide::planted(); // up\n}");
    let copy = Copy::new();
    copy.append(
        "daemon/src/lib.rs",
        "pub use scheduler::decide as decisions;\npub use decisions::Slot as Place;",
    );
    let line = copy.append(TREE, "use crate::Place;\nuse crate::decisions::Slot;");
    assert_found(&copy.found(), TREE, line, rules::FLOOR, ABOVE);
    assert_found(&copy.found(), TREE, line + 1, rules::FLOOR, ABOVE);
}

#[test]
fn macros_and_attributes_hide_nothing() {
    leads_up("fn planted() { println!(\"{:?}\", vec![(1, crate::scheduler::decide::SLOTS)]); }");
    leads_up("macro_rules! planted { () => { $crate::scheduler::decide::planted() } }");
    leads_up("struct Planted { #[serde(with = \"crate::scheduler::decide\")] slot: u8 }");
}

#[test]
fn rooms_beside_each_other_and_rooms_inside_a_room_have_floors_too() {
    let copy = Copy::new();
    let (decide, path) = ("daemon/src/scheduler/decide.rs", "daemon/src/ledger/path.rs");
    let beside = copy.append(decide, "use super::cut::Rules;");
    let inside = copy.append(path, "use super::tree::Tree;");
    let found = copy.found();
    let words = "`super::cut::Rules` leads from decide to cut, which stands beside it in daemon::scheduler";
    assert_found(&found, decide, beside, rules::FLOOR, words);
    let words = "leads from path to tree, which stands above it in daemon::ledger";
    assert_found(&found, path, inside, rules::FLOOR, words);
    assert_found(&found, path, inside, rules::CIRCLE, "in daemon::ledger: path -> tree -> path");
}

#[test]
fn a_path_to_another_crate_is_named() {
    let copy = Copy::new();
    let file = "artifacts/src/stream.rs";
    let line = copy.append(file, "use paradigm::Plan;\ntype Planted = ::trainer::model::Config;");
    let found = copy.found();
    let words =
        "`paradigm::Plan` leads from artifacts to paradigm, and may use no other crate of the project";
    assert_found(&found, file, line, rules::ARROW, words);
    assert_found(
        &found,
        file,
        line + 1,
        rules::ARROW,
        "`::trainer::model::Config` leads from artifacts to trainer",
    );
}

#[test]
fn a_dependency_is_named() {
    for (name, planted, rule, words) in [
        ("daemon", "trainer.workspace = true", rules::ARROW, "daemon needs trainer"),
        (
            "daemon",
            "trainer.workspace = true",
            rules::PACKAGE,
            "lrpath-daemon -> lrpath-trainer -> candle-core",
        ),
        ("daemon", "quick = { package = \"candle-nn\", version = \"0.11\" }", rules::PACKAGE, "-> candle-nn"),
        ("artifacts", "sled.workspace = true", rules::PACKAGE, "artifacts must do without sled"),
        ("paradigm", "artifacts.workspace = true", rules::ARROW, "paradigm needs artifacts"),
    ] {
        let copy = Copy::new();
        let file = format!("{name}/Cargo.toml");
        copy.replace(&file, "[dependencies]\n", &format!("[dependencies]\n{planted}\n"));
        let line = copy.read(&file).lines().position(|line| line == planted).unwrap() + 1;
        assert_found(&copy.found(), &file, line, rule, words);
    }
    let copy = Copy::new();
    copy.replace("Cargo.lock", "name = \"tokenizers\"", "name = \"candle-tokenizers\"");
    copy.replace("Cargo.lock", "name = \"serde_json\"", "name = \"tokenizers\"\nversion = \"0\"\ndependencies = [\"candle-tokenizers\"]\n\n[[package]]\nname = \"serde_json\"");
    let words = "daemon must do without candle: lrpath-daemon -> tokenizers -> candle-tokenizers";
    let manifest = copy.read("daemon/Cargo.toml");
    let line = manifest.lines().position(|line| line.starts_with("tokenizers")).unwrap() + 1;
    assert_found(&copy.found(), "daemon/Cargo.toml", line, rules::PACKAGE, words);
}

#[test]
fn a_room_without_a_floor_and_a_file_without_a_module_are_named() {
    let copy = Copy::new();
    copy.append("daemon/src/lib.rs", "mod attic;");
    copy.write("daemon/src/attic.rs", "//! Not in the plan.\n");
    copy.write("daemon/src/ledger/cellar.rs", "//! Nobody knows it.\n");
    copy.replace("artifacts/src/shard/mod.rs", "mod token_file;", "");
    fs::remove_file(copy.folder.path().join("artifacts/src/shard/token_file.rs")).unwrap();
    let found = copy.found();
    assert_found(&found, "daemon/src/attic.rs", 1, rules::ROOM, "daemon::attic has no floor in daemon");
    assert_found(&found, "daemon/src/ledger/cellar.rs", 1, rules::ORPHAN, "no `mod` declares it");
    let words = "artifacts::shard::token_file has a floor, and is no module";
    assert_found(&found, "tests/structure/floors.rs", 1, rules::FLOOR, words);
    assert_eq!(found.len(), 3, "{found:#?}");
}

#[test]
fn what_only_tests_import_runs_against_nothing() {
    let copy = Copy::new();
    copy.append(
        TREE,
        "#[cfg(test)]\nmod planted {\n    use crate::scheduler::decide::Slot;\n}\n#[cfg(all(test, unix))]\nuse \
         crate::scheduler::cut::Rules;\nimpl Tree {\n    #[cfg(test)]\n    fn planted(_: crate::scheduler::cut::Rules) \
         {}\n}",
    );
    copy.append("daemon/src/ledger/mod.rs", "#[cfg(test)]\nmod planted;");
    copy.write("daemon/src/ledger/planted.rs", "use crate::scheduler::decide::Slot;\n");
    assert_eq!(copy.found(), []);
}
