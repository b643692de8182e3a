//! The counts, in the words of Prometheus. They begin at zero with every start of the daemon, as counters do.

use paradigm::Paradigm;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// How something ended, a word.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Ended {
    /// The word.
    pub outcome: &'static str,
}

/// Whose.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Of {
    /// The paradigm.
    pub paradigm: String,
}

impl From<Paradigm> for Of {
    fn from(paradigm: Paradigm) -> Self {
        Self { paradigm: paradigm.to_string() }
    }
}

/// What is counted.
#[derive(Debug)]
pub struct Counters {
    pub(super) files: Family<Ended, Counter>,
    pub(super) file_bytes: Counter,
    pub(super) readers_died: Counter,
    pub(super) cuts: Family<Ended, Counter>,
    pub(super) attempts_started: Counter,
    pub(super) attempts_ended: Family<Ended, Counter>,
    pub(super) checkpoints_saved: Counter,
    pub(super) checkpoint_seconds: Histogram,
    pub(super) checkpoint_stall_seconds: Histogram,
    pub(super) checkpoints_set_aside: Counter,
    pub(super) steps_skipped: Counter,
    pub(super) paths_failed: Counter,
    pub(super) versions_vetoed: Counter,
    pub(super) versions_released: Family<Of, Counter>,
}

impl Default for Counters {
    fn default() -> Self {
        // From a tenth of a second to about half an hour.
        let seconds = || Histogram::new(exponential_buckets(0.1, 2.0, 15));
        // What has not happened yet is zero, not unknown: else its first time would be no increase.
        let from_zero = |words: &[&'static str]| {
            let family = Family::<Ended, Counter>::default();
            for outcome in words {
                let _ = family.get_or_create(&Ended { outcome });
            }
            family
        };
        Self {
            files: from_zero(&["accepted", "duplicate", "rejected"]),
            file_bytes: Counter::default(),
            readers_died: Counter::default(),
            cuts: from_zero(&["made", "refused"]),
            attempts_started: Counter::default(),
            attempts_ended: from_zero(&["finished", "stopped", "failed", "hindered", "crashed"]),
            checkpoints_saved: Counter::default(),
            checkpoint_seconds: seconds(),
            checkpoint_stall_seconds: seconds(),
            checkpoints_set_aside: Counter::default(),
            steps_skipped: Counter::default(),
            paths_failed: Counter::default(),
            versions_vetoed: Counter::default(),
            versions_released: Family::default(),
        }
    }
}

impl Counters {
    /// Adds them, with names and what they mean.
    pub fn register(&self, registry: &mut Registry) {
        let mut add = |name: &str, help: &str, counter: &Counter| {
            registry.register(name, help, counter.clone());
        };
        add("lrpath_file_bytes", "Bytes of the files that were accepted", &self.file_bytes);
        add("lrpath_readers_died", "Processes that died while they read a shard", &self.readers_died);
        add("lrpath_attempts_started", "Attempts at jobs that were started", &self.attempts_started);
        add("lrpath_checkpoints_saved", "Checkpoints that were saved", &self.checkpoints_saved);
        add("lrpath_checkpoints_set_aside", "Checkpoints that were damaged", &self.checkpoints_set_aside);
        add("lrpath_steps_skipped", "Steps that make no update from then on", &self.steps_skipped);
        add("lrpath_paths_failed", "Paths that have used up their attempts", &self.paths_failed);
        add(
            "lrpath_versions_vetoed",
            "Versions that pre_publish kept from being published",
            &self.versions_vetoed,
        );
        let help = "Files of the watched folder that were settled";
        registry.register("lrpath_files", help, self.files.clone());
        registry.register("lrpath_cuts", "Cuts that were decided", self.cuts.clone());
        registry.register(
            "lrpath_attempts_ended",
            "Attempts at jobs that have ended",
            self.attempts_ended.clone(),
        );
        registry.register(
            "lrpath_versions_released",
            "Versions that were published",
            self.versions_released.clone(),
        );
        let help = "Time from a checkpoint's copy to the disk";
        registry.register("lrpath_checkpoint_seconds", help, self.checkpoint_seconds.clone());
        let help = "Time in which no step was trained for a checkpoint";
        registry.register("lrpath_checkpoint_stall_seconds", help, self.checkpoint_stall_seconds.clone());
    }
}
