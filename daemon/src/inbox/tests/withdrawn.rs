//! Shards that were withdrawn: not counted, not tokenised, not taken again.

use std::fs;

use artifacts::Digest;

use super::{SEPARATOR, State, VOCABULARY};
use crate::ledger::transition::Transition;
use crate::tokenizer::{Corpus, FILE, train};

fn withdraw(state: &State, text: &str) {
    let digest = Digest::of(text.as_bytes());
    let withdrawn = Transition::ShardWithdrawn { digest, step: 1000, seen_by: Vec::new(), generation: None };
    state.ledger.commit(withdrawn).unwrap();
}

#[test]
fn withdrawn_bytes_are_not_taken_again_under_any_name() {
    let state = State::given();
    let inbox = state.start();
    state.put("a.txt", "the cat");
    inbox.wait_for_shards(1);
    withdraw(&state, "the cat");
    state.put("b.txt", "the cat");
    inbox.wait("the rejection", |tree| tree.rejected().len() == 1);
    let told = "it has the bytes of a.txt, which was withdrawn: what was withdrawn once is not taken again";
    assert!(state.reasons()[0].contains(told), "{:?}", state.reasons());
    inbox.end();
    // The file itself was settled: it stays where it is, also when the folder is looked through again.
    let inbox = state.start();
    inbox.wait_until("the end of the first scan", || inbox.handle.is_quiet());
    assert!(state.data().join("a.txt").is_file() && !state.data().join("b.txt").exists());
    assert_eq!(state.reasons().len(), 1);
    inbox.end();
    // One more was moved away, and then the daemon died: it is found, and told once.
    let rejected = state.path().join("rejected");
    fs::write(rejected.join("c.txt"), "the cat").unwrap();
    let note = format!("{told}\n\nfile: c.txt\nbytes: 7\nblake3: {}\n", Digest::of(b"the cat"));
    fs::write(rejected.join("c.txt.reason"), note).unwrap();
    fs::remove_file(rejected.join("b.txt.reason")).unwrap();
    for _ in 0..2 {
        let inbox = state.start();
        inbox.wait_until("the end of the first scan", || inbox.handle.is_quiet());
        assert_eq!(state.reasons().len(), 2);
        inbox.end();
    }
}

#[test]
fn the_tokenizer_is_not_trained_on_what_was_withdrawn_before() {
    let state = State::trained(100);
    let text = |i: u32| format!("the {i} cat sat on the {i} mat and the other {i} cat sat\n");
    let inbox = state.start();
    for i in 0..3 {
        if i == 1 {
            // One text is not enough; without the withdrawal the second would be.
            withdraw(&state, &text(0));
        }
        state.put(&format!("{i}.txt"), text(i));
        inbox.wait_for_shards(i as usize + 1);
    }
    inbox.wait("all tokens", |tree| tree.shards().iter().skip(1).all(|shard| shard.tokens.is_some()));
    inbox.end();
    let planned = state.records().into_iter().find_map(|t| match t {
        Transition::TokenizerPlanned { shards, bytes } => Some((shards, bytes)),
        _ => None,
    });
    assert_eq!(planned, Some((3, 2 * text(0).len() as u64)));
    let mut corpus = Corpus::new(Some(SEPARATOR));
    (1..3).for_each(|i| corpus.add(&text(i)).unwrap());
    assert!(fs::read(state.path().join(FILE)).unwrap() == train(corpus, VOCABULARY).unwrap());
    assert!(state.ledger.read(|tree| tree.shards()[0].tokens.is_none()), "it is not tokenised");
    // Its copy is of no use to anybody, and is removed at the next start.
    let inbox = state.start();
    inbox.wait_until("the end of the first scan", || inbox.handle.is_quiet());
    assert_eq!(fs::read_dir(state.path().join("sources")).unwrap().count(), 0);
    inbox.end();
}

#[test]
fn what_is_withdrawn_while_the_tokenizer_is_trained_on_it_leaves_no_trace_in_it() {
    let state = State::trained(1 << 17);
    let text = |seed: u64| many_words(seed, 1 << 17);
    let inbox = state.start();
    state.put("0.txt", text(0));
    inbox.wait("the plan", |tree| tree.run().tokenizer_shards == Some(1));
    withdraw(&state, &text(0));
    state.put("1.txt", text(1));
    inbox.wait("all tokens", |tree| tree.shards().get(1).is_some_and(|shard| shard.tokens.is_some()));
    inbox.end();
    let mut corpus = Corpus::new(Some(SEPARATOR));
    corpus.add(&text(1)).unwrap();
    assert!(fs::read(state.path().join(FILE)).unwrap() == train(corpus, VOCABULARY).unwrap());
    let trained =
        state.records().into_iter().filter(|t| matches!(t, Transition::TokenizerTrained { .. })).count();
    assert_eq!(trained, 1);
}

/// Words that a tokenizer takes a while for.
fn many_words(seed: u64, bytes: usize) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut text = String::with_capacity(bytes + 16);
    while text.len() < bytes {
        let word: String = (0..random.usize(2..9)).map(|_| random.lowercase()).collect();
        text.push_str(&word);
        text.push(' ');
    }
    text
}
