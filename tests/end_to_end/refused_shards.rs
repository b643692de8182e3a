//! Shards that cannot be taken: each goes to `rejected/` with the reason and the place, the rest goes on, and the same
//! file mended is taken.

use std::path::Path;

use harness::daemon::{Daemon, wait_for, wait_for_releases};
use harness::packed;
use harness::processes::{Standing, children};
use harness::state::{State, byte_config};
use harness::text::sentences;
use serde_json::Value;

const TABLES: &str = "[schedule]\nwarmup_steps = 2\npeak = 1e-3\nmin = 1e-4\n[checkpoints]\nevery = 50";

fn started() -> (State, Daemon) {
    let state = State::new(&byte_config("main_path = \"lazy\"", TABLES));
    let daemon = Daemon::start(&state);
    (state, daemon)
}

fn accepted(status: &Value) -> u64 {
    status["shards"]["accepted"].as_u64().unwrap()
}

#[test]
fn a_refused_shard_has_its_reason_and_its_place_and_is_taken_when_mended() {
    let tokens = |tokens: &[u16]| tokens.iter().flat_map(|token| token.to_le_bytes()).collect::<Vec<u8>>();
    // The name, what is wrong, what is said of it, and the same mended.
    let (packed, blank) = (packed::gzip(sentences(2, 500).as_bytes()), vec![b'\n'; 64 << 20]);
    let table: [(&str, Vec<u8>, &str, Vec<u8>); 10] = [
        (
            "broken.txt",
            b"fine\nbro\xffken\n".to_vec(),
            "broken.txt:2: broken UTF-8 at byte 8 of the file",
            b"fine\nbroken\n".to_vec(),
        ),
        ("empty.txt", Vec::new(), "empty.txt: the file is empty", b"a word".to_vec()),
        (
            "missing.jsonl",
            b"{\"text\": \"one\"}\n{\"body\": \"two\"}\n".to_vec(),
            "missing.jsonl:2: the field `text` is missing (line at byte 16 of the file)",
            b"{\"text\": \"one\"}\n{\"text\": \"two\"}\n".to_vec(),
        ),
        (
            "torn.jsonl",
            b"{\"text\": \"one\"}\n{\"text\": \"tw".to_vec(),
            "torn.jsonl:2:",
            b"{\"text\": \"one\"}\n{\"text\": \"tw\"}\n".to_vec(),
        ),
        (
            "outside.bin",
            tokens(&[1, 2, 3, 300, 5]),
            "outside.bin: token 3 (byte 6 of the file) is 300, which is outside the vocabulary of 300 tokens",
            tokens(&[1, 2, 3, 299, 5]),
        ),
        (
            "odd.bin",
            vec![1, 0, 2],
            "odd.bin: 3 bytes are no whole number of tokens of 2 bytes",
            vec![1, 0, 2, 0],
        ),
        (
            "cut.txt.gz",
            packed[..packed.len() - 9].to_vec(),
            "cut.txt.gz: the archive cannot be unpacked within its first ",
            packed.clone(),
        ),
        (
            "bomb.jsonl.zst",
            packed::zstandard(&blank),
            "bomb.jsonl.zst: the archive holds more than ",
            packed::zstandard(b"{\"text\": \"one\"}\n"),
        ),
        (
            "promise.bin",
            packed::with_header_of_llm_c(false, &tokens(&[1, 2, 3]))[..1028].to_vec(),
            "promise.bin: its header promises 3 tokens, but 2 follow",
            packed::with_header_of_llm_c(false, &tokens(&[1, 2])),
        ),
        ("picture.png", b"png".to_vec(), "picture.png: this file format is not known", b"text".to_vec()),
    ];
    let (state, daemon) = started();
    for (name, bytes, _, _) in &table {
        state.drop_file(name, bytes);
    }
    state.drop_file("good.txt", sentences(1, 2000).as_bytes());
    wait_for(&state, "every file's end", 30, |s| {
        accepted(s) == 1 && s["shards"]["rejected"].as_u64() == Some(table.len() as u64)
    });
    let listed = state.ask(&["shards"]);
    for (name, bytes, reason, _) in &table {
        let rejected = listed["rejected"].as_array().unwrap();
        let told = rejected.iter().find(|file| file["name"] == *name).unwrap()["reason"].as_str().unwrap();
        assert!(told.starts_with(reason), "{name}: {told}");
        assert_eq!(&std::fs::read(state.path().join("rejected").join(name)).unwrap(), bytes, "{name}");
        let note = state.path().join("rejected").join(format!("{name}.reason"));
        assert!(std::fs::read_to_string(note).unwrap().starts_with(told), "{name}");
        assert!(!state.path().join("data").join(name).exists(), "{name}");
    }
    let drawn = String::from_utf8(state.ctl(&["shards"]).stdout).unwrap();
    assert!(drawn.contains("broken.txt:2: broken UTF-8 at byte 8 of the file"), "{drawn}");

    // Mended, each is taken under its name; a file of a format that is not known, under another one.
    for (name, _, _, mended) in &table {
        state.drop_file(&name.replace(".png", ".md"), mended);
    }
    wait_for(&state, "the mended files", 30, |s| accepted(s) == 1 + table.len() as u64);
    assert!(state.ctl(&["cut"]).status.success());
    wait_for_releases(&state, "path-switching", 1, 60);
    daemon.stop();
}

#[test]
fn a_file_that_changes_while_it_is_read_waits_until_it_stands_still() {
    let (state, daemon) = started();
    // The readers are there when they have read something.
    state.drop_file("first.txt", b"first");
    wait_for(&state, "acceptance", 30, |s| accepted(s) == 1);
    let data = state.path().join("data");
    let file = data.join("restless.txt");
    let mut text = sentences(3, 2000);
    let waiting = |state: &State| state.ask(&["shards"])["waiting"][0].clone();
    let until = |what: &str, is_so: &dyn Fn(&Value) -> bool| {
        wait_for(&state, what, 30, |_| is_so(&waiting(&state)));
    };
    std::fs::write(&file, &text).unwrap();
    for change in 1..=3u64 {
        let readers = Standing::still(children(daemon.pid(), "read-shard"));
        until("the file's turn", &|file| file["why"] == "it is being read");
        // Somebody writes on while the readers cannot get ahead.
        text.push_str(&format!("change {change}\n"));
        std::fs::write(&file, &text).unwrap();
        drop(readers);
        until("the change", &|file| file["changes"].as_u64() == Some(change));
    }
    let told = waiting(&state);
    let why = told["why"].as_str().unwrap();
    let is_told = why == "it changed 3 times while it was read; it is taken when it stands still";
    assert!(is_told || why == "it is being read", "{told}");
    assert_eq!(accepted(&state.ask(&["status"])), 1, "it has not been taken");

    wait_for(&state, "acceptance", 30, |s| accepted(s) == 2);
    let shard = state.ask(&["shards"])["accepted"][1].clone();
    assert_eq!(shard["digest"].as_str(), Some(blake3::hash(text.as_bytes()).to_hex().as_str()));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text, "it was never moved");
    assert_eq!(entries(&state.path().join("rejected")), 0);
    daemon.stop();
}

fn entries(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}
