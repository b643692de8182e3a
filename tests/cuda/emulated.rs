//! Whole jobs of a trainer that was built with CUDA, on a GPU that is this machine's CPU: all that runs where there is a GPU
//! runs, but the GPU itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::emulated_driver::EmulatedDriver;
use harness::sizes::Size;
use serde_json::{Value, json};

use crate::{events_of, with_cuda};

const STEPS: u64 = 4;
/// Checkpoints at every multiple of this.
const EVERY: u64 = 2;
/// In which any job here ends, or does not end.
const PATIENCE: Duration = Duration::from_secs(240);

/// A job in a folder, after a change.
fn job(folder: &Path, change: impl FnOnce(&mut Value)) -> PathBuf {
    let path = Size::named("tiny").job(folder, 32, 4, STEPS, Some(EVERY));
    let mut job: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    (job["micro_batch"], job["threads"], job["device"]) = (json!(2), json!(2), json!("cuda"));
    change(&mut job);
    fs::write(&path, job.to_string()).unwrap();
    path
}

/// How a job ended.
struct Ended {
    code: Option<i32>,
    events: Vec<Value>,
    said: String,
}

impl Ended {
    fn of(&self, kind: &str) -> Vec<&Value> {
        self.events.iter().filter(|event| event["event"] == kind).collect()
    }

    fn kernels(&self) -> &str {
        self.of("started")[0]["kernels"].as_str().unwrap()
    }

    /// Of each step, a number.
    fn numbers(&self, key: &str) -> Vec<f64> {
        self.of("step").iter().map(|step| step[key].as_f64().unwrap()).collect()
    }

    /// The only failure, of a kind.
    fn failure(&self, kind: &str) -> String {
        let failures = self.of("failed");
        assert_eq!((self.code, failures.len()), (Some(71), 1), "{}", self.said);
        assert!(!self.said.contains("panicked"), "{}", self.said);
        assert_eq!(failures[0]["kind"], kind, "{failures:?}");
        failures[0]["message"].as_str().unwrap().to_owned()
    }

    /// It came to its end.
    fn trained(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.said);
        self
    }
}

/// Runs a job where GPUs are so, to its end.
fn run(path: &Path, driver: &EmulatedDriver, words: &str) -> Ended {
    let mut command = Command::new(with_cuda());
    command.arg("--job").arg(path).envs(driver.environment(words)).env_remove("CUDA_VISIBLE_DEVICES");
    let (said, events) = (path.with_file_name("said"), path.with_file_name("events"));
    command.stdin(Stdio::null());
    command.stdout(fs::File::create(&events).unwrap()).stderr(fs::File::create(&said).unwrap());
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it does not end: {}", fs::read_to_string(said).unwrap());
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    Ended {
        code: status.code(),
        events: events_of(&fs::read(events).unwrap()),
        said: fs::read_to_string(said).unwrap(),
    }
}

/// The digest of the weights after the last step.
fn weights(folder: &Path) -> blake3::Hash {
    let file = folder.join(format!("checkpoints/path-switching.main.g1.s{STEPS}/model.safetensors"));
    blake3::hash(&fs::read(file).unwrap())
}

fn are_near(ones: &[f64], others: &[f64], relative: f64) {
    assert_eq!(ones.len(), others.len());
    for (one, other) in ones.iter().zip(others) {
        assert!((one - other).abs() <= relative * one.abs(), "{ones:?} and {others:?}");
    }
}

/// The launches that a whole job makes.
fn launches(ended: &Ended) -> u64 {
    let words = ended.said.lines().find_map(|line| line.strip_prefix("emulated GPU: launches "));
    words.unwrap().parse().unwrap()
}

#[test]
fn a_job_on_a_gpu_makes_the_steps_of_the_cpu() {
    let driver = EmulatedDriver::new();
    let on = |device: &str, precision: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = job(folder.path(), |job| {
            (job["device"], job["precision"]) = (json!(device), json!(precision));
        });
        run(&path, &driver, "").trained()
    };
    let (cpu, gpu, rounded) = (on("cpu", "f32"), on("cuda", "f32"), on("cuda", "bf16"));
    assert_eq!(gpu.kernels(), "gpu-f32-cuda-sm90-lt130100");
    assert_eq!(rounded.kernels(), "gpu-bf16-cuda-sm90-lt130100");
    for (key, exact, near) in [("loss", 1e-5, 5e-3), ("grad_norm", 1e-4, 3e-2)] {
        are_near(&cpu.numbers(key), &gpu.numbers(key), exact);
        are_near(&cpu.numbers(key), &rounded.numbers(key), near);
    }
    assert_ne!(gpu.numbers("loss"), rounded.numbers("loss"));
}

#[test]
fn a_gpu_that_fails_in_the_middle_fails_the_job_in_words_and_what_goes_on_has_the_same_bits() {
    let driver = EmulatedDriver::new();
    let change = |job: &mut Value| job["precision"] = json!("bf16");
    let undisturbed = tempfile::tempdir().unwrap();
    let whole = run(&job(undisturbed.path(), change), &driver, "tells=1").trained();
    let middle = launches(&whole) * 3 / 4;
    for (error, kind, words) in [
        (719, "device", "the GPU has failed, or its driver was reset"),
        (2, "no-memory", "take a smaller trainer.micro_batch"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = job(folder.path(), change);
        let failed = run(&path, &driver, &format!("fails_at={middle} fails_with={error}"));
        let told = failed.failure(kind);
        assert!(told.contains(words), "{told}");
        let checkpoint = (*failed.of("checkpoint").last().unwrap()).clone();
        assert!(checkpoint["step"].as_u64().unwrap() >= EVERY && failed.of("step").len() < STEPS as usize);
        let path = job(folder.path(), |job| {
            change(job);
            job["start"] = json!({
                "kind": "checkpoint",
                "path": folder.path().join("checkpoints").join(checkpoint["path"].as_str().unwrap()),
                "digest": checkpoint["digest"],
                "step": checkpoint["step"],
            });
        });
        run(&path, &driver, "").trained();
        assert_eq!(weights(folder.path()), weights(undisturbed.path()));
    }
}

#[test]
fn a_job_that_does_not_fit_is_refused_before_its_first_step() {
    let driver = EmulatedDriver::new();
    let folder = tempfile::tempdir().unwrap();
    let change = |job: &mut Value| (job["micro_batch"], job["precision"]) = (json!(4), json!("bf16"));
    let told = run(&job(folder.path(), change), &driver, "memory=110000000").failure("no-memory");
    assert!(told.contains("micro_batch"), "{told}");
    assert!(fs::read_dir(folder.path().join("checkpoints")).unwrap().next().is_none());
}

/// Two ranks, where GPUs are so.
fn together(folder: &Path, driver: &EmulatedDriver, words: &str) -> Ended {
    let path = job(folder, |job| (job["ranks"], job["micro_batch"]) = (json!(2), json!(1)));
    run(&path, driver, &format!("gpus=2 {words}"))
}

#[test]
fn two_gpus_train_as_one_whenever_their_sums_are_taken() {
    let driver = EmulatedDriver::new();
    let alone = tempfile::tempdir().unwrap();
    let alone = run(&job(alone.path(), |_| {}), &driver, "").trained();
    // Through the host's memory sums are in the order of the ranks too: all must have these bits.
    let through_host = tempfile::tempdir().unwrap();
    let host = together(through_host.path(), &EmulatedDriver::without_nccl(), "").trained();
    assert!(host.said.contains("libnccl.so.2 cannot be loaded"), "{}", host.said);
    assert_eq!(host.kernels(), "gpu-f32-cuda-sm90-lt130100-x2");
    for words in ["", "late=1"] {
        let folder = tempfile::tempdir().unwrap();
        let two = together(folder.path(), &driver, words).trained();
        assert_eq!(two.kernels(), "gpu-f32-cuda-sm90-lt130100-nccl22809-x2");
        for key in ["loss", "grad_norm"] {
            are_near(&alone.numbers(key), &two.numbers(key), 1e-6);
            assert_eq!(two.numbers(key), host.numbers(key), "{words}");
        }
        assert_eq!(weights(folder.path()), weights(through_host.path()), "{words}");
    }
}

#[test]
fn an_nccl_that_cannot_be_used_is_done_without() {
    let folder = tempfile::tempdir().unwrap();
    let ended = together(folder.path(), &EmulatedDriver::new(), "nccl=21505").trained();
    assert!(ended.said.contains("NCCL 21505 is older than 21800"), "{}", ended.said);
    assert_eq!(ended.kernels(), "gpu-f32-cuda-sm90-lt130100-x2");
}

/// NCCL's kernels wait for ever for a GPU that has failed: the others must not.
#[test]
fn a_rank_whose_gpu_fails_ends_all() {
    let driver = EmulatedDriver::new();
    let folder = tempfile::tempdir().unwrap();
    let whole = together(folder.path(), &driver, "tells=1").trained();
    let middle = launches(&whole) * 3 / 4;
    for words in ["", "late=1"] {
        for (rank, kind, told) in [(0, "device", "the GPU has failed"), (1, "parted", "rank 1 has ended")] {
            let folder = tempfile::tempdir().unwrap();
            let words = format!("{words} fails_at={middle} fails_on={rank}");
            let failed = together(folder.path(), &driver, &words);
            let message = failed.failure(kind);
            assert!(message.contains(told), "{words}: {message}");
            assert!(failed.said.contains("the GPU has failed"), "{words}: {}", failed.said);
            // Both end by themselves: one that is ended says no such thing.
            assert_eq!(failed.said.matches("steps took").count(), 2, "{words}: {}", failed.said);
            assert!(!failed.of("checkpoint").is_empty(), "{words}");
        }
    }
}

/// The checks that `make gpu-test` makes on a GPU.
#[test]
fn the_checks_for_a_gpu_pass() {
    let program = with_cuda().with_file_name("gpu-test");
    let driver = EmulatedDriver::new();
    let mut command = Command::new(program);
    // No runs of many steps: a GPU makes them faster.
    let output = command.arg("0").envs(driver.environment("memory=8000000000")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.starts_with("cuda-sm90-lt130100\n") && said.lines().count() > 20, "{said}");
}

/// cuDNN itself, without the kernels that come compiled, and without a GPU: it compiles what it would run on one.
#[test]
fn cudnn_has_a_plan_for_attention_of_every_shape_that_it_takes() {
    let kit =
        PathBuf::from(std::env::var_os("LRPATH_CUDA_KIT").expect("LRPATH_CUDA_KIT: run `make cuda-check`"));
    let driver = EmulatedDriver::alone();
    let [(libraries, own), world] = driver.environment("gpus=0");
    let libraries_of = |part: &str| kit.join(part).join("lib").display().to_string();
    let mut command = Command::new(with_cuda().with_file_name("gpu-test"));
    command.arg("plans").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda/h200.json"));
    command.env(libraries, [libraries_of("cudnn"), libraries_of("cuda"), own].join(":")).envs([world]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let count = |word: &str| said.lines().filter(|line| line.starts_with(word)).count();
    assert_eq!((count("ok "), count("none ")), (7, 2), "{said}");
}
