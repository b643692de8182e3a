//! The four releases of a run through the daemon, in transformers.

use std::path::{Path, PathBuf};

use artifacts::Digest;
use artifacts::job::Job;
use artifacts::release::{self, Provenance};
use artifacts::tokens::{self, Shard};
use harness::corpus;
use harness::daemon::{Daemon, wait_for, wait_for_releases};
use harness::python;
use harness::recount::events;
use harness::state::State;
use serde_json::{Value, json};

use crate::answers::HeldOut;
use crate::lines;
use crate::trainer::{evaluation, logits_differences};

const POSITIONS: usize = 128;

const MODEL: &str = r#"{
  "model_type": "llama", "vocab_size": 512, "hidden_size": 48, "intermediate_size": 128, "num_hidden_layers": 2,
  "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
  "tie_word_embeddings": false, "initializer_range": 0.02, "max_position_embeddings": 128
}"#;

const CONFIG: &str = r#"
main_path = "lazy"
seed = 8
[model]
config = "model.json"
[tokenizer]
train_bytes = 10000
[data]
sequence_length = 64
sequences_per_step = 4
held_out_share = 0.1
held_out_block = 256
settle_seconds = 0.2
scan_seconds = 1.0
[schedule]
warmup_steps = 5
peak = 3e-3
min = 3e-4
# What the jobs were given is read once more.
[retention]
automatic = false
"#;

/// Bytes of text of an era.
const ERA: usize = 30_000;

/// Four eras of the corpus, four versions.
fn run() -> (State, Daemon) {
    let state = State::of(MODEL, CONFIG);
    let daemon = Daemon::start(&state);
    let corpus = corpus::files();
    for (era, addresses) in corpus.chunks(corpus.len().div_ceil(4)).enumerate() {
        let texts = addresses.iter().map(|file| std::fs::read_to_string(file).unwrap());
        let mut text = String::new();
        texts
            .take_while(|next| {
                text.push_str(next);
                text.len() < ERA
            })
            .for_each(drop);
        state.drop_file(&format!("era{era}.txt"), text.as_bytes());
        wait_for(&state, "the era's acceptance", 60, |status| {
            status["shards"]["accepted"].as_u64() == Some(era as u64 + 1)
        });
        let cut = state.ctl(&["cut"]);
        assert!(cut.status.success(), "{}", String::from_utf8_lossy(&cut.stderr));
    }
    wait_for_releases(&state, "path-switching", 4, 240);
    (state, daemon)
}

#[test]
fn transformers_agrees_on_four_releases() {
    let (state, daemon) = run();
    let releases: Vec<PathBuf> = (1..=4).map(|v| state.path().join(format!("releases/v{v}"))).collect();
    logits_agree(&state, &releases);
    held_out_losses_agree(&state, &releases);
    token_ids_agree(&state, &releases);
    daemon.stop();
}

fn logits_agree(state: &State, releases: &[PathBuf]) {
    let scratch = tempfile::tempdir().unwrap();
    let shards = std::fs::read_dir(state.path().join("tokens")).unwrap();
    let shard =
        shards.map(|entry| entry.unwrap().path().join(tokens::STREAM)).find(|file| file.is_file()).unwrap();
    let sequence = scratch.path().join("sequence.u32");
    std::fs::write(&sequence, &std::fs::read(shard).unwrap()[..POSITIONS * 4]).unwrap();
    for (release, difference) in releases.iter().zip(logits_differences(releases, &sequence, scratch.path()))
    {
        println!("{}: logits {difference:e}", release.display());
        assert!(difference < 1e-5, "{}: the logits differ by {difference:e}", release.display());
    }
}

fn held_out_losses_agree(state: &State, releases: &[PathBuf]) {
    let (mut ours, mut arguments) = (Vec::new(), Vec::new());
    for folder in releases {
        let Provenance { plan, parents, evaluations, .. } = release::read_provenance(folder).unwrap();
        let attempt = attempt_that_made(state, &parents[0].checkpoint);
        let said: Vec<(u32, f64, u64)> = events(&attempt)
            .iter()
            .filter(|event| matches!(event, artifacts::event::Event::Evaluation { step, .. } if *step == plan.end))
            .filter_map(evaluation)
            .collect();
        assert!(!said.is_empty(), "{}: nothing was evaluated", folder.display());
        let published: Vec<(u32, f64, u64)> =
            evaluations.iter().map(|e| (e.increment, e.loss, e.tokens)).collect();
        assert_eq!(published, said, "{}", folder.display());
        ours.push(said);
        arguments.extend([folder.clone(), attempt.join("job.json")]);
    }
    let arguments: Vec<&str> = arguments.iter().map(|path| python::text(path)).collect();
    let theirs: Vec<Vec<HeldOut>> = serde_json::from_value(python::ask("held_out.py", &arguments)).unwrap();
    for ((release, ours), theirs) in releases.iter().zip(ours).zip(theirs) {
        assert_eq!(ours.len(), theirs.len());
        for ((increment, loss, tokens), theirs) in ours.into_iter().zip(theirs) {
            assert_eq!((increment, tokens), (theirs.increment, theirs.tokens));
            let difference = loss - theirs.loss;
            println!("{}: increment {increment}: {loss} and {difference:e}", release.display());
            assert!(difference.abs() < 1e-4, "{}: increment {increment}: {difference:e}", release.display());
        }
    }
}

/// The attempt whose trainer saved a checkpoint.
fn attempt_that_made(state: &State, checkpoint: &str) -> PathBuf {
    let attempts = std::fs::read_dir(state.path().join("jobs")).unwrap().map(|entry| entry.unwrap().path());
    let made = |attempt: &PathBuf| {
        let Ok(job) = std::fs::read(attempt.join("job.json")) else { return false };
        let job: Job = serde_json::from_slice(&job).unwrap();
        artifacts::checkpoint::name(&job.path, job.to) == checkpoint
    };
    attempts.into_iter().find(made).unwrap_or_else(|| panic!("no job made {checkpoint}"))
}

/// What the daemon makes of lines, each a document, is what AutoTokenizer makes of them.
fn token_ids_agree(state: &State, releases: &[PathBuf]) {
    let lines: Vec<String> = [lines::of_corpus(200), lines::of_many_scripts(200)].concat();
    let shard: String = lines.iter().map(|line| format!("{}\n", json!({ "text": line }))).collect();
    state.drop_file("lines.jsonl", shard.as_bytes());
    wait_for(state, "the lines' acceptance", 60, |status| status["shards"]["accepted"].as_u64() == Some(5));
    let config: Value =
        serde_json::from_slice(&std::fs::read(releases[0].join(release::CONFIG)).unwrap()).unwrap();
    let end_of_text = config["eos_token_id"].as_u64().unwrap() as u32;
    let tokens = state.path().join("tokens").join(Digest::of(shard.as_bytes()).to_string());
    let ours = documents(&tokens, end_of_text);

    let file = state.path().join("../lines.json");
    std::fs::write(&file, json!(lines).to_string()).unwrap();
    let arguments: Vec<&str> = [&file].into_iter().chain(releases).map(|path| python::text(path)).collect();
    let theirs: Vec<Vec<u32>> = serde_json::from_value(python::ask("token_ids.py", &arguments)).unwrap();
    assert_eq!((ours.len(), theirs.len()), (400, 400));
    for ((line, ours), theirs) in lines.iter().zip(ours).zip(theirs) {
        assert_eq!(ours, theirs, "{line:?}");
    }
}

/// The documents of a shard whose documents are no longer than a block, in the order of the shard.
fn documents(folder: &Path, end_of_text: u32) -> Vec<Vec<u32>> {
    let read = |name: &str| {
        let bytes = std::fs::read(folder.join(name)).unwrap();
        bytes.as_chunks().0.iter().map(|token| u32::from_le_bytes(*token)).collect::<Vec<u32>>()
    };
    let (stream, held_out) = (read(tokens::STREAM), read(tokens::HELD_OUT));
    let shard: Shard = serde_json::from_slice(&std::fs::read(folder.join(tokens::SHARD)).unwrap()).unwrap();
    let mut documents = Vec::new();
    let mut position = 0;
    for kept in stream.split_inclusive(|token| *token == end_of_text) {
        let (last, document) = kept.split_last().unwrap();
        assert_eq!(*last, end_of_text, "every document ends");
        documents.push((position, document.to_vec()));
        position += kept.len() as u64;
    }
    for (at, block) in shard.held_out.iter().enumerate() {
        let document = held_out[block.first as usize..][..block.count as usize].to_vec();
        // In front of the kept one that begins where it was taken out, and behind those that were taken out before.
        let before =
            documents.iter().position(|(position, _)| *position >= block.position).unwrap_or(documents.len());
        let taken = shard.held_out[..at].iter().filter(|other| other.position == block.position).count();
        documents.insert(before + taken, (block.position, document));
    }
    documents.into_iter().map(|(_, document)| document).collect()
}
