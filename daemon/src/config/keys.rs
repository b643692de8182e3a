//! The keys of `lrpathd.toml`, their types and defaults.
//!
//! Every key has a default where a default can be right. A key that is fixed says so: bits hang on it.

use std::net::SocketAddr;
use std::path::PathBuf;

use paradigm::{Decay, Paradigm};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ledger::transition::EndOfText;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// One paradigm or a list; the first one's releases are `releases/v<k>`. Fixed.
    #[serde(default)]
    pub paradigm: Paradigms,
    /// Seed of weights, hold-out and order. Fixed.
    #[serde(default)]
    pub seed: u64,
    /// Whether the main path trains as soon as there are whole steps, or only as far as the next branch needs.
    #[serde(default)]
    pub main_path: MainPath,
    /// The model. Fixed.
    pub model: ModelConfig,
    /// The tokenizer. Fixed.
    #[serde(default)]
    pub tokenizer: TokenizerConfig,
    /// The watched folder and the stream.
    #[serde(default)]
    pub data: DataConfig,
    /// Learning rates.
    #[serde(default)]
    pub schedule: ScheduleConfig,
    /// The optimizer. Fixed.
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    /// When increments are closed beside markers and commands.
    #[serde(default)]
    pub cut: CutConfig,
    /// The main path ahead.
    #[serde(default)]
    pub eager: EagerConfig,
    /// When checkpoints are saved.
    #[serde(default)]
    pub checkpoints: CheckpointConfig,
    /// What is kept of what is not needed at once.
    #[serde(default)]
    pub retention: RetentionConfig,
    /// Held-out losses.
    #[serde(default)]
    pub evaluate: EvaluateConfig,
    /// How trainers are started.
    #[serde(default)]
    pub trainer: TrainerConfig,
    /// Where jobs run; one slot with the CPU if none is given.
    #[serde(default = "default_slots")]
    pub slots: Vec<SlotConfig>,
    /// A slot for each GPU that is found when the daemon starts or reloads, instead of `slots`.
    #[serde(default)]
    pub gpu_slots: bool,
    /// Where the daemon is asked.
    #[serde(default)]
    pub control: ControlConfig,
    /// Commands that are asked and told.
    #[serde(default)]
    pub hooks: HookConfig,
    /// Event files for TensorBoard.
    #[serde(default)]
    pub tensorboard: TensorBoardConfig,
}

/// One paradigm or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "path-switching, from-scratch or continual was expected, or a list of them")]
pub enum Paradigms {
    /// One.
    One(Paradigm),
    /// Several, without repetition.
    Several(Vec<Paradigm>),
}

impl Paradigms {
    /// All of them, in their order.
    pub fn list(&self) -> &[Paradigm] {
        match self {
            Self::One(paradigm) => std::slice::from_ref(paradigm),
            Self::Several(paradigms) => paradigms,
        }
    }
}

/// When the main path trains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MainPath {
    /// As soon as whole steps of data exist.
    #[default]
    Eager,
    /// Only as far as the next branch needs.
    Lazy,
}

/// The model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The model's `config.json` in the format of HF transformers; relative to this file.
    pub config: PathBuf,
    /// An HF folder whose weights the run starts from; new weights if not given.
    pub weights: Option<PathBuf>,
    /// Arithmetic of the run.
    #[serde(default = "default_precision")]
    pub precision: artifacts::job::Precision,
}

/// The tokenizer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TokenizerConfig {
    /// A `tokenizer.json`; relative to this file. Without it a byte-level BPE is trained on the first shards.
    pub file: Option<PathBuf>,
    /// Tokens of a trained vocabulary, the special one included; the model's `vocab_size` if not given.
    pub vocabulary: Option<u32>,
    /// Bytes of text, unpacked, that a tokenizer is trained on; never more than `cut.every_tokens` tokens can stand for.
    pub train_bytes: u64,
    /// Token that separates documents: its text or its number; `false` for none.
    pub end_of_text: EndOfTextConfig,
}

/// The token that separates documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "the token's text or its number was expected, or false for none")]
pub enum EndOfTextConfig {
    /// Its text or its number.
    Token(EndOfText),
    /// `false`: there is none.
    Switch(bool),
}

/// The watched folder and the stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// The watched folder; relative to the state.
    pub folder: PathBuf,
    /// Tokens that a sequence predicts. Fixed.
    pub sequence_length: u32,
    /// Sequences of one step. Fixed.
    pub sequences_per_step: u32,
    /// Share of blocks that are held out, below 1. Fixed.
    pub held_out_share: f64,
    /// Tokens of a block. Fixed.
    pub held_out_block: u32,
    /// Whether attention is masked between documents. Fixed.
    pub mask_documents: bool,
    /// Field of a `.jsonl` line that holds the text.
    pub jsonl_field: String,
    /// Width of the tokens of a `.bin` file without a header.
    pub token_width: TokenWidth,
    /// Seconds that a file's size and modification time must have stood still.
    pub settle_seconds: f64,
    /// Seconds between scans of the folder.
    pub scan_seconds: f64,
    /// Longest document, in bytes.
    pub longest_document: u64,
    /// Memory that the child which reads a shard may take, in bytes.
    pub reader_memory: u64,
    /// Seconds that it may take for a gigabyte, and at least.
    pub reader_seconds: u64,
}

/// Width of the tokens of a `.bin` file without a header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TokenWidth {
    /// Two bytes.
    #[default]
    Uint16,
    /// Four bytes.
    Uint32,
}

/// Learning rates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// Rate of the main path. Fixed.
    pub peak: f64,
    /// Rate at the end of a branch. Fixed.
    pub min: f64,
    /// Steps of warm-up. Fixed.
    pub warmup_steps: u64,
    /// Share of an increment that its branch covers.
    pub alpha: f64,
    /// Shape of the decay.
    pub decay: Decay,
    /// Share of a whole schedule that stays at peak; the shape's own if not given.
    pub hold: Option<f64>,
    /// Steps of re-warm-up of later continual versions.
    pub rewarmup_steps: u64,
}

/// AdamW.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay on matrices and embeddings.
    pub weight_decay: f64,
    /// Global norm at which gradients are clipped.
    pub clip: f64,
}

/// When increments are closed by themselves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CutConfig {
    /// After exactly as many whole steps as fit into this many tokens.
    pub every_tokens: Option<u64>,
    /// When nothing was accepted for so many seconds.
    pub quiet_seconds: Option<f64>,
}

/// The main path ahead.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EagerConfig {
    /// Whole steps that must be there before the main path goes ahead; one grid interval if not given.
    pub min_steps: Option<u64>,
}

/// When checkpoints are saved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// The grid: a checkpoint at every multiple of so many steps.
    pub every: u64,
}

/// What is kept of what is not needed at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionConfig {
    /// Whether what is not needed goes by itself; without it, only by `lrpathctl gc`.
    pub automatic: bool,
    /// Versions, the last ones, whose branch points are kept.
    pub branch_points: u32,
}

/// Held-out losses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluateConfig {
    /// Also after every multiple of so many steps, on main path and branches.
    pub every: Option<u64>,
    /// Tokens of an increment at most, the same blocks each time.
    pub max_tokens: u64,
}

/// What becomes of a spike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnSpike {
    /// It is told in the log and in `status`: new data makes honest spikes.
    #[default]
    Warn,
    /// The step makes no update, on every path that shares it; not in warm-up, and not in the first hundred steps of an
    /// increment.
    Skip,
}

/// How trainers are started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainerConfig {
    /// The command, to which `--job <file>` is added; `lrpath-train` beside the daemon or on the path if not given.
    pub command: Option<Vec<String>>,
    /// Threads of a trainer; the cores, shared among the slots of the CPU, if not given.
    pub threads: Option<u32>,
    /// Sequences that go through the model at once; all of a step if not given.
    pub micro_batch: Option<u32>,
    /// Whether a job that had not enough memory is tried again with a smaller micro batch, which the run then keeps.
    pub shrink_micro_batch: bool,
    /// What the forward pass computes once more in the backward pass instead of keeping it: memory for time. It changes
    /// no bit.
    pub recompute: artifacts::job::Recompute,
    /// What becomes of a step whose gradient norm is more than ten times the median of the hundred before it.
    pub on_spike: OnSpike,
    /// A trainer that says nothing for so many seconds hangs, and is ended.
    pub silent_seconds: f64,
    /// Seconds that a trainer has to save and stop when it is asked to.
    pub stop_seconds: f64,
    /// Failures without progress after which a path is given up.
    pub attempts: u32,
    /// Seconds before the second attempt; doubled for each further one, up to `longest_backoff_seconds`.
    pub backoff_seconds: f64,
    /// Longest wait between attempts.
    pub longest_backoff_seconds: f64,
}

/// A slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlotConfig {
    /// Its name.
    pub name: String,
    /// Its devices, each for a process of the job: `cpu`, which may stand in several slots, `cuda:0` or a GPU's own name.
    pub devices: Vec<String>,
    /// Whether others may use its GPUs at the same time, which then are not locked.
    #[serde(default)]
    pub shared: bool,
}

/// Where the daemon is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ControlConfig {
    /// The socket; `control.sock` in the state if not given.
    pub socket: Option<PathBuf>,
    /// An address on the loopback interface where the live page, the metrics and the API are served; none if not given.
    pub listen: Option<SocketAddr>,
    /// A file with the token that lets a request over TCP change something; without it nothing is changed there.
    pub token_file: Option<PathBuf>,
    /// The folder of the built page; where it was installed beside this program if not given.
    pub page: Option<PathBuf>,
}

/// Commands that are asked and told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HookConfig {
    /// Asked before a version is published; one that does not end with 0 keeps it from that.
    pub pre_publish: Option<Vec<String>>,
    /// Told when a version is public.
    pub on_release: Option<Vec<String>>,
    /// Told when a path has used up its attempts, or a version was vetoed.
    pub on_failure: Option<Vec<String>>,
    /// Seconds that each of them may take.
    pub seconds: f64,
}

/// Event files for TensorBoard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TensorBoardConfig {
    /// The folder that they are written to, relative to the state; none are if not given.
    pub folder: Option<PathBuf>,
}

pub(super) fn default_slots() -> Vec<SlotConfig> {
    vec![SlotConfig { name: "cpu".to_owned(), devices: vec!["cpu".to_owned()], shared: false }]
}

fn default_precision() -> artifacts::job::Precision {
    artifacts::job::Precision::F32
}

impl Default for Paradigms {
    fn default() -> Self {
        Self::One(Paradigm::PathSwitching)
    }
}

impl Default for TokenizerConfig {
    fn default() -> Self {
        Self {
            file: None,
            vocabulary: None,
            train_bytes: 100_000_000,
            end_of_text: EndOfTextConfig::Token(EndOfText::Text("<|endoftext|>".to_owned())),
        }
    }
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            folder: PathBuf::from("data"),
            sequence_length: 1024,
            sequences_per_step: 32,
            held_out_share: 0.01,
            held_out_block: 1024,
            mask_documents: false,
            jsonl_field: "text".to_owned(),
            token_width: TokenWidth::Uint16,
            settle_seconds: 5.0,
            scan_seconds: 30.0,
            longest_document: 256 << 20,
            reader_memory: 8 << 30,
            reader_seconds: 3600,
        }
    }
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self {
            peak: 3e-4,
            min: 3e-5,
            warmup_steps: 2000,
            alpha: 0.6,
            decay: Decay::Cosine,
            hold: None,
            rewarmup_steps: 0,
        }
    }
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: 1.0 }
    }
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every: 1000 }
    }
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self { automatic: true, branch_points: 2 }
    }
}

impl Default for EvaluateConfig {
    fn default() -> Self {
        Self { every: None, max_tokens: 131_072 }
    }
}

impl Default for HookConfig {
    fn default() -> Self {
        Self { pre_publish: None, on_release: None, on_failure: None, seconds: 60.0 }
    }
}

impl Default for TrainerConfig {
    fn default() -> Self {
        Self {
            command: None,
            threads: None,
            micro_batch: None,
            shrink_micro_batch: false,
            recompute: artifacts::job::Recompute::default(),
            on_spike: OnSpike::default(),
            silent_seconds: 600.0,
            stop_seconds: 60.0,
            attempts: 5,
            backoff_seconds: 5.0,
            longest_backoff_seconds: 600.0,
        }
    }
}
