//! What a daemon takes of the machine while nothing happens, with a vocabulary as large as they come.

use std::fs;
use std::time::Duration;

use harness::daemon::{Daemon, wait_for};
use harness::processes::children;
use harness::state::{MODEL, State, byte_config, tokenizer};
use harness::text::sentences;
use serde_json::{Value, json};

use super::large_tree::resident_bytes;

/// Tokens of the vocabulary.
const VOCABULARY: usize = 128_000;
/// How long it is looked at.
const LOOKED_AT: Duration = Duration::from_secs(60);

/// Memory, and processor time for a second.
pub fn measure() -> Value {
    let model = MODEL.replace("\"vocab_size\": 300", &format!("\"vocab_size\": {VOCABULARY}"));
    let config = byte_config("seed = 3\nmain_path = \"lazy\"", "");
    let state = State::with_tokenizer(&model, &config, &large_tokenizer());
    let daemon = Daemon::start(&state);
    state.drop_file("a.txt", sentences(1, 20_000).as_bytes());
    wait_for(&state, "the shard", 120, |status| status["shards"]["accepted"] == 1);
    std::thread::sleep(Duration::from_secs(3));
    let before = ticks(daemon.pid());
    std::thread::sleep(LOOKED_AT);
    let ticks = ticks(daemon.pid()) - before;
    let resident = resident_bytes(daemon.pid());
    let readers = children(daemon.pid(), "read-shard").len();
    daemon.stop();
    // A tick is a hundredth of a second.
    let share = ticks as f64 / 100.0 / LOOKED_AT.as_secs_f64();
    println!("An idle daemon, with a vocabulary of {VOCABULARY} tokens in use");
    println!("  resident              {:8.1} MB", resident as f64 / 1e6);
    println!("  of a core             {:8.2} %", share * 100.0);
    println!("  readers that are warm {readers:8}");
    json!({ "resident_bytes": resident, "share_of_a_core": share, "warm_readers": readers })
}

/// Processor time that a process has taken, in ticks.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace();
    // `utime` and `stime`, fields 14 and 15 of the line; the third is the first behind the name.
    fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
}

/// A `tokenizer.json` with merges of two and three bytes, as many as fit.
fn large_tokenizer() -> String {
    let mut whole: Value = serde_json::from_str(&tokenizer()).unwrap();
    let mut letters: Vec<(String, u64)> = whole["model"]["vocab"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(letter, number)| (letter.clone(), number.as_u64().unwrap()))
        .collect();
    letters.sort_by_key(|(_, number)| *number);
    let letters: Vec<String> = letters.into_iter().map(|(letter, _)| letter).collect();
    let pairs =
        letters.iter().flat_map(|left| letters.iter().map(move |right| (left.clone(), right.clone())));
    let pairs: Vec<(String, String)> = pairs.collect();
    let triples = pairs
        .iter()
        .zip(letters.iter().cycle())
        .map(|((left, right), last)| (format!("{left}{right}"), last.clone()));
    let merges: Vec<(String, String)> = pairs.iter().cloned().chain(triples).take(VOCABULARY - 257).collect();
    let vocabulary = whole["model"]["vocab"].as_object_mut().unwrap();
    // 256 is the end of a text.
    for (number, (left, right)) in (257..).zip(&merges) {
        vocabulary.insert(format!("{left}{right}"), json!(number));
    }
    whole["model"]["merges"] = merges.iter().map(|(left, right)| json!([left, right])).collect();
    whole.to_string()
}
