//! A job as it stands on disk: read, checked as a whole, its folder held by one trainer.

use std::fs::File;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use artifacts::job::{self, Job, MOST_RANKS, MOST_THREADS, Spikes, Start};
use artifacts::versioned;

use crate::failure::{Failure, Kind};
use crate::model::Config;
use crate::patience::Patience;

/// The file in a job's folder that its trainer locks.
pub const LOCK: &str = "lock";

/// A job that makes sense in itself, and the folder that its relative paths start at.
#[derive(Debug, Clone)]
pub struct Task {
    /// The job.
    pub job: Job,
    /// The job's file.
    pub path: PathBuf,
    /// Its folder.
    pub folder: PathBuf,
}

impl Task {
    /// Reads a `job.json` and checks what can be checked without any other file.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let job = job::read(path).map_err(|error| {
            let kind = match &error {
                versioned::Error::Unreadable { cause, .. } => Kind::of_reading(cause),
                versioned::Error::Malformed { .. } => Kind::Data,
                versioned::Error::Newer { .. } => Kind::Config,
            };
            Failure::new(kind, error)
        })?;
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        check(&job)
            .map_err(|reason| Failure::new(Kind::Config, format!("`{}`: {reason}", path.display())))?;
        Ok(Self { job, path: path.to_owned(), folder })
    }

    /// How long a disk is waited for, or until `stop` is set.
    pub fn patience(&self, stop: &Arc<AtomicBool>) -> Patience {
        Patience::new(Duration::from_secs(self.job.checkpoints.wait.into()), stop.clone())
    }

    /// Where a path of the job leads.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    /// The configuration of the job's model, which must fit the job.
    pub fn config(&self) -> Result<Config, Failure> {
        self.config_at(&self.resolve(&self.job.model))
    }

    /// The configuration in the file `path`, which must fit the job.
    pub fn config_at(&self, path: &Path) -> Result<Config, Failure> {
        let config = Config::read(path)?;
        let refuse =
            |reason: String| Err(Failure::new(Kind::Config, format!("`{}`: {reason}", self.path.display())));
        let length = self.job.sequence_length as usize;
        if length > config.positions {
            return refuse(format!(
                "sequence_length is {length}, but {} has {} positions (max_position_embeddings)",
                path.display(),
                config.positions
            ));
        }
        match self.job.mask_documents_at {
            Some(token) if token as usize >= config.vocabulary => refuse(format!(
                "mask_documents_at is {token}, but {} has {} tokens (vocab_size)",
                path.display(),
                config.vocabulary
            )),
            _ => Ok(config),
        }
    }

    /// Step that this attempt trains first.
    pub fn first_step(&self) -> u64 {
        match self.job.start {
            Start::New { .. } | Start::Folder { .. } => self.job.from,
            Start::Checkpoint { step, .. } => step,
        }
    }
}

/// Longest window of norms: each checkpoint holds them.
const MOST_NORMS: u32 = 10_000;

/// Takes the lock of a job's folder, which is held until the file is dropped: the process that holds it lives.
pub fn lock(folder: &Path) -> Result<File, Failure> {
    let path = folder.join(LOCK);
    let cannot = |error: &dyn std::fmt::Display| {
        Failure::new(Kind::CannotCreate, format!("cannot lock `{}`: {error}", path.display()))
    };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| cannot(&error))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => Err(Failure::new(
            Kind::Locked,
            format!("`{}` is held by another trainer: one job is trained once", path.display()),
        )),
        Err(error) => Err(cannot(&error)),
    }
}

/// Why a job makes no sense, if it does not.
fn check(job: &Job) -> Result<(), String> {
    let at_least_one = [
        ("sequence_length", u64::from(job.sequence_length)),
        ("sequences_per_step", u64::from(job.sequences_per_step)),
        ("micro_batch", u64::from(job.micro_batch)),
        ("checkpoints.every", job.checkpoints.every.unwrap_or(1)),
        ("evaluation.every", job.evaluation.every.unwrap_or(1)),
        ("threads", u64::from(job.threads.unwrap_or(1))),
        ("ranks", u64::from(job.ranks)),
    ];
    if let Some((key, _)) = at_least_one.iter().find(|(_, value)| *value == 0) {
        return Err(format!("`{key}` is 0; at least 1 was expected"));
    }
    if job.threads.is_some_and(|threads| threads > MOST_THREADS) {
        return Err(format!("`threads` is more than {MOST_THREADS}; leave it out for one for each core"));
    }
    if job.ranks > MOST_RANKS {
        return Err(format!("`ranks` is more than {MOST_RANKS}"));
    }
    let together = u64::from(job.micro_batch) * u64::from(job.ranks);
    if job.ranks > 1 && !u64::from(job.sequences_per_step).is_multiple_of(together) {
        return Err(format!(
            "micro_batch {} on each of {} ranks does not divide sequences_per_step {}",
            job.micro_batch, job.ranks, job.sequences_per_step
        ));
    }
    if !job.sequences_per_step.is_multiple_of(job.micro_batch) {
        return Err(format!(
            "micro_batch {} does not divide sequences_per_step {}",
            job.micro_batch, job.sequences_per_step
        ));
    }
    let mut parts = Path::new(&job.path).components();
    if !matches!((parts.next(), parts.next()), (Some(Component::Normal(name)), None) if name == job.path.as_str())
    {
        return Err(format!("path `{}` cannot be part of a folder's name", job.path));
    }
    check_steps(job)?;
    if let Some(Spikes { window, times, .. }) = &job.spikes
        && (*window == 0 || *window > MOST_NORMS || !(*times >= 1.0 && times.is_finite()))
    {
        return Err(format!(
            "spikes: a window of {window} and {times} times its median; 1 to {MOST_NORMS} and a number of at least 1 \
             were expected"
        ));
    }
    check_optimizer(&job.optimizer)
}

fn check_steps(job: &Job) -> Result<(), String> {
    const LAST: u64 = 1 << 53;
    if job.from > job.to || job.to >= LAST {
        return Err(format!("the steps from {} to {} are no range below 2^53", job.from, job.to));
    }
    let (sequences, length) = (u64::from(job.sequences_per_step), u64::from(job.sequence_length));
    if job.to.saturating_mul(sequences).saturating_mul(length) >= LAST {
        return Err(format!(
            "{} steps of {sequences} sequences of {length} tokens are 2^53 tokens or more",
            job.to
        ));
    }
    match job.start {
        Start::Checkpoint { step, .. } if !(job.from..=job.to).contains(&step) => {
            return Err(format!(
                "it starts at a checkpoint after {step} steps, which is not within {} and {}",
                job.from, job.to
            ));
        }
        // What trains nothing needs no moments.
        Start::New { .. } | Start::Folder { .. } if job.from == job.to && !job.checkpoints.at_end => {}
        Start::New { .. } | Start::Folder { .. } if job.from != 0 => {
            return Err(format!(
                "it starts with new moments at step {}; only a checkpoint leads to a later step than 0",
                job.from
            ));
        }
        _ => {}
    }
    if !job.skip.is_sorted_by(|a, b| a < b) {
        return Err("the steps in `skip` are not in rising order".to_owned());
    }
    Ok(())
}

fn check_optimizer(optimizer: &job::Optimizer) -> Result<(), String> {
    let wrong = |key: &str, value: f64, expected: &str| {
        Err(format!("optimizer.{key} is {value}; {expected} was expected"))
    };
    for (key, beta) in [("beta1", optimizer.beta1), ("beta2", optimizer.beta2)] {
        if !(0.0..1.0).contains(&beta) {
            return wrong(key, beta, "a number from 0, below 1,");
        }
    }
    for (key, value) in [("eps", optimizer.eps), ("clip", optimizer.clip)] {
        if !(value > 0.0 && value.is_finite()) {
            return wrong(key, value, "a positive number");
        }
    }
    if !(optimizer.weight_decay >= 0.0 && optimizer.weight_decay.is_finite()) {
        return wrong("weight_decay", optimizer.weight_decay, "a number of at least 0");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;

    fn refusal(change: impl FnOnce(&mut Job)) -> Failure {
        let mut fixture = Fixture::new();
        change(&mut fixture.job);
        Task::read(&fixture.write()).and_then(|task| task.config()).unwrap_err()
    }

    #[test]
    fn a_job_that_makes_no_sense_is_refused_with_the_key() {
        let digest = artifacts::Digest::of(b"");
        type Change<'a> = &'a dyn Fn(&mut Job);
        let cases: [(Change<'_>, &str); 21] = [
            (&|job| job.ranks = 0, "`ranks` is 0"),
            (&|job| job.ranks = 65, "`ranks` is more than 64"),
            (
                &|job| (job.ranks, job.micro_batch) = (3, 2),
                "micro_batch 2 on each of 3 ranks does not divide sequences_per_step 4",
            ),
            (&|job| job.sequence_length = 0, "`sequence_length` is 0"),
            (&|job| job.sequences_per_step = 0, "`sequences_per_step` is 0"),
            (&|job| job.micro_batch = 0, "`micro_batch` is 0"),
            (&|job| job.micro_batch = 3, "micro_batch 3 does not divide sequences_per_step 4"),
            (&|job| job.checkpoints.every = Some(0), "`checkpoints.every` is 0"),
            (&|job| job.evaluation.every = Some(0), "`evaluation.every` is 0"),
            (&|job| job.threads = Some(0), "`threads` is 0"),
            (&|job| job.path = "../up".to_owned(), "path `../up` cannot be part"),
            (&|job| job.path = String::new(), "path `` cannot be part"),
            (&|job| job.to = u64::MAX, "no range below 2^53"),
            (&|job| (job.from, job.to) = (3, 2), "from 3 to 2"),
            (
                &|job| (job.to, job.sequences_per_step) = (1 << 48, 32),
                "281474976710656 steps of 32 sequences of 12 tokens are 2^53 tokens or more",
            ),
            (&|job| job.from = 1, "new moments at step 1"),
            (
                &|job| {
                    let path = PathBuf::from("c");
                    job.start = Start::Checkpoint { path, digest, step: 21 };
                },
                "after 21 steps, which is not within 0 and 20",
            ),
            (&|job| job.skip = vec![4, 4], "`skip` are not in rising order"),
            (&|job| job.optimizer.beta2 = 1.0, "optimizer.beta2 is 1"),
            (&|job| job.optimizer.clip = 0.0, "optimizer.clip is 0"),
            (&|job| job.optimizer.weight_decay = -0.1, "optimizer.weight_decay is -0.1"),
        ];
        for (change, reason) in cases {
            let refusal = refusal(change);
            assert_eq!(refusal.kind, Kind::Config);
            assert!(refusal.message.contains("job.json`: ") && refusal.message.contains(reason), "{refusal}");
        }
    }

    #[test]
    fn a_job_that_does_not_fit_its_model_is_refused() {
        let too_long = refusal(|job| job.sequence_length = 65);
        assert!(too_long.message.contains("has 64 positions"), "{too_long}");
        let outside = refusal(|job| job.mask_documents_at = Some(31));
        assert!(outside.message.contains("has 31 tokens"), "{outside}");
        assert_eq!(refusal(|job| job.model = PathBuf::from("gone.json")).kind, Kind::NoInput);
    }

    #[test]
    fn a_locked_folder_is_not_locked_twice() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path()).unwrap();
        let refused = lock(folder.path()).unwrap_err();
        assert_eq!(refused.kind, Kind::Locked);
        assert!(refused.message.contains("held by another trainer"));
        drop(held);
        assert!(lock(folder.path()).is_ok());
    }
}
