//! Increments of every size, out of every kind of shard: very different ones, one step, many in one shard, shards
//! smaller than a sequence. What each step was fed is counted out again from the shards' own bytes.

use std::collections::{BTreeMap, BTreeSet};

use harness::daemon::{Daemon, wait_for, wait_for_releases};
use harness::definition::{Rules, Shard};
use harness::packed;
use harness::recount::{PathSteps, recount};
use harness::state::{END_OF_TEXT, State, byte_config, config};
use harness::text::{Chance, sentences};
use serde_json::{Value, json};

/// What `config` says of the stream.
const RULES: Rules = Rules {
    seed: 9,
    sequence_length: 16,
    sequences_per_step: 2,
    held_out_share: 0.05,
    held_out_block: 32,
    end_of_text: Some(END_OF_TEXT),
};

const TABLES: &str = "[schedule]\nwarmup_steps = 2\npeak = 1e-3\nmin = 1e-4\n[checkpoints]\nevery = 50";

fn started(width: usize, more: &str, tables: &str) -> (State, Daemon) {
    let config = byte_config(&format!("main_path = \"lazy\"\nseed = {}\n{more}", RULES.seed), tables);
    let width = format!("[data]\ntoken_width = \"uint{}\"\n", 8 * width);
    let state = State::new(&config.replace("[data]\n", &width));
    let daemon = Daemon::start(&state);
    (state, daemon)
}

/// Random tokens with ends of text between them, each of so many bytes.
fn token_file(seed: u64, tokens: usize, width: usize) -> Vec<u8> {
    let mut chance = Chance(seed);
    let token = |_| match chance.below(60) {
        0 => END_OF_TEXT,
        _ => chance.below(256) as u32,
    };
    (0..tokens).map(token).flat_map(|token| token.to_le_bytes()[..width].to_vec()).collect()
}

fn versions(status: &Value, paradigm: &str) -> Vec<Value> {
    let all = status["paradigms"][paradigm]["versions"].as_array().unwrap();
    all.iter().filter(|version| version["state"] != "open").cloned().collect()
}

/// The shards in the order in which they were accepted.
fn accepted(state: &State, shards: &BTreeMap<String, Shard>) -> Vec<Shard> {
    let listed = state.ask(&["shards"]);
    let names = listed["accepted"].as_array().unwrap().iter().map(|shard| shard["name"].as_str().unwrap());
    names.map(|name| shards[name].clone()).collect()
}

/// Every step of every path was fed what the shards' bytes say; all steps up to `end` were trained somewhere.
fn check(state: &State, shards: &[Shard], end: u64) -> BTreeMap<String, PathSteps> {
    let trained = recount(&state.path());
    RULES.check(shards, &trained);
    let steps: BTreeSet<u64> = trained.values().flat_map(|path| path.distinct.iter().copied()).collect();
    assert_eq!(steps, (0..end).collect(), "every step up to {end} was trained, and none beyond");
    trained
}

#[test]
fn very_different_increments_are_fed_what_their_token_shards_say() {
    let paradigms = ["path-switching", "from-scratch", "continual"];
    let (state, daemon) = started(2, &format!("paradigm = {paradigms:?}"), TABLES);
    let (mut shards, mut ends) = (Vec::new(), Vec::new());
    for (number, tokens) in [380usize, 3420, 40, 940].into_iter().enumerate() {
        let file = token_file(number as u64, tokens, 2);
        shards.push(Shard::of_tokens(&file, 2));
        state.drop_file(&format!("part{number}.bin"), &file);
        wait_for(&state, "acceptance", 30, |s| s["shards"]["accepted"].as_u64() == Some(number as u64 + 1));
        let cut = state.ctl(&["cut", &format!("part-{number}")]);
        assert!(cut.status.success(), "{}", String::from_utf8_lossy(&cut.stderr));
        ends.push(RULES.batches(&shards).len() as u64);
    }
    let sizes: Vec<u64> =
        ends.iter().scan(0, |last, end| Some(end - std::mem::replace(last, *end))).collect();
    assert_eq!(sizes, [10, 100, 1, 30], "1 : 10 : 0.1 : 3");
    for paradigm in paradigms {
        wait_for_releases(&state, paradigm, 4, 120);
    }
    let status = state.ask(&["status"]);
    let names: Vec<String> = versions(&status, "path-switching")
        .iter()
        .map(|version| version["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["part-0", "part-1", "part-2", "part-3"]);

    let trained = check(&state, &shards, ends[3]);
    let expected = |path: &str, range: std::ops::Range<u64>| {
        assert_eq!(trained[path].distinct, range.collect(), "{path}");
    };
    let details = state.ask(&["versions"]);
    for detail in details.as_array().unwrap() {
        let (paradigm, number) = (detail["paradigm"].as_str().unwrap(), detail["number"].as_u64().unwrap());
        let end = detail["end"].as_u64().unwrap();
        assert_eq!(end, ends[number as usize - 1], "version {number} of {paradigm}");
        let from = detail["branch_point"].as_u64().unwrap();
        expected(&format!("{paradigm}.v{number}.g1"), from..end);
    }
    let last_branch_point = ends[3] - sizes[3] * 6 / 10;
    expected("path-switching.main.g1", 0..last_branch_point);
    daemon.stop();
}

#[test]
fn one_text_shard_can_hold_three_increments() {
    let (state, daemon) = started(2, "", &format!("{TABLES}\n[cut]\nevery_tokens = 640"));
    let text: Vec<String> = (0..7).map(|part| sentences(part, 300)).collect();
    let text = text.join("<|endoftext|>");
    state.drop_file("big.md", text.as_bytes());
    let status = wait_for_releases(&state, "path-switching", 3, 120);
    assert_eq!(versions(&status, "path-switching").len(), 3);
    check(&state, &[Shard::of_text(&text)], 60);
    daemon.stop();
}

#[test]
fn an_increment_can_be_one_step() {
    let (state, daemon) = started(4, "", "[schedule]\nwarmup_steps = 0\n[cut]\nevery_tokens = 32");
    let file = token_file(2, 110, 4);
    state.drop_file("small.bin", &file);
    let shard = Shard::of_tokens(&file, 4);
    let steps = RULES.batches(std::slice::from_ref(&shard)).len() as u64;
    assert_eq!(steps, 3);
    let status = wait_for_releases(&state, "path-switching", 3, 60);
    let first = &versions(&status, "path-switching")[0];
    assert_eq!(first["branch_point"].as_u64(), Some(0));
    assert_eq!(first["decay_steps"].as_u64(), Some(1));
    check(&state, &[shard], steps);
    daemon.stop();
}

#[test]
fn packed_shards_and_those_behind_a_header_are_what_is_in_them() {
    let (state, daemon) = started(4, "", TABLES);
    let text = sentences(1, 3000);
    let lines: String =
        (0..40).map(|part| json!({ "text": sentences(part, 60) }).to_string() + "\n").collect();
    let (narrow, wide) = (token_file(3, 900, 2), token_file(4, 901, 4));
    let files = [
        ("a.txt.gz", packed::gzip(text.as_bytes()), Shard::of_text(&text)),
        ("b.jsonl.zst", packed::zstandard(lines.as_bytes()), Shard::of_json_lines(&lines)),
        ("c.bin", packed::with_header_of_llm_c(false, &narrow), Shard::of_tokens(&narrow, 2)),
        ("d.bin.gz", packed::gzip(&packed::with_header_of_llm_c(true, &wide)), Shard::of_tokens(&wide, 4)),
        ("e.BIN.ZST", packed::zstandard(&wide), Shard::of_tokens(&wide, 4)),
    ];
    let mut shards = BTreeMap::new();
    for (name, file, shard) in files {
        state.drop_file(name, &file);
        shards.insert(name.to_owned(), shard.within(&file));
    }
    wait_for(&state, "acceptance", 60, |s| s["shards"]["accepted"].as_u64() == Some(5));
    let cut = state.ctl(&["cut"]);
    assert!(cut.status.success(), "{}", String::from_utf8_lossy(&cut.stderr));
    wait_for_releases(&state, "path-switching", 1, 60);
    let shards = accepted(&state, &shards);
    let steps = RULES.batches(&shards).len() as u64;
    assert!(steps > 100);
    check(&state, &shards, steps);
    daemon.stop();
}

#[test]
fn five_hundred_shards_smaller_than_a_sequence_are_one_increment() {
    let (state, daemon) = started(4, "", TABLES);
    let mut shards = BTreeMap::new();
    for number in 0..500u64 {
        let (name, file, shard) = match number % 3 {
            0 => {
                let text = format!("crumb {number}");
                (format!("crumb{number:03}.txt"), text.clone().into_bytes(), Shard::of_text(&text))
            }
            1 => {
                let lines = format!("{{\"text\": \"{number}\"}}\n{{\"text\": \"bread\"}}\n");
                (format!("crumb{number:03}.jsonl"), lines.clone().into_bytes(), Shard::of_json_lines(&lines))
            }
            _ => {
                let file = token_file(number, 5 + number as usize % 10, 4);
                (format!("crumb{number:03}.bin"), file.clone(), Shard::of_tokens(&file, 4))
            }
        };
        state.drop_file(&name, &file);
        shards.insert(name, shard);
    }
    wait_for(&state, "acceptance", 60, |s| s["shards"]["accepted"].as_u64() == Some(500));
    let cut = state.ctl(&["cut"]);
    assert!(cut.status.success(), "{}", String::from_utf8_lossy(&cut.stderr));
    let status = wait_for_releases(&state, "path-switching", 1, 60);
    let shards = accepted(&state, &shards);
    let steps = RULES.batches(&shards).len() as u64;
    let trained = check(&state, &shards, steps);
    let distinct: usize = trained.values().map(|steps| steps.distinct.len()).sum();
    assert_eq!(Some(distinct as u64), status["paradigms"]["path-switching"]["steps"]["executed"].as_u64());
    daemon.stop();
}

/// Who has tokens only may have no tokenizer here. Such versions were trained and then waited for a `tokenizer.json` for ever.
#[test]
fn tokens_alone_make_versions_that_have_no_tokenizer() {
    let config = config(&format!("seed = {}", RULES.seed), TABLES)
        .replace("train_bytes = 2000", "train_bytes = 2000\nend_of_text = false")
        .replace("[data]\n", "[data]\ntoken_width = \"uint16\"\n");
    let state = State::new(&config);
    let daemon = Daemon::start(&state);
    state.drop_file("tokens.bin", &token_file(3, 1000, 2));
    wait_for(&state, "acceptance", 30, |status| status["shards"]["accepted"] == json!(1));
    state.ask(&["cut"]);
    wait_for_releases(&state, "path-switching", 1, 60);
    let release = state.path().join("releases/v1");
    assert!(!release.join("tokenizer.json").exists() && !release.join("tokenizer_config.json").exists());
    let card = std::fs::read_to_string(release.join("README.md")).unwrap();
    assert!(card.contains("There is no tokenizer here"), "{card}");
    let provenance: Value =
        serde_json::from_slice(&std::fs::read(release.join("lrpath.json")).unwrap()).unwrap();
    assert_eq!(
        (&provenance["stream"]["tokenizer"], &provenance["stream"]["end_of_text"]),
        (&json!(null), &json!(null))
    );
    daemon.stop();
    assert_eq!(state.ask(&["check", "--all"])["damage"], json!([]));
}
