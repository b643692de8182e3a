//! A state folder and the command line on it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::program;
use crate::shapes;
use crate::text::Chance;

/// A model that trains in no time: two layers, grouped queries.
pub const MODEL: &str = r#"{
  "model_type": "llama", "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
  "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
  "tie_word_embeddings": false, "initializer_range": 0.02, "max_position_embeddings": 64
}"#;

/// A configuration for it; `more` is added at the top and `tables` at the end.
pub fn config(more: &str, tables: &str) -> String {
    format!(
        "{more}\n[model]\nconfig = \"model.json\"\n[tokenizer]\nvocabulary = 300\ntrain_bytes = 2000\n[data]\n\
         sequence_length = 16\nsequences_per_step = 2\nheld_out_share = 0.05\nheld_out_block = 32\nsettle_seconds = 0.2\n\
         scan_seconds = 1.0\n[trainer]\nbackoff_seconds = 0.1\n{tables}\n"
    )
}

/// As [`config`], with a given tokenizer whose tokens are the bytes of a text: see [`tokenizer`].
pub fn byte_config(more: &str, tables: &str) -> String {
    let trained = "vocabulary = 300\ntrain_bytes = 2000";
    config(more, tables).replace(trained, "file = \"tokenizer.json\"")
}

/// The token of `<|endoftext|>` in [`tokenizer`].
pub const END_OF_TEXT: u32 = 256;

/// A `tokenizer.json` in which token `b` is the byte `b`, and 256 is the end of a text.
pub fn tokenizer() -> String {
    // The letters that byte-level tokenizers write bytes as: printable ones as themselves, the others from 256 on.
    let is_printable = |byte: u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut others = 256..;
    let letter = |byte: u32| {
        let code = if is_printable(byte) { byte } else { others.next().unwrap() };
        (char::from_u32(code).unwrap().to_string(), byte)
    };
    let vocabulary: BTreeMap<String, u32> = (0..256).map(letter).collect();
    serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [{
            "id": END_OF_TEXT, "content": "<|endoftext|>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true
        }],
        "pre_tokenizer": {
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": []
        }
    })
    .to_string()
}

/// A state folder of a test.
pub struct State {
    folder: TempDir,
}

impl State {
    /// Makes a state of the small [`MODEL`] with `lrpathctl init`.
    pub fn new(config: &str) -> Self {
        Self::of(MODEL, config)
    }

    /// Makes a state of a model, the text of its `config.json`; the configuration calls it `model.json`.
    pub fn of(model: &str, config: &str) -> Self {
        Self::with_tokenizer(model, config, &tokenizer())
    }

    /// As [`State::of`], with another `tokenizer.json` than that of bytes.
    pub fn with_tokenizer(model: &str, config: &str, tokenizer: &str) -> Self {
        let folder = TempDir::with_prefix("lrpath-test-").unwrap();
        let state = Self { folder };
        let given = state.folder.path().join("given");
        std::fs::create_dir(&given).unwrap();
        std::fs::write(given.join("model.json"), model).unwrap();
        std::fs::write(given.join("tokenizer.json"), tokenizer).unwrap();
        std::fs::write(given.join("lrpathd.toml"), config).unwrap();
        let made = state.ctl(&["init", "--config", given.join("lrpathd.toml").to_str().unwrap()]);
        assert!(made.status.success(), "init: {}", String::from_utf8_lossy(&made.stderr));
        state
    }

    /// A state that a program has made: the folder `state` below this one.
    pub fn made(folder: TempDir) -> Self {
        Self { folder }
    }

    /// The state's folder.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Runs `lrpathctl` on the state.
    pub fn ctl(&self, arguments: &[&str]) -> Output {
        Command::new(program("lrpathctl"))
            .args(arguments)
            .arg("--state")
            .arg(self.path())
            .env("NO_COLOR", "1")
            .output()
            .expect("lrpathctl starts")
    }

    /// Runs `lrpathctl` and takes its JSON, which has the shape that is documented.
    pub fn ask(&self, arguments: &[&str]) -> Value {
        let output = self.ctl(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        let answer = serde_json::from_slice(&output.stdout).expect("--json prints JSON");
        shapes::hold(arguments, &answer);
        answer
    }

    /// The transitions in the journal, in their order.
    pub fn transitions(&self) -> Vec<Value> {
        let output = self.ctl(&["events", "--json"]);
        assert!(output.status.success(), "events: {}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).unwrap();
        let transition = |line: &str| {
            let record: Value = serde_json::from_str(line).expect(line);
            shapes::hold(&["events"], &record);
            record["transition"].clone()
        };
        lines.lines().map(transition).collect()
    }

    /// Drops a file into the watched folder: written elsewhere and renamed in, so that it counts as complete.
    pub fn drop_file(&self, name: &str, bytes: &[u8]) {
        let data = self.path().join("data");
        let temporary = data.join(format!(".{name}.tmp"));
        std::fs::write(&temporary, bytes).unwrap();
        std::fs::rename(&temporary, data.join(name)).unwrap();
    }

    /// The digests of the published files that a version's bits decide, for each release folder below `releases/`.
    pub fn release_digests(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        let mut digests = BTreeMap::new();
        collect(&self.path().join("releases"), "", &mut digests);
        digests
    }
}

const WITH_BITS: [&str; 4] = ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"];

fn collect(folder: &Path, prefix: &str, digests: &mut BTreeMap<String, BTreeMap<String, String>>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        // What is being published has a temporary name: it may have some of its files, and another name a moment later.
        if artifacts::storage::is_temporary(&entry.file_name()) || !entry.file_type().unwrap().is_dir() {
            continue;
        }
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().join(WITH_BITS[0]).is_file() {
            let digest = |file: &&str| {
                let bytes = std::fs::read(entry.path().join(file)).unwrap();
                (file.to_string(), blake3::hash(&bytes).to_hex().to_string())
            };
            digests.insert(name, WITH_BITS.iter().map(digest).collect());
        } else {
            collect(&entry.path(), &format!("{name}/"), digests);
        }
    }
}

/// A shard of random two-byte tokens of [`byte_config`]'s model, with ends of text between them.
pub fn tokens(seed: u64, count: usize) -> Vec<u8> {
    let mut chance = Chance(seed);
    let token = |_| match chance.below(60) {
        0 => END_OF_TEXT,
        _ => chance.below(256) as u32,
    };
    (0..count).map(token).flat_map(|token| token.to_le_bytes()[..2].to_vec()).collect()
}
