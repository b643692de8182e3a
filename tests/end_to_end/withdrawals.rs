//! A wrong file is taken back, before anything was trained on it or after that: versions have the bits of a run that never
//! saw it.

use std::collections::BTreeMap;

use harness::daemon::{Daemon, released, wait_for};
use harness::recount::recount;
use harness::state::{State, byte_config, tokens};

const TABLES: &str = "[schedule]\nwarmup_steps = 2\npeak = 1e-3\nmin = 1e-4\n[checkpoints]\nevery = 50";

struct Run {
    state: State,
    daemon: Daemon,
    dropped: u64,
}

impl Run {
    fn start() -> Self {
        Self::of("main_path = \"lazy\"\nseed = 9", "")
    }

    /// A run with more settings, at the top and in the tables.
    fn of(more: &str, tables: &str) -> Self {
        let config = byte_config(more, &format!("{TABLES}{tables}"));
        let state = State::new(&config.replace("[data]\n", "[data]\ntoken_width = \"uint16\"\n"));
        let daemon = Daemon::start(&state);
        Self { state, daemon, dropped: 0 }
    }

    fn drop_file(&mut self, name: &str, seed: u64, count: usize) {
        self.state.drop_file(name, &tokens(seed, count));
        self.dropped += 1;
        let dropped = self.dropped;
        wait_for(&self.state, "acceptance", 30, |status| {
            let shards = &status["shards"];
            shards["accepted"].as_u64().unwrap() + shards["withdrawn"].as_u64().unwrap() == dropped
        });
    }

    fn withdraw(&self, arguments: &[&str]) -> String {
        let answer = self.state.ctl(&[&["withdraw"], arguments].concat());
        assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
        String::from_utf8(answer.stdout).unwrap()
    }

    /// What a refusal says.
    fn refusal(&self, shard: &str) -> String {
        let answer = self.state.ctl(&["withdraw", shard]);
        assert_eq!(answer.status.code(), Some(1), "{}", String::from_utf8_lossy(&answer.stdout));
        String::from_utf8(answer.stderr).unwrap()
    }

    fn cut(&self, name: &str, version: usize) {
        let cut = self.state.ctl(&["cut", name]);
        assert!(cut.status.success(), "{}", String::from_utf8_lossy(&cut.stderr));
        wait_for(&self.state, "the releases", 60, |status| {
            let paradigms = status["paradigms"].as_object().unwrap();
            paradigms.keys().all(|paradigm| released(status, paradigm) >= version)
        });
    }

    /// Digests of the versions' files.
    fn end(self) -> BTreeMap<String, BTreeMap<String, String>> {
        self.daemon.stop();
        self.state.release_digests()
    }
}

#[test]
fn versions_have_the_bits_of_a_run_that_never_saw_what_was_withdrawn() {
    let mut clean = Run::start();
    clean.drop_file("a.bin", 1, 500);
    clean.drop_file("b.bin", 2, 900);
    clean.cut("first", 1);
    clean.drop_file("c.bin", 3, 700);
    clean.cut("second", 2);
    let expected = clean.end();

    let mut run = Run::start();
    run.drop_file("a.bin", 1, 500);
    run.drop_file("wrong.bin", 7, 333);
    run.drop_file("b.bin", 2, 900);
    let told = run.withdraw(&["wrong.bin"]);
    assert!(told.starts_with("wrong.bin is withdrawn with its ") && told.contains("from step "), "{told}");
    run.cut("first", 1);
    let before = run.state.transitions().len();
    let told = run.refusal("a.bin");
    assert!(
        told.contains("a.bin cannot be withdrawn without a rewind: version 1 is made of the steps up to "),
        "{told}"
    );
    assert!(run.refusal("wrong.bn").contains("did you mean `wrong.bin`?"));
    assert!(run.refusal("wrong.bin").contains("wrong.bin was withdrawn already"));
    assert_eq!(run.state.transitions().len(), before, "nothing was changed by what was refused");

    // Dropped once more, under another name.
    run.state.drop_file("again.bin", &tokens(7, 333));
    wait_for(&run.state, "rejection", 30, |status| status["shards"]["rejected"].as_u64() == Some(1));
    // A second one, behind what is cut; and a death between the two.
    run.drop_file("wrong too.bin", 8, 444);
    run.withdraw(&["wrong too.bin"]);
    run.daemon.kill();
    run.daemon = Daemon::start(&run.state);
    run.drop_file("c.bin", 3, 700);
    run.cut("second", 2);

    let listed = run.state.ask(&["shards"]);
    let accepted = listed["accepted"].as_array().unwrap();
    let withdrawn: Vec<&str> = accepted
        .iter()
        .filter(|shard| !shard["withdrawn"].is_null())
        .map(|shard| shard["name"].as_str().unwrap())
        .collect();
    assert_eq!(withdrawn, ["wrong.bin", "wrong too.bin"]);
    let provenance = std::fs::read_to_string(run.state.path().join("releases/v2/lrpath.json")).unwrap();
    let provenance: serde_json::Value = serde_json::from_str(&provenance).unwrap();
    let seen: Vec<&str> = provenance["shards"]
        .as_array()
        .unwrap()
        .iter()
        .map(|shard| shard["name"].as_str().unwrap())
        .collect();
    assert_eq!(seen, ["a.bin", "b.bin", "c.bin"]);
    let found = run.end();
    assert_eq!(found, expected);
}

const ALL: &str = "paradigm = [\"path-switching\", \"from-scratch\", \"continual\"]\nseed = 9";

/// The model of a version, for each paradigm.
fn models(digests: &BTreeMap<String, BTreeMap<String, String>>, version: u32) -> [&str; 3] {
    ["", "from-scratch/", "continual/"]
        .map(|folder| &*digests[&format!("{folder}v{version}")]["model.safetensors"])
}

/// Names of the withdrawn shards that a listing says a version saw.
fn saw(versions: &serde_json::Value, paradigm: &str, version: u32) -> Vec<String> {
    let mut lines = versions.as_array().unwrap().iter();
    let line = lines.find(|line| line["paradigm"] == paradigm && line["number"] == version).unwrap();
    serde_json::from_value(line["saw_withdrawn"].clone()).unwrap()
}

#[test]
fn after_a_rewind_versions_have_the_bits_of_a_run_that_never_saw_the_file() {
    let mut clean = Run::of(ALL, "");
    clean.drop_file("a.bin", 1, 900);
    clean.cut("first", 1);
    clean.drop_file("b.bin", 2, 700);
    clean.drop_file("c.bin", 3, 800);
    clean.cut("second", 2);
    clean.drop_file("d.bin", 4, 900);
    clean.cut("third", 3);
    let expected = clean.end();

    // One wrong file is noticed when a version was made of it.
    let mut run = Run::of(ALL, "\n[eager]\nmin_steps = 2");
    run.drop_file("a.bin", 1, 900);
    run.cut("first", 1);
    run.drop_file("wrong.bin", 7, 333);
    run.drop_file("b.bin", 2, 700);
    run.cut("wrong", 2);
    let told = run.refusal("wrong.bin");
    let refused = "wrong.bin cannot be withdrawn without a rewind: version 2 is made of the steps up to ";
    assert!(told.contains(refused) && told.contains("`--rewind`"), "{told}");
    let told = run.withdraw(&["--rewind", "wrong.bin"]);
    assert!(
        told.contains("as generation 2\n")
            && told.contains("v2 saw it: it stays as it is")
            && told.contains("the next cut makes v3 of the other data"),
        "{told}"
    );
    run.drop_file("c.bin", 3, 800);
    run.cut("second", 3);

    // Another one is noticed while the main path has come into it; then the daemon dies.
    run.drop_file("wrong too.bin", 8, 2000);
    wait_for(&run.state, "main path ahead", 60, |status| {
        let steps = &status["paradigms"]["path-switching"]["steps"];
        steps["ahead"].as_u64().unwrap() > 30
    });
    let told = run.withdraw(&["wrong too.bin", "--rewind"]);
    assert!(told.contains("generation 3"), "{told}");
    run.daemon.kill();
    run.daemon = Daemon::start(&run.state);
    run.drop_file("d.bin", 4, 900);
    run.cut("third", 4);

    let versions = run.state.ask(&["versions"]);
    let lines = String::from_utf8(run.state.ctl(&["versions"]).stdout).unwrap();
    let tree = String::from_utf8(run.state.ctl(&["tree"]).stdout).unwrap();
    for (folder, paradigm) in
        [("", "path-switching"), ("from-scratch/", "from-scratch"), ("continual/", "continual")]
    {
        for (version, wrong) in [(1, &[][..]), (2, &["wrong.bin"]), (3, &[]), (4, &[])] {
            assert_eq!(saw(&versions, paradigm, version), wrong, "{paradigm} {version}");
            let release = run.state.path().join(format!("releases/{folder}v{version}"));
            let provenance = std::fs::read_to_string(release.join("lrpath.json")).unwrap();
            let provenance: serde_json::Value = serde_json::from_str(&provenance).unwrap();
            let withdrawn = provenance["withdrawn"].as_array().map_or(0, Vec::len);
            assert_eq!(withdrawn, wrong.len(), "{paradigm} {version}");
            let card = std::fs::read_to_string(release.join("README.md")).unwrap();
            assert_eq!(card.contains("saw wrong.bin, withdrawn"), !wrong.is_empty(), "{card}");
        }
        let told = format!("version 2 of {paradigm} saw wrong.bin, which was withdrawn");
        assert!(lines.contains(&told), "{lines}");
    }
    assert!(tree.contains("generation 2: wrong.bin was withdrawn"), "{tree}");
    assert!(tree.contains("generation 3: wrong too.bin was withdrawn"), "{tree}");
    assert!(tree.contains("saw wrong.bin, which was withdrawn"), "{tree}");

    // No step was fed two batches on one path, and each that was trained is counted once.
    let paths = recount(&run.state.path());
    let status = run.state.ask(&["status"]);
    for paradigm in ["path-switching", "from-scratch", "continual"] {
        let steps = &status["paradigms"][paradigm]["steps"];
        let counted: u64 =
            ["executed", "repeated", "ahead"].map(|name| steps[name].as_u64().unwrap()).iter().sum();
        let of_paradigm = paths.iter().filter(|(path, _)| path.split('.').next() == Some(paradigm));
        assert_eq!(counted, of_paradigm.map(|(_, steps)| steps.ran).sum::<u64>(), "{paradigm}: {steps}");
    }
    run.daemon.stop();
    let check = run.state.ctl(&["check"]);
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    let found = run.state.release_digests();
    assert_eq!(models(&found, 1), models(&expected, 1));
    assert_eq!(models(&found, 3), models(&expected, 2));
    assert_eq!(models(&found, 4), models(&expected, 3));
    assert!(models(&found, 2) != models(&expected, 2));
}
