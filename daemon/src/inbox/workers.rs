//! The threads that hash files and talk to the children.
//!
//! Each has at most one child, which is started when it is first needed and kept warm. A child dies with the thread that
//! started it, so it is a thread that lives as long as the inbox. Jobs go to the first free worker: where there is little
//! to do it is always the same one, and its child is warm.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use artifacts::Digest;
use artifacts::shard::Format;
use artifacts::storage::Disk;

use super::reader::{Answer, Child, Failure, Request, Session, ShardFile};
use super::scan::{self, Found, Seen};
use super::sources::{self, Obstacle};
use crate::ledger::transition::ShardTokens;

/// A child that was not needed for so long is let go.
const IDLE: Duration = Duration::from_secs(600);

/// What a worker is asked to do.
#[derive(Debug)]
pub enum Job {
    /// Start a child, so that the first shard need not wait for it.
    Warm,
    /// Hash a file.
    Hash(Found),
    /// Read a file whose digest is known: tokenise it, or, without a tokenizer, validate it and keep a copy.
    Read {
        /// The file.
        subject: Found,
        /// Its digest.
        digest: Digest,
        /// Whether its tokens are to be written.
        tokenise: bool,
    },
    /// Tokenise our own copy of an accepted shard.
    Tokenise(ShardFile),
    /// Train the tokenizer.
    Train {
        /// The shards.
        shards: Vec<ShardFile>,
        /// Tokens of its vocabulary.
        vocabulary: u32,
        /// Seconds that it may take.
        seconds: u64,
    },
}

/// What came of a job.
#[derive(Debug)]
pub enum Done {
    /// The child is warm, or could not be started.
    Warmed(Result<(), Failure>),
    /// The file's digest.
    Hashed(Found, Result<Digest, Obstacle>),
    /// The file was read.
    Read(Found, Outcome),
    /// A copy was tokenised.
    Tokenised(Digest, Result<ShardTokens, Failure>),
    /// The tokenizer was trained: its digest, and its end-of-text token.
    Trained(Result<(Digest, Option<u32>), Failure>),
}

/// How many times the size of an archive its content is, about.
const TIMES_PACKED: u64 = 10;

/// What is in a shard that can be accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Contents {
    /// Its tokens; else there is a copy of it, which waits for a tokenizer.
    pub tokens: Option<ShardTokens>,
    /// Bytes of what came packed.
    pub unpacked: Option<u64>,
}

/// What reading a file gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It can be accepted.
    Taken(Contents),
    /// It cannot be accepted.
    Refused(String),
    /// The child died.
    Died(String),
    /// Something else.
    Abandoned(Obstacle),
}

/// What all workers know.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The watched folder, without links in its path.
    pub root: PathBuf,
    /// The folder of copies that wait for a tokenizer.
    pub sources: PathBuf,
    /// The folder of tokens.
    pub tokens: PathBuf,
    /// The command that starts a child.
    pub command: Vec<PathBuf>,
    /// Time that a child may take for a gigabyte, and at least.
    pub time: Duration,
}

impl Shared {
    /// Seconds that reading so many bytes may take.
    pub fn seconds_for(&self, bytes: u64) -> u64 {
        self.time.as_secs().max(1).saturating_mul((bytes >> 30).saturating_add(1))
    }
}

/// The workers.
pub struct Workers {
    workers: Vec<Worker>,
    stop: Arc<AtomicBool>,
}

struct Worker {
    jobs: Option<Sender<(Job, Arc<Session>)>>,
    is_busy: bool,
    thread: Option<JoinHandle<()>>,
}

impl Workers {
    /// Starts so many workers; what they have done is given to `done`, with the worker's number.
    pub fn start(
        count: usize,
        shared: &Arc<Shared>,
        done: impl Fn(usize, Done) + Clone + Send + 'static,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = Vec::new();
        for number in 0..count.max(1) {
            let (jobs, received) = channel();
            let (shared, stop, done) = (shared.clone(), stop.clone(), done.clone());
            let thread = std::thread::Builder::new().name(format!("reader-{number}")).spawn(move || {
                let mut bench = Bench { shared, stop, child: None };
                bench.work(&received, |what| done(number, what));
            })?;
            workers.push(Worker { jobs: Some(jobs), is_busy: false, thread: Some(thread) });
        }
        Ok(Self { workers, stop })
    }

    /// How many workers there are.
    pub fn count(&self) -> usize {
        self.workers.len()
    }

    /// How many workers are free.
    pub fn free_count(&self) -> usize {
        self.workers.iter().filter(|worker| !worker.is_busy).count()
    }

    /// Gives a job to the first free worker; says whether there was one.
    pub fn give(&mut self, job: Job, session: &Arc<Session>) -> bool {
        let Some(worker) = self.workers.iter_mut().find(|worker| !worker.is_busy) else { return false };
        let Some(jobs) = &worker.jobs else { return false };
        worker.is_busy = jobs.send((job, session.clone())).is_ok();
        worker.is_busy
    }

    /// A worker is free again.
    pub fn free(&mut self, number: usize) {
        if let Some(worker) = self.workers.get_mut(number) {
            worker.is_busy = false;
        }
    }

    /// Has all children end soon; what was being done is reported as stopped.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in &mut self.workers {
            worker.jobs = None;
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop();
        for thread in self.workers.iter_mut().filter_map(|worker| worker.thread.take()) {
            // A worker that panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}

/// Where one worker works.
struct Bench {
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
    child: Option<(Child, Arc<Session>)>,
}

impl Bench {
    fn work(&mut self, jobs: &Receiver<(Job, Arc<Session>)>, done: impl Fn(Done)) {
        loop {
            match jobs.recv_timeout(IDLE) {
                Ok((job, session)) => done(self.job(job, &session)),
                Err(RecvTimeoutError::Timeout) => self.child = None,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn job(&mut self, job: Job, session: &Arc<Session>) -> Done {
        match job {
            Job::Warm => Done::Warmed(self.child(session).map(|_| ())),
            Job::Hash(subject) => {
                let digest = self.hash(&subject);
                Done::Hashed(subject, digest)
            }
            Job::Read { subject, digest, tokenise } => {
                let reading = self.read(&subject, digest, tokenise, session);
                Done::Read(subject, reading)
            }
            Job::Tokenise(file) => {
                let digest = file.digest;
                let limit = Duration::from_secs(file.seconds);
                let answer = self.ask(&Request::Tokenise(file), limit, session);
                Done::Tokenised(
                    digest,
                    answer.and_then(|answer| match answer {
                        Answer::Tokenised { tokens, .. } => Ok(tokens),
                        other => Err(Failure::Died(format!(
                            "has no use for our copy of the shard: {}",
                            words(other)
                        ))),
                    }),
                )
            }
            Job::Train { shards, vocabulary, seconds } => {
                let request = Request::Train { shards, vocabulary, seconds };
                let answer = self.ask(&request, Duration::from_secs(seconds), session);
                Done::Trained(answer.and_then(|answer| match answer {
                    Answer::Trained { digest, end_of_text } => Ok((digest, end_of_text)),
                    other => Err(Failure::Died(format!("cannot train the tokenizer: {}", words(other)))),
                }))
            }
        }
    }

    fn child(&mut self, session: &Arc<Session>) -> Result<&mut Child, Failure> {
        let fits = |(_, known): &(Child, Arc<Session>)| Arc::ptr_eq(known, session);
        let (child, session) = match self.child.take().filter(fits) {
            Some(known) => known,
            None => (Child::start(&self.shared.command, session, &self.stop)?, session.clone()),
        };
        Ok(&mut self.child.insert((child, session)).0)
    }

    fn ask(&mut self, request: &Request, limit: Duration, session: &Arc<Session>) -> Result<Answer, Failure> {
        let stop = self.stop.clone();
        let answer = self.child(session)?.ask(request, limit, &stop);
        if answer.is_err() {
            self.child = None;
        }
        answer
    }

    fn hash(&self, subject: &Found) -> Result<Digest, Obstacle> {
        let path = self.shared.root.join(&subject.name);
        self.is_same(subject, &path)?;
        let digest = sources::digest_of(&path, &subject.facts, &self.stop)?;
        self.is_same(subject, &path)?;
        Ok(digest)
    }

    fn is_same(&self, subject: &Found, path: &Path) -> Result<(), Obstacle> {
        match scan::look(&self.shared.root, path) {
            Seen::File(facts) if facts == subject.facts => Ok(()),
            Seen::Unseen(why) => Err(Obstacle::Unreadable(why)),
            _ => Err(Obstacle::Changed),
        }
    }

    fn read(&mut self, subject: &Found, digest: Digest, tokenise: bool, session: &Arc<Session>) -> Outcome {
        let path = self.shared.root.join(&subject.name);
        let seconds = self.shared.seconds_for(likely_bytes(subject));
        let file = ShardFile { digest, name: subject.name.clone(), path: path.clone(), seconds };
        let request = if tokenise { Request::Tokenise(file) } else { Request::Validate(file) };
        let reading = match self.ask(&request, Duration::from_secs(seconds), session) {
            Ok(Answer::Tokenised { tokens, unpacked }) => {
                Outcome::Taken(Contents { tokens: Some(tokens), unpacked })
            }
            Ok(Answer::Valid { unpacked }) => self.keep_copy(subject, &path, digest, unpacked),
            Ok(Answer::Refused { reason }) => Outcome::Refused(reason),
            Ok(Answer::Changed) => Outcome::Abandoned(Obstacle::Changed),
            Ok(Answer::Unreadable { what }) => Outcome::Abandoned(Obstacle::Unreadable(what)),
            Ok(other) => Outcome::Abandoned(Obstacle::Trouble(words(other))),
            Err(Failure::Died(how)) => Outcome::Died(how),
            Err(Failure::Stopped) => Outcome::Abandoned(Obstacle::Stopped),
            Err(error @ Failure::CannotStart(_)) => Outcome::Abandoned(Obstacle::NoReader(error.to_string())),
        };
        match self.is_same(subject, &path) {
            Err(Obstacle::Changed) if !matches!(reading, Outcome::Died(_)) => {
                self.drop_what_was_written(&subject.name, digest);
                Outcome::Abandoned(Obstacle::Changed)
            }
            _ => reading,
        }
    }

    fn keep_copy(&self, subject: &Found, path: &Path, digest: Digest, unpacked: Option<u64>) -> Outcome {
        match sources::keep(&self.shared.sources, &subject.name, path, digest) {
            Ok(()) => Outcome::Taken(Contents { tokens: None, unpacked }),
            Err(obstacle) => Outcome::Abandoned(obstacle),
        }
    }

    /// What was written for bytes that are no longer there is nobody's.
    fn drop_what_was_written(&self, name: &str, digest: Digest) {
        let source = sources::path_of(&self.shared.sources, &digest, name);
        let tokens = self.shared.tokens.join(digest.to_string());
        for left in [source, tokens] {
            if let Err(error) = artifacts::manifest::delete(&Disk, &left) {
                tracing::warn!(%error, "what was written of a file that changed stays until the next start");
            }
        }
    }
}

/// Bytes that are to be read of a file: an archive may hold more, but then it is read faster too.
fn likely_bytes(subject: &Found) -> u64 {
    match Format::of(&subject.name) {
        Ok(Format { archive: Some(_), .. }) => subject.facts.bytes.saturating_mul(TIMES_PACKED),
        _ => subject.facts.bytes,
    }
}

fn words(answer: Answer) -> String {
    match answer {
        Answer::Refused { reason } => reason,
        Answer::Unreadable { what } | Answer::Trouble { what } => what,
        Answer::Changed => "its bytes have changed".to_owned(),
        other => format!("it said {other:?}"),
    }
}
