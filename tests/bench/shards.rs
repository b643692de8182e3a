//! How fast shards are hashed and tokenised, beside what the libraries do at best with the same bytes.
//!
//! Of ours everything counts that a shard costs: of hashing the reading in pieces, of tokenising the child that parses the
//! file, hashes it once more, holds blocks out, and writes the tokens durably. The libraries get all cores too: blake3 maps
//! each file, and HF tokenizers encodes a list of documents that lies in memory, in Rust with the features that we build it
//! with, and as its Python package. In every round each runs once, in turn.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use artifacts::Digest;
use daemon::inbox::reader::{Answer, Child, Reading, Request, Session, ShardFile};
use daemon::inbox::{digest_of, facts};
use daemon::tokenizer::{Corpus, train};
use harness::text::Chance;
use harness::{corpus, program, python};
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use super::trainer::median;

/// Rounds, of which the median counts.
const ROUNDS: usize = 7;
/// Bytes that are hashed.
const HASHED: usize = 1 << 30;
/// Tokens of the vocabulary.
const VOCABULARY: u32 = 32_000;
/// Threads and children of the inbox, at most.
const WORKERS: usize = 4;

/// Bytes a second of each, and how ours stand to them.
pub fn measure() -> Value {
    let folder = tempfile::tempdir().unwrap();
    let hashing = [(HASHED, "one file"), (16 << 20, "files of 16 MiB"), (64 << 10, "files of 64 KiB")]
        .map(|(bytes, name)| hashing(folder.path(), bytes, name));
    let texts: Vec<String> = corpus::files().iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let desk = Desk::new(folder.path(), &texts);
    let paragraphs: Vec<String> = texts.iter().flat_map(|text| paragraphs(text)).collect();
    let line = |text: &String| json!({ "text": text }).to_string() + "\n";
    let lines: String = paragraphs.iter().map(line).collect();
    let tokenising = [
        desk.tokenising("one .jsonl of paragraphs", &[("a.jsonl", &lines)], &paragraphs),
        desk.tokenising("one .txt of all speeches", &[("b.txt", &texts.concat())], &paragraphs),
        desk.tokenising("a .txt for each speech", &named(&texts), &texts),
    ];
    json!({ "hashing": hashing, "tokenising": tokenising })
}

/// Seconds of each contestant's runs, of which the first does not count.
fn race<const N: usize>(mut run: impl FnMut(usize) -> f64) -> [f64; N] {
    let mut seconds = [const { Vec::new() }; N];
    for round in 0..=ROUNDS {
        for (contestant, all) in seconds.iter_mut().enumerate() {
            let took = run(contestant);
            if round > 0 {
                all.push(took);
            }
        }
    }
    seconds.map(|all| median(&all))
}

fn hashing(folder: &Path, bytes: usize, name: &str) -> Value {
    let folder = folder.join(bytes.to_string());
    fs::create_dir(&folder).unwrap();
    let mut chance = Chance(bytes as u64);
    let content: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(|_| chance.draw().to_le_bytes()).collect();
    let files: Vec<PathBuf> = (0..HASHED / bytes).map(|number| folder.join(number.to_string())).collect();
    files.iter().for_each(|file| fs::write(file, &content).unwrap());
    let expected = Digest::of(&content);
    let [ours, library] = race(|contestant| {
        let begun = Instant::now();
        match contestant {
            0 => hash_as_the_inbox(&files, expected),
            _ => files.iter().for_each(|file| {
                let mut hasher = blake3::Hasher::new();
                hasher.update_mmap_rayon(file).unwrap();
                assert_eq!(hasher.finalize().as_bytes(), &expected.0);
            }),
        }
        begun.elapsed().as_secs_f64()
    });
    fs::remove_dir_all(&folder).unwrap();
    let rate = |seconds: f64| HASHED as f64 / seconds / 1e9;
    println!("Hashing 1 GiB, {name}");
    println!("  ours    {:8.2} GB/s", rate(ours));
    println!("  blake3  {:8.2} GB/s, ours / blake3 {:.3}", rate(library), library / ours);
    json!({ "files": name, "bytes": HASHED, "seconds": ours, "blake3_seconds": library })
}

fn hash_as_the_inbox(files: &[PathBuf], expected: Digest) {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let workers = std::thread::available_parallelism().unwrap().get().min(WORKERS);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let facts = facts(&fs::metadata(file).unwrap());
                    assert_eq!(digest_of(file, &facts, &stop).unwrap(), expected);
                }
            });
        }
    });
}

fn paragraphs(text: &str) -> Vec<String> {
    text.split("\n\n").filter(|part| !part.trim().is_empty()).map(str::to_owned).collect()
}

fn named(texts: &[String]) -> Vec<(&'static str, &str)> {
    texts.iter().map(|text| ("c.txt", text.as_str())).collect()
}

/// A vocabulary, and where tokens go.
struct Desk {
    folder: PathBuf,
    tokenizer: PathBuf,
    digest: Digest,
}

impl Desk {
    fn new(folder: &Path, texts: &[String]) -> Self {
        let mut all = Corpus::new(None);
        texts.iter().for_each(|text| all.add(text).unwrap());
        let bytes = train(all, VOCABULARY).unwrap();
        let tokenizer = folder.join("tokenizer.json");
        fs::write(&tokenizer, &bytes).unwrap();
        fs::create_dir(folder.join("tokens")).unwrap();
        Self { folder: folder.to_owned(), tokenizer, digest: Digest::of(&bytes) }
    }

    fn tokenising(&self, name: &str, shards: &[(&str, &str)], documents: &[String]) -> Value {
        let shards: Vec<ShardFile> =
            shards.iter().enumerate().map(|(number, (name, text))| self.shard(number, name, text)).collect();
        let workers = std::thread::available_parallelism().unwrap().get().min(WORKERS).min(shards.len());
        let mut children: Vec<Child> = (0..workers).map(|_| self.child()).collect();
        let library = Tokenizer::from_file(&self.tokenizer).unwrap();
        let lines = self.folder.join("documents.json");
        fs::write(&lines, serde_json::to_vec(documents).unwrap()).unwrap();
        let [ours, in_rust, in_python] = race(|contestant| match contestant {
            0 => {
                let (begun, next) = (Instant::now(), AtomicUsize::new(0));
                std::thread::scope(|scope| {
                    for child in &mut children {
                        scope.spawn(|| {
                            while let Some(shard) = shards.get(next.fetch_add(1, Ordering::Relaxed)) {
                                tokenise(child, shard);
                            }
                        });
                    }
                });
                begun.elapsed().as_secs_f64()
            }
            1 => {
                let documents = documents.to_vec();
                let begun = Instant::now();
                let encoded = library.encode_batch(documents, false).unwrap();
                let took = begun.elapsed().as_secs_f64();
                assert!(encoded.iter().any(|document| !document.get_ids().is_empty()));
                took
            }
            _ => {
                let asked = [python::text(&self.tokenizer), python::text(&lines)];
                python::ask("encode.py", &asked)["seconds"].as_f64().unwrap()
            }
        });
        let bytes: usize = documents.iter().map(String::len).sum();
        let rate = |seconds: f64| bytes as f64 / seconds / 1e6;
        println!("Tokenising {:.1} MB, {name}", bytes as f64 / 1e6);
        println!("  ours                   {:8.1} MB/s", rate(ours));
        for (library, seconds) in [("tokenizers, Rust", in_rust), ("tokenizers, Python", in_python)] {
            println!("  {library:22} {:8.1} MB/s, ours / this {:.3}", rate(seconds), seconds / ours);
        }
        json!({ "shards": name, "bytes": bytes, "seconds": ours, "rust_seconds": in_rust, "python_seconds": in_python })
    }

    fn shard(&self, number: usize, name: &str, text: &str) -> ShardFile {
        let path = self.folder.join(format!("{number}-{name}"));
        fs::write(&path, text).unwrap();
        ShardFile { digest: Digest::of(text.as_bytes()), name: name.to_owned(), path, seconds: 600 }
    }

    fn child(&self) -> Child {
        let reading = Reading {
            tokens: self.folder.join("tokens"),
            tokenizer: self.tokenizer.clone(),
            field: "text".to_owned(),
            wide: false,
            vocabulary: VOCABULARY,
            longest_document: 1 << 30,
            end_of_text: None,
            seed: 1,
            block: 1024,
            share: 0.01,
        };
        let session =
            Session { parent: std::process::id(), memory: 8 << 30, reading, tokenizer: Some(self.digest) };
        let command = [program("lrpathd"), PathBuf::from("read-shard")];
        Child::start(&command, &session, &AtomicBool::new(false)).unwrap()
    }
}

fn tokenise(child: &mut Child, shard: &ShardFile) {
    let request = Request::Tokenise(shard.clone());
    let answer = child.ask(&request, Duration::from_secs(600), &AtomicBool::new(false)).unwrap();
    assert!(matches!(answer, Answer::Tokenised { .. }), "{answer:?}");
}
