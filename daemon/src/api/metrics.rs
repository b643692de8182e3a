//! The metrics, as Prometheus asks for them: what was counted since the start, and what is so at this moment.
//!
//! What is so is asked for when somebody looks, and comes out of the same status as every other answer. A label never holds
//! a number that grows for ever: a job is told by its path and slot, and what is over is not told any more.

use std::fmt;
use std::fs;
use std::sync::atomic::AtomicU64;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::refused::Refused;
use super::shared::{Shared, blocking};
use super::types::{Device, RunningJob, Status};
use super::{Backend, status};
use crate::ledger::hindrances::Waits;
use crate::ledger::tree::{Tree, VersionState};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What Prometheus asks for: the metrics.
#[utoipa::path(
    get,
    path = "/metrics",
    responses((status = 200, description = "OpenMetrics, or Prometheus' own text format.", body = String, content_type = "text/plain"))
)]
pub(super) async fn metrics(State(shared): State<Shared>, headers: HeaderMap) -> Result<Response, Refused> {
    let text = blocking(&shared.backend, text).await?.map_err(|fmt::Error| {
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the metrics cannot be written")
    })?;
    let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let (kind, text) = match accepts.contains("application/openmetrics-text") {
        true => (OPEN_METRICS, text),
        false => (PLAIN, plain(&text)),
    };
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// All metrics in OpenMetrics' text format.
fn text(backend: &Backend) -> Result<String, fmt::Error> {
    let mut counted = Registry::default();
    backend.telemetry.counters.register(&mut counted);
    let mut now = Moment::default();
    now.of_status(&status::of(backend));
    backend.ledger.read(|tree| now.of_tree(tree));
    now.of_process();
    let mut text = String::new();
    encode_registry(&mut text, &counted)?;
    encode_registry(&mut text, &now.0)?;
    encode_eof(&mut text)?;
    Ok(text)
}

/// The same in the older format, which calls a counter by its whole name and has no end.
fn plain(text: &str) -> String {
    let counters: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut plain = String::with_capacity(text.len());
    for line in text.lines().filter(|line| *line != "# EOF") {
        let described = ["# HELP ", "# TYPE "].into_iter().find_map(|word| {
            let (name, rest) = line.strip_prefix(word)?.split_once(' ')?;
            counters.contains(&name).then(|| format!("{word}{name}_total {rest}"))
        });
        plain.push_str(described.as_deref().unwrap_or(line));
        plain.push('\n');
    }
    plain
}

/// How a word is called in JSON.
fn word(waits: Waits) -> String {
    serde_json::to_value(waits).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

type Labels = Vec<(&'static str, String)>;

/// What is so now.
#[derive(Default)]
struct Moment(Registry);

impl Moment {
    fn tell(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, f64)>) {
        let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
        }
        self.0.register(name, help, family);
    }

    fn one(&mut self, name: &str, help: &str, value: f64) {
        self.tell(name, help, [(Labels::new(), value)]);
    }

    fn of_status(&mut self, status: &Status) {
        let of = |label, word: &str| vec![(label, word.to_owned())];
        self.tell("lrpath_build_info", "The running program", [(of("version", &status.program), 1.0)]);
        self.one("lrpath_paused", "Whether somebody asked for a pause", f64::from(u8::from(status.paused)));
        self.one("lrpath_draining", "Whether nothing new is started", f64::from(u8::from(status.draining)));
        let waits = Waits::ALL.iter().map(|what| {
            let has = status.hindrances.iter().any(|waiting| waiting.what == *what);
            (of("what", &word(*what)), f64::from(u8::from(has)))
        });
        self.tell("lrpath_hindered", "What waits because it cannot be written", waits);
        self.one("lrpath_journal_position", "Records of the journal", status.position as f64);
        self.one(
            "lrpath_disk_free_bytes",
            "Free on the state's file system",
            status.disk.free.unwrap_or(0) as f64,
        );
        self.one("lrpath_checkpoint_bytes", "Taken by usable checkpoints", status.disk.checkpoints as f64);
        self.one("lrpath_release_bytes", "Taken by releases", status.disk.releases as f64);
        let shards = &status.shards;
        let counts = [
            ("waiting", shards.waiting),
            ("blocked", status.blocked.count),
            ("accepted", shards.accepted),
            ("rejected", shards.rejected),
            ("withdrawn", shards.withdrawn),
        ];
        let counts = counts.map(|(word, count)| (of("state", word), count as f64));
        self.tell("lrpath_shards", "Files of the watched folder by what became of them", counts);
        self.one(
            "lrpath_cut_waits",
            "Whether a request to cut waits for files",
            f64::from(u8::from(status.waiting_cut.is_some())),
        );
        let slots =
            |is_busy: bool| status.slots.iter().filter(|slot| slot.job.is_some() == is_busy).count() as f64;
        let slots = [(of("state", "busy"), slots(true)), (of("state", "free"), slots(false))];
        self.tell("lrpath_slots", "Places for jobs", slots);
        self.of_devices(&status.devices);
        self.of_paradigms(status);
        self.of_jobs(&status.jobs);
    }

    fn of_devices(&mut self, devices: &[Device]) {
        let labels = |device: &Device| {
            vec![
                ("index", device.index.to_string()),
                ("name", device.name.clone()),
                ("uuid", device.uuid.clone()),
            ]
        };
        let mut each = |name: &str, help: &str, value: &dyn Fn(&Device) -> Option<f64>| {
            let values = devices.iter().filter_map(|device| Some((labels(device), value(device)?)));
            self.tell(name, help, values.collect::<Vec<_>>());
        };
        each("lrpath_device_memory_bytes", "Memory of a GPU", &|device| {
            device.memory.map(|bytes| bytes as f64)
        });
        each(
            "lrpath_device_memory_used_bytes",
            "Memory of a GPU that is in use, whoever uses it",
            &|device| device.memory_used.map(|bytes| bytes as f64),
        );
        each(
            "lrpath_device_utilisation_ratio",
            "Share of the last moments in which a GPU computed",
            &|device| device.utilisation,
        );
    }

    fn of_paradigms(&mut self, status: &Status) {
        let mut steps = Vec::new();
        let mut versions = Vec::new();
        let mut ratios = Vec::new();
        for (paradigm, known) in &status.paradigms {
            let labels =
                |label, word: &str| vec![("paradigm", paradigm.to_string()), (label, word.to_owned())];
            let counts = &known.steps;
            for (word, count) in
                [("executed", counts.executed), ("repeated", counts.repeated), ("ahead", counts.ahead)]
            {
                steps.push((labels("kind", word), count as f64));
            }
            ratios.extend(counts.ratio.map(|ratio| (vec![("paradigm", paradigm.to_string())], ratio)));
            for state in VersionState::ALL {
                let count = known.versions.iter().filter(|version| version.state == state).count();
                versions.push((labels("state", &state.to_string()), count as f64));
            }
        }
        self.tell(
            "lrpath_steps",
            "Steps that were trained: the trainers' own, each in one of the three",
            steps,
        );
        self.tell("lrpath_versions", "Versions by how far they are", versions);
        self.tell(
            "lrpath_cost_ratio",
            "Steps of the released versions, divided by from-scratch training's",
            ratios,
        );
    }

    fn of_jobs(&mut self, jobs: &[RunningJob]) {
        let labels = |job: &RunningJob| vec![("path", job.path.to_string()), ("slot", job.slot.clone())];
        let mut each = |name: &str, help: &str, value: &dyn Fn(&RunningJob) -> Option<f64>| {
            let values = jobs.iter().filter_map(|job| Some((labels(job), value(job)?)));
            self.tell(name, help, values.collect::<Vec<_>>());
        };
        each("lrpath_job_step", "Updates of a running job's path", &|job| Some(job.step as f64));
        each("lrpath_job_steps_left", "Updates to its last step", &|job| {
            Some(job.to.saturating_sub(job.step) as f64)
        });
        each("lrpath_job_loss", "Its last step's loss in nats a token", &|job| job.loss);
        each("lrpath_job_learning_rate", "Its last step's rate", &|job| job.learning_rate);
        each("lrpath_job_tokens_per_second", "Its last step's speed", &|job| job.tokens_per_second);
        each("lrpath_job_warns", "Whether something of it is told that is no failure", &|job| {
            Some(f64::from(u8::from(job.warning.is_some())))
        });
    }

    fn of_tree(&mut self, tree: &Tree) {
        let standing = || tree.shards().iter().filter(|shard| shard.withdrawn.is_none());
        let tokens = standing().filter_map(|shard| shard.tokens);
        let (stream, held_out) = tokens
            .fold((0, 0), |(stream, held_out), tokens| (stream + tokens.stream, held_out + tokens.held_out));
        let bytes: u64 = standing().map(|shard| shard.file.bytes).sum();
        self.one("lrpath_shard_bytes", "Bytes of the accepted shards", bytes as f64);
        self.one("lrpath_stream_tokens", "Tokens of the stream", stream as f64);
        self.one("lrpath_held_out_tokens", "Tokens that no version trains on", held_out as f64);
        let losses = tree.paradigms().iter().filter_map(|paradigm| {
            let latest =
                tree.releases().keys().filter(|(of, _)| of == paradigm).map(|(_, version)| *version).max()?;
            let increment = tree.increment(latest)?;
            let path = tree.version_path(*paradigm, latest);
            let own = tree.evaluation(path, increment.end, latest)?;
            Some((vec![("paradigm", paradigm.to_string())], own.loss))
        });
        let losses: Vec<_> = losses.collect();
        self.tell("lrpath_release_loss", "Held-out loss of the newest version on its own increment", losses);
    }

    fn of_process(&mut self) {
        let resident =
            fs::read_to_string("/proc/self/status").ok().and_then(|text| resident_kilobytes(&text));
        if let Some(kilobytes) = resident {
            self.one("process_resident_memory_bytes", "Resident memory of the daemon", kilobytes * 1024.0);
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            self.one("process_open_fds", "Open file descriptors of the daemon", open.count() as f64);
        }
    }
}

fn resident_kilobytes(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}
