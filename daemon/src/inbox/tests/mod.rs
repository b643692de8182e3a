//! The whole inbox, with real files, real children and a ledger in memory.

mod refusals;
mod withdrawn;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use artifacts::Digest;
use artifacts::job::{Optimizer, Precision};
use artifacts::tokens::ShardTokens as Written;
use paradigm::Paradigm;
use proptest::prelude::*;

use super::reader::{Answer, Child, Limits, Reading, Request, Session, ShardFile};
use super::{Inbox, InboxHandle, InboxSettings, reader};
use crate::ledger::transition::{CutNumber, CutSource, EndOfText, Fixed, TokenizerSource, Transition};
use crate::ledger::tree::{CutOutcome, Tree};
use crate::ledger::{Clock, Ledger, LedgerError, SystemClock};
use crate::tokenizer::{Corpus, FILE, Tokenizer, train};

const IS_CHILD: &str = "LRPATH_TEST_IS_CHILD";
const SEPARATOR: &str = "<|endoftext|>";
const VOCABULARY: u32 = 300;
const PATIENCE: Duration = Duration::from_secs(60);

/// Not a test of its own: the others start the test program once more, to run only this.
#[test]
fn the_child() {
    if std::env::var_os(IS_CHILD).is_some() {
        println!();
        reader::child();
        std::process::exit(0);
    }
}

/// The command that starts a child.
fn command() -> Vec<PathBuf> {
    let own = std::env::current_exe().unwrap();
    let arguments = ["--exact", "inbox::tests::the_child", "--nocapture", "--test-threads=1"];
    let words = ["/usr/bin/env".into(), format!("{IS_CHILD}=1").into(), own];
    words.into_iter().chain(arguments.map(PathBuf::from)).collect()
}

/// From here on, this thread and those that it starts may only read and write what its user may: root is a user like others.
pub(super) fn without_privileges() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let mut held = capabilities(None).unwrap();
    held.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
    set_capabilities(None, held).unwrap();
}

/// A state folder.
struct State {
    folder: tempfile::TempDir,
    fixed: Fixed,
    limits: Limits,
    still: u64,
    ledger: Ledger,
}

impl State {
    /// One with a tokenizer.
    fn given() -> Self {
        let mut corpus = Corpus::new(Some(SEPARATOR));
        corpus.add(&"the cat sat on the mat and the hat sat on the cat\n".repeat(30)).unwrap();
        let bytes = train(corpus, VOCABULARY).unwrap();
        let state = Self::new(TokenizerSource::Given { digest: Digest::of(&bytes) });
        fs::write(state.path().join(FILE), bytes).unwrap();
        state
    }

    /// One that trains its tokenizer on so many bytes.
    fn trained(train_bytes: u64) -> Self {
        Self::new(TokenizerSource::Trained { vocabulary: VOCABULARY, train_bytes })
    }

    fn new(tokenizer: TokenizerSource) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fixed = Fixed {
            format: 1,
            paradigms: vec![Paradigm::PathSwitching],
            model: serde_json::json!({ "vocab_size": VOCABULARY }),
            weights: None,
            tokenizer,
            end_of_text: Some(EndOfText::Text(SEPARATOR.into())),
            mask_documents: false,
            seed: 7,
            sequence_length: 8,
            sequences_per_step: 2,
            held_out_share: 0.1,
            held_out_block: 16,
            peak: 3e-4,
            min: 3e-5,
            warmup_steps: 0,
            optimizer: Optimizer { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: 1.0 },
            precision: Precision::F32,
        };
        let limits = Limits { command: command(), memory: 4 << 30, time: Duration::from_secs(60) };
        let ledger = Ledger::in_memory(Arc::new(SystemClock));
        ledger.commit(Transition::Initialized(Box::new(fixed.clone()))).unwrap();
        let state = Self { folder, fixed, limits, still: 200, ledger };
        fs::create_dir(state.data()).unwrap();
        state
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    fn reading(&self) -> Reading {
        Reading {
            tokens: self.path().join("tokens"),
            tokenizer: self.path().join(FILE),
            field: "text".to_owned(),
            wide: false,
            vocabulary: VOCABULARY,
            longest_document: 64 << 20,
            end_of_text: self.fixed.end_of_text.clone(),
            seed: self.fixed.seed,
            block: self.fixed.held_out_block,
            share: self.fixed.held_out_share,
        }
    }

    fn settings(&self) -> InboxSettings {
        InboxSettings {
            folder: self.data(),
            state: self.path().to_owned(),
            reading: self.reading(),
            limits: self.limits.clone(),
            still: self.still,
            scan_every: Duration::from_secs(5),
            quiet: None,
            train_bytes: match self.fixed.tokenizer {
                TokenizerSource::Trained { train_bytes, .. } => train_bytes,
                TokenizerSource::Given { .. } => 0,
            },
            tokens_of_a_step: 17,
        }
    }

    fn start(&self) -> Running<'_> {
        self.start_with(|_| {})
    }

    /// Starts an inbox after something was done to it, on its own thread.
    fn start_with(&self, prepare: impl FnOnce(&mut Inbox) + Send + 'static) -> Running<'_> {
        self.ledger.commit(Transition::DaemonStarted { program: "test".to_owned() }).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (mut inbox, handle) = Inbox::new(self.settings(), self.ledger.clone(), clock);
        let (stop, shutdown) = tokio::sync::watch::channel(false);
        let thread = std::thread::spawn(move || {
            prepare(&mut inbox);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(inbox.run(shutdown))
        });
        Running { state: self, handle, stop, thread: Some(thread) }
    }

    /// Writes a file under a hidden name, and renames it into place.
    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let hidden = self.data().join(".part");
        fs::write(&hidden, bytes).unwrap();
        fs::create_dir_all(self.data().join(name).parent().unwrap()).unwrap();
        fs::rename(hidden, self.data().join(name)).unwrap();
    }

    fn names(&self) -> Vec<String> {
        self.ledger.read(|tree| tree.shards().iter().map(|shard| shard.name.clone()).collect())
    }

    fn reasons(&self) -> Vec<String> {
        self.ledger.read(|tree| tree.rejected().values().map(|rejected| rejected.reason.clone()).collect())
    }

    fn records(&self) -> Vec<Transition> {
        let records = self.ledger.records(0, usize::MAX).unwrap();
        records.into_iter().map(|record| record.transition).collect()
    }
}

struct Running<'s> {
    state: &'s State,
    handle: InboxHandle,
    stop: tokio::sync::watch::Sender<bool>,
    thread: Option<JoinHandle<Result<(), LedgerError>>>,
}

impl Running<'_> {
    fn wait(&self, what: &str, wanted: impl Fn(&Tree) -> bool) {
        self.wait_until(what, || self.state.ledger.read(&wanted));
    }

    fn wait_until(&self, what: &str, wanted: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !wanted() {
            let waiting = self.handle.waiting();
            assert!(Instant::now() < end, "{what} did not come: {waiting:?} {:?}", self.state.records());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn wait_for_shards(&self, count: usize) {
        self.wait("the shards", |tree| tree.shards().len() >= count);
    }

    fn refuse(&self, cut: CutNumber) {
        self.state.ledger.commit(Transition::CutRefused { cut, reason: "a test".to_owned() }).unwrap();
    }

    fn end(mut self) {
        self.stop.send(true).unwrap();
        self.thread.take().unwrap().join().unwrap().unwrap();
        self.state.ledger.commit(Transition::DaemonStopped).unwrap();
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn a_file_that_is_moved_in_is_accepted_with_its_tokens() {
    let state = State::given();
    let inbox = state.start();
    let text = format!("the cat sat{SEPARATOR}on the mat");
    state.put("sub/a.txt", &text);
    inbox.wait_for_shards(1);
    let shard = state.ledger.read(|tree| tree.shards()[0].clone());
    assert_eq!((shard.name.as_str(), shard.digest), ("sub/a.txt", Digest::of(text.as_bytes())));
    let written = Written::open(&state.path().join("tokens").join(shard.digest.to_string())).unwrap();
    let tokens = shard.tokens.unwrap();
    assert_eq!((tokens.stream, tokens.documents), (written.stream.len() as u64, 2));
    let tokenizer = Tokenizer::load(&state.path().join(FILE)).unwrap();
    let all = written.stream.len() + written.held_out.len();
    assert!(all >= tokenizer.encode(&text).unwrap().tokens.len());
    let kinds = state.records();
    let started = kinds.iter().position(|t| matches!(t, Transition::ReadingStarted { .. })).unwrap();
    let accepted = kinds.iter().position(|t| matches!(t, Transition::ShardAccepted { .. })).unwrap();
    assert!(started < accepted, "the attempt is journalled before the child sees the file");
    assert!(state.ledger.read(|tree| tree.readings().is_empty()));
    inbox.end();
}

#[test]
fn a_file_that_is_copied_in_is_accepted_when_it_stands_still() {
    let state = State::given();
    let inbox = state.start();
    fs::write(state.data().join("a.txt"), "the cat").unwrap();
    inbox.wait_for_shards(1);
    inbox.end();
}

#[test]
fn a_marker_beside_a_file_makes_it_complete() {
    let mut state = State::given();
    state.still = 3_600_000;
    let inbox = state.start();
    fs::write(state.data().join("a.txt"), "the cat").unwrap();
    fs::write(state.data().join("b.txt"), "the hat").unwrap();
    fs::write(state.data().join("a.txt.ready"), "").unwrap();
    inbox.wait_for_shards(1);
    assert_eq!(state.names(), ["a.txt"]);
    // The list is what the last look left: an accepted file may stand in it for a moment more.
    inbox.wait_until("the list", || inbox.handle.waiting().len() == 1);
    assert!(!inbox.handle.is_quiet(), "b.txt may be complete");
    inbox.end();
}

#[test]
fn the_same_bytes_are_one_shard_under_any_name_and_at_any_time() {
    let state = State::given();
    let inbox = state.start();
    state.put("a.txt", "the cat");
    inbox.wait_for_shards(1);
    state.put("b.txt", "the cat");
    inbox.wait("the duplicate", |tree| tree.duplicates().contains_key("b.txt"));
    inbox.end();
    // At once, and while no daemon was there.
    for name in ["c.txt", "d.txt", "e.md"] {
        state.put(name, "the mat");
    }
    let inbox = state.start();
    inbox.wait("the duplicates", |tree| tree.duplicates().len() == 3);
    assert_eq!(state.names(), ["a.txt", "c.txt"]);
    let before = state.ledger.read(Tree::position);
    inbox.end();
    // What is known is not read again.
    let inbox = state.start();
    inbox.wait_until("the end of the first scan", || inbox.handle.is_quiet());
    assert_eq!(state.ledger.read(Tree::position), before + 2, "it stopped and started, nothing else");
    inbox.end();
}

#[test]
fn broken_text_is_rejected_with_its_place_and_a_mended_file_is_taken() {
    let state = State::given();
    let inbox = state.start();
    state.put("a.txt", b"the cat\nthe \xff hat");
    inbox.wait("the rejection", |tree| tree.rejected().len() == 1);
    assert!(state.reasons()[0].contains("a.txt:2: broken UTF-8 at byte 12"), "{:?}", state.reasons());
    let rejected = state.path().join("rejected");
    assert!(rejected.join("a.txt").is_file() && !state.data().join("a.txt").exists());
    assert!(fs::read_to_string(rejected.join("a.txt.reason")).unwrap().contains("broken UTF-8 at byte 12"));
    state.put("a.txt", "the cat\nthe hat");
    inbox.wait_for_shards(1);
    assert_eq!(state.names(), ["a.txt"]);
    inbox.end();
}

#[test]
fn each_bad_file_is_rejected_with_its_reason_and_the_rest_goes_on() {
    let state = State::given();
    let cases: [(&str, &[u8], &str); 7] = [
        ("bad0.txt", b"", "the file is empty"),
        ("bad1.png", b"text", "this file format is not known"),
        ("bad2.jsonl", b"{\"text\":\"a\"}\n{\"body\":1}\n", "bad2.jsonl:2: the field `text` is missing"),
        ("bad3.jsonl", b"{\"text\":\"a\"}\n{\"text\":7}\n", "bad3.jsonl:2: the field `text` holds a number"),
        ("bad4.jsonl", b"{\"text\":\"a\"}\n{\"text\":\n", "bad4.jsonl:2:"),
        ("bad5.bin", b"\x01\x00\xff\xff", "token 1 (byte 2 of the file) is 65535"),
        ("bad6.bin", b"\x01\x00\x02", "no whole number of tokens"),
    ];
    for (name, bytes, _) in cases {
        state.put(name, bytes);
    }
    state.put("good.txt", "the cat");
    state.put("good.bin", [1, 0, 2, 0]);
    let inbox = state.start();
    inbox.wait_for_shards(2);
    inbox.wait("the rejections", |tree| tree.rejected().len() == cases.len());
    for ((name, _, expected), reason) in cases.iter().zip(state.reasons()) {
        assert!(reason.contains(expected), "{name}: {reason}");
    }
    assert!(state.ledger.read(|tree| tree.readings().is_empty()));
    inbox.end();
}

#[test]
fn many_small_shards_are_accepted_in_byte_order_of_their_names() {
    let state = State::given();
    let mut names: Vec<String> = (0..500).map(|i| format!("{}/{i}.txt", ["a", "b", "B"][i % 3])).collect();
    for name in &names {
        state.put(name, name);
    }
    let inbox = state.start();
    inbox.wait_for_shards(500);
    names.sort();
    assert_eq!(state.names(), names);
    inbox.end();
}

#[test]
fn a_file_that_changes_while_it_is_read_waits_and_is_not_moved() {
    let state = State::given();
    let inbox = state.start();
    let text = "the cat sat on the mat and then on another hat\n".repeat(100_000);
    state.put("a.txt", &text);
    inbox.wait("the reading", |tree| tree.readings().values().any(|reading| reading.open));
    let mut file = fs::OpenOptions::new().append(true).open(state.data().join("a.txt")).unwrap();
    std::io::Write::write_all(&mut file, b"more").unwrap();
    drop(file);
    inbox.wait_for_shards(1);
    let shard = state.ledger.read(|tree| tree.shards()[0].clone());
    assert_eq!(shard.digest, Digest::of(format!("{text}more").as_bytes()));
    assert!(state.records().iter().any(|t| matches!(t, Transition::ReadingAbandoned { .. })));
    assert!(state.data().join("a.txt").exists());
    let kept = fs::read_dir(state.path().join("tokens")).unwrap().count();
    assert_eq!(kept, 1, "nothing is kept of the bytes that were replaced");
    inbox.end();
}

#[test]
fn what_is_no_regular_file_or_not_ours_is_left_alone() {
    let state = State::given();
    let outside = state.path().join("secret.txt");
    fs::write(&outside, "the cat").unwrap();
    std::os::unix::fs::symlink(&outside, state.data().join("a.txt")).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(state.data().join("b.txt")).status().unwrap();
    assert!(pipe.success());
    for name in [".hidden.txt", "c.txt.tmp", "d.part", "e.crdownload"] {
        fs::write(state.data().join(name), "the hat").unwrap();
    }
    let inbox = state.start();
    state.put("z.txt", "the mat");
    inbox.wait_for_shards(1);
    assert_eq!(state.names(), ["z.txt"]);
    assert!(state.reasons().is_empty());
    assert_eq!(fs::read_dir(state.data()).unwrap().count(), 7);
    inbox.end();
}

#[test]
fn a_cut_waits_for_the_files_of_its_moment_and_later_files_wait_behind_it() {
    let mut state = State::given();
    state.still = 1_500;
    let inbox = state.start();
    fs::write(state.data().join("early.txt"), "the cat").unwrap();
    fs::write(state.data().join("gone.txt"), "the dog").unwrap();
    let cut = inbox.handle.request_cut(Some("june".to_owned())).unwrap();
    assert!(state.ledger.read(|tree| tree.cut_files(cut).eq(["early.txt", "gone.txt"])));
    state.put("late.txt", "the hat");
    fs::remove_file(state.data().join("gone.txt")).unwrap();
    inbox.wait("the cut's turn", |tree| tree.cut_files(cut).next().is_none());
    assert_eq!(state.names(), ["early.txt"]);
    let behind = inbox.handle.waiting();
    assert!(
        behind.iter().any(|file| file.name == "late.txt" && file.why.contains("after cut")),
        "{behind:?}"
    );
    let again = inbox.handle.request_cut(Some("june".to_owned())).unwrap_err();
    assert!(again.to_string().contains("waits already"), "{again}");
    for bad in ["", "v7", "../up", "a b"] {
        assert!(inbox.handle.request_cut(Some(bad.to_owned())).is_err(), "{bad}");
    }
    inbox.refuse(cut);
    inbox.wait_for_shards(2);
    assert_eq!(state.names(), ["early.txt", "late.txt"]);
    let kinds = state.records();
    assert_eq!(kinds.iter().filter(|t| matches!(t, Transition::CutFileGone { .. })).count(), 1);
    inbox.end();
}

#[test]
fn a_marker_counts_once_however_long_it_stays() {
    let state = State::given();
    let inbox = state.start();
    fs::write(state.data().join("june.cut"), "").unwrap();
    inbox.wait("the cut", |tree| tree.cuts().len() == 1);
    // Written to right after it was made, and looked at often.
    fs::write(state.data().join("june.cut"), "please").unwrap();
    let (cut, source) = state.ledger.read(|tree| {
        let (cut, request) = tree.waiting_cut().unwrap();
        (cut, request.source.clone())
    });
    assert!(matches!(source, CutSource::Marker { file, .. } if file == "june.cut"));
    inbox.refuse(cut);
    inbox.end();
    let inbox = state.start();
    state.put("a.txt", "the cat");
    inbox.wait_for_shards(1);
    assert_eq!(state.ledger.read(|tree| tree.cuts().len()), 1);
    // A name that cannot be is refused in the journal, with words.
    fs::write(state.data().join("v9.cut"), "").unwrap();
    inbox.wait("the refusal", |tree| tree.cuts().len() == 2);
    let outcome = state.ledger.read(|tree| tree.cuts().values().next_back().unwrap().outcome.clone());
    assert!(matches!(outcome, CutOutcome::Refused { reason, .. } if reason.contains("`v9`")));
    // Which requests somebody still sees in the folder.
    let all: Vec<CutNumber> = state.ledger.read(|tree| tree.cuts().keys().copied().collect());
    inbox.wait_until("both markers", || inbox.handle.markers().into_iter().eq(all.iter().copied()));
    fs::remove_file(state.data().join("june.cut")).unwrap();
    inbox.wait_until("the last marker", || inbox.handle.markers().into_iter().eq([all[1]]));
    inbox.end();
}

#[test]
fn the_tokenizer_is_trained_on_the_shortest_prefix_that_is_enough() {
    let state = State::trained(100);
    let text = |i: u32| format!("the {i} cat sat on the {i} mat and the other {i} cat sat\n");
    for i in 0..6 {
        state.put(&format!("{i}.txt"), text(i));
    }
    state.put("2.bin", [1, 0, 2, 0]);
    let inbox = state.start();
    inbox.wait("all tokens", |tree| {
        tree.shards().len() == 7 && tree.shards().iter().all(|s| s.tokens.is_some())
    });
    inbox.end();
    let kinds = state.records();
    let planned = kinds.iter().find_map(|t| match t {
        Transition::TokenizerPlanned { shards, bytes } => Some((*shards, *bytes)),
        _ => None,
    });
    let length = text(0).len() as u64;
    assert_eq!(planned, Some((2, 2 * length)), "two texts of {length} bytes are enough");
    let file = fs::read(state.path().join(FILE)).unwrap();
    assert_eq!(state.ledger.read(|tree| tree.run().tokenizer), Some(Digest::of(&file)));
    let mut corpus = Corpus::new(Some(SEPARATOR));
    (0..2).for_each(|i| corpus.add(&text(i)).unwrap());
    assert!(file == train(corpus, VOCABULARY).unwrap());
    assert_eq!(
        fs::read_dir(state.path().join("sources")).unwrap().count(),
        0,
        "copies that have served are gone"
    );
    let tokenised: Vec<Digest> = kinds
        .iter()
        .filter_map(|t| match t {
            Transition::ShardTokenised { digest, .. } => Some(*digest),
            _ => None,
        })
        .collect();
    let order = state.ledger.read(|tree| tree.shards().iter().map(|shard| shard.digest).collect::<Vec<_>>());
    let expected: Vec<Digest> = order.into_iter().filter(|digest| tokenised.contains(digest)).collect();
    assert_eq!(tokenised, expected, "in the order of acceptance");
    assert!(tokenised.len() >= 2);
}

#[test]
fn a_cut_has_the_tokenizer_trained_on_all_before_it() {
    let state = State::trained(1 << 30);
    state.put("a.txt", "the cat sat on the mat and that was that");
    let inbox = state.start();
    inbox.wait_for_shards(1);
    assert!(state.ledger.read(|tree| tree.shards()[0].tokens.is_none()));
    assert_eq!(fs::read_dir(state.path().join("sources")).unwrap().count(), 1);
    // The original may go.
    fs::remove_file(state.data().join("a.txt")).unwrap();
    inbox.handle.request_cut(None).unwrap();
    inbox.wait("the tokens", |tree| tree.shards()[0].tokens.is_some());
    assert_eq!(state.ledger.read(|tree| tree.run().end_of_text), Some(0));
    inbox.end();
}

#[test]
fn a_packed_text_counts_for_what_is_in_it() {
    let text = "the cat sat on the mat and the other cat sat\n".repeat(30);
    let packed = zstd::encode_all(text.as_bytes(), 3).unwrap();
    // Enough for the tokenizer at once; and where that waits for a cut.
    for enough in [1000, 1 << 30] {
        assert!(packed.len() < 100 && text.len() > 1000);
        let state = State::trained(enough);
        state.put("a.txt.zst", &packed);
        let inbox = state.start();
        inbox.wait_for_shards(1);
        if enough > 1000 {
            inbox.handle.request_cut(None).unwrap();
        }
        inbox.wait("the tokens", |tree| tree.shards()[0].tokens.is_some());
        inbox.end();
        let planned = state.records().into_iter().find_map(|t| match t {
            Transition::TokenizerPlanned { shards, bytes } => Some((shards, bytes)),
            _ => None,
        });
        assert_eq!(planned, Some((1, text.len() as u64)));
        let mut corpus = Corpus::new(Some(SEPARATOR));
        corpus.add(&text).unwrap();
        assert!(fs::read(state.path().join(FILE)).unwrap() == train(corpus, VOCABULARY).unwrap());
        let shard = state.ledger.read(|tree| tree.shards()[0].clone());
        assert_eq!((shard.file.bytes, shard.text_bytes()), (packed.len() as u64, text.len() as u64));
    }
}

#[test]
fn a_cut_that_cannot_fill_a_step_trains_nothing() {
    let state = State::trained(1 << 30);
    state.put("a.txt", "too little");
    let inbox = state.start();
    inbox.wait_for_shards(1);
    let cut = inbox.handle.request_cut(None).unwrap();
    state.put("b.txt", "and a little more, which is enough");
    inbox.refuse(cut);
    inbox.wait_for_shards(2);
    assert_eq!(state.ledger.read(|tree| tree.run().tokenizer_shards), None);
    inbox.end();
}

#[test]
fn a_shard_whose_child_dies_twice_is_rejected_and_the_rest_goes_on() {
    let mut state = State::given();
    state.limits.memory = 128 << 20;
    let huge = fs::File::create(state.data().join("a.jsonl")).unwrap();
    huge.set_len(1 << 30).unwrap();
    state.put("b.txt", "the cat");
    let inbox = state.start();
    inbox.wait("the rejection", |tree| tree.rejected().len() == 1);
    inbox.wait_for_shards(1);
    let died = |t: &&Transition| matches!(t, Transition::ReadingDied { .. });
    assert_eq!(state.records().iter().filter(died).count(), 2);
    assert!(
        state.reasons()[0].contains("a.jsonl: the process that read it died 2 times"),
        "{:?}",
        state.reasons()
    );
    inbox.end();
}

#[test]
fn a_shard_that_was_open_in_five_deaths_of_the_daemon_is_rejected() {
    let state = State::given();
    state.put("a.txt", "the cat");
    for _ in 0..5 {
        state.ledger.commit(Transition::DaemonStarted { program: "test".to_owned() }).unwrap();
        let (digest, name) = (Digest::of(b"the cat"), "a.txt".to_owned());
        state.ledger.commit(Transition::ReadingStarted { digest, name }).unwrap();
    }
    let inbox = state.start();
    inbox.wait("the rejection", |tree| tree.rejected().len() == 1);
    assert!(state.reasons()[0].contains("the daemon died 5 times"), "{:?}", state.reasons());
    inbox.end();
}

#[test]
fn a_rejection_that_was_not_journalled_any_more_is_found() {
    let state = State::given();
    let (digest, name) = (Digest::of(b"\xff"), "a.txt".to_owned());
    state.ledger.commit(Transition::ReadingStarted { digest, name: name.clone() }).unwrap();
    state.put("a.txt", b"\xff");
    let facts = super::scan::facts(&fs::metadata(state.data().join("a.txt")).unwrap());
    let rejected = state.path().join("rejected");
    fs::create_dir(&rejected).unwrap();
    let subject = super::scan::Found { name, facts };
    let root = state.data().canonicalize().unwrap();
    super::rejected::reject(&root, &rejected, &subject, digest, "a.txt:1: broken").unwrap();
    let inbox = state.start();
    inbox.wait("the rejection", |tree| tree.rejected().len() == 1);
    assert_eq!(state.reasons(), ["a.txt:1: broken"]);
    assert!(state.ledger.read(|tree| tree.readings().is_empty()));
    inbox.end();
}

#[test]
fn what_no_shard_needs_is_swept_and_what_lies_there_already_is_written_anew() {
    let state = State::given();
    let tokens = state.path().join("tokens");
    let (lost, coming) = (Digest::of(b"lost"), Digest::of(b"the cat"));
    for digest in [lost, coming] {
        fs::create_dir_all(tokens.join(digest.to_string())).unwrap();
        fs::write(tokens.join(digest.to_string()).join("stream.u32"), "half").unwrap();
    }
    state.put("a.txt", "the cat");
    let inbox = state.start();
    inbox.wait_for_shards(1);
    assert!(!tokens.join(lost.to_string()).exists());
    assert!(Written::open(&tokens.join(coming.to_string())).is_ok());
    inbox.end();
}

#[test]
fn a_stop_closes_what_is_open() {
    let state = State::given();
    let inbox = state.start();
    state.put("a.txt", "the cat sat on the mat and then on another hat\n".repeat(200_000));
    inbox.wait("the reading", |tree| tree.readings().values().any(|reading| reading.open));
    inbox.end();
    assert!(state.ledger.read(|tree| tree.readings().values().all(|reading| !reading.open)));
    assert!(state.names().is_empty());
    let inbox = state.start();
    inbox.wait_for_shards(1);
    inbox.end();
}

#[test]
fn files_that_came_with_a_folder_are_found() {
    let state = State::given();
    let inbox = state.start();
    let aside = state.path().join("aside");
    fs::create_dir_all(aside.join("deep/er")).unwrap();
    fs::write(aside.join("deep/er/a.txt"), "the cat").unwrap();
    fs::rename(aside, state.data().join("moved")).unwrap();
    inbox.wait_for_shards(1);
    // And a folder that is watched by then.
    fs::write(state.data().join("moved/deep/er/b.txt"), "the hat").unwrap();
    inbox.wait_for_shards(2);
    inbox.end();
}

#[test]
fn a_folder_that_was_replaced_is_watched_again() {
    let state = State::given();
    let inbox = state.start();
    state.put("a.txt", "the cat");
    inbox.wait_for_shards(1);
    fs::remove_dir_all(state.data()).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    fs::create_dir(state.data()).unwrap();
    state.put("b.txt", "the hat");
    inbox.wait_for_shards(2);
    inbox.end();
}

/// A child without an inbox.
fn child(state: &State) -> Child {
    let digest = match state.fixed.tokenizer {
        TokenizerSource::Given { digest } => Some(digest),
        TokenizerSource::Trained { .. } => None,
    };
    let session =
        Session { parent: std::process::id(), memory: 2 << 30, reading: state.reading(), tokenizer: digest };
    fs::create_dir_all(&session.reading.tokens).unwrap();
    Child::start(&command(), &session, &AtomicBool::new(false)).unwrap()
}

#[test]
fn no_bytes_kill_the_child() {
    let state = State::given();
    let mut child = child(&state);
    let stop = AtomicBool::new(false);
    let pieces = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        Just(b"{\"text\": \"the cat\"}\n".to_vec()),
        Just(b"{\"text\": ".to_vec()),
        Just(b"\"\\ud800\"".to_vec()),
        Just("{\"text\": \"žluťoučký 🐎\"}\n".as_bytes().to_vec()),
        Just(b"[[[[[[[[".repeat(200)),
        Just(SEPARATOR.as_bytes().to_vec()),
    ];
    let bytes = prop::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat());
    let names = prop::sample::select(vec![
        "a.txt",
        "a.jsonl",
        "a.bin",
        "a.rs",
        "a",
        "a.zip",
        "a.JSONL",
        "a.txt.gz",
        "a.bin.zst",
    ]);
    let mut runner = proptest::test_runner::TestRunner::default();
    let child = std::cell::RefCell::new(&mut child);
    let ran = runner.run(&(names, bytes), |(name, bytes)| {
        let path = state.path().join("shard");
        fs::write(&path, &bytes).unwrap();
        let file = ShardFile { digest: Digest::of(&bytes), name: name.to_owned(), path, seconds: 60 };
        let answer = child.borrow_mut().ask(&Request::Tokenise(file.clone()), PATIENCE, &stop);
        match answer {
            Ok(Answer::Tokenised { tokens, .. }) => {
                let folder = state.path().join("tokens").join(file.digest.to_string());
                let written = Written::open(&folder).unwrap();
                prop_assert_eq!(written.stream.len() as u64, tokens.stream);
                prop_assert!(artifacts::manifest::verify(&folder).is_ok());
            }
            Ok(Answer::Refused { reason }) => prop_assert!(reason.starts_with(name), "{}", reason),
            other => prop_assert!(false, "{:?}", other),
        }
        Ok(())
    });
    ran.unwrap();
}

#[test]
fn bytes_that_are_not_those_of_the_digest_are_not_taken() {
    let state = State::given();
    let mut child = child(&state);
    let path = state.path().join("shard");
    fs::write(&path, "the cat").unwrap();
    let file = ShardFile { digest: Digest::of(b"the hat"), name: "a.txt".to_owned(), path, seconds: 60 };
    let stop = AtomicBool::new(false);
    for request in [Request::Tokenise(file.clone()), Request::Validate(file)] {
        assert_eq!(child.ask(&request, PATIENCE, &stop).unwrap(), Answer::Changed);
    }
    assert_eq!(fs::read_dir(state.path().join("tokens")).unwrap().count(), 0);
}

#[test]
fn a_tokenizer_that_is_not_the_runs_starts_no_child() {
    let state = State::given();
    fs::write(state.path().join(FILE), "{}").unwrap();
    let inbox = state.start();
    state.put("a.txt", "the cat");
    let end = Instant::now() + PATIENCE;
    while !inbox.handle.waiting().iter().any(|file| file.why.contains("is not a tokenizer")) {
        assert!(Instant::now() < end, "{:?}", inbox.handle.waiting());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(state.names().is_empty() && state.reasons().is_empty(), "nothing is the shard's fault");
    inbox.end();
}
