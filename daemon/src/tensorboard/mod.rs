//! The trainers' numbers as TensorBoard's event files: one folder a path, in it one file an attempt.
//!
//! A file is made of an attempt's own events and of nothing else, so it can be made again at any time with the same bytes.
//! A daemon that was killed in the middle begins a file anew; whoever reads it sees the same file grow.

mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use artifacts::event::{Event, LONGEST_LINE, Line};
use tokio::sync::watch;

use crate::ledger::Ledger;
use crate::ledger::transition::JobNumber;
use crate::ledger::tree::Tree;

/// Between two looks at what trainers say.
const LOOK: Duration = Duration::from_secs(2);
/// Bytes of events that are taken at once.
const AT_ONCE: u64 = 4 << 20;

/// Writes event files for as long as the daemon lives.
pub struct TensorBoard {
    ledger: Ledger,
    jobs: PathBuf,
    folder: PathBuf,
    /// How far the events of an attempt are written.
    written: BTreeMap<(JobNumber, u32), u64>,
    /// Attempts that have ended and are written to their end.
    settled: BTreeSet<(JobNumber, u32)>,
    is_troubled: bool,
}

/// An attempt whose events may have grown.
struct Grown {
    job: JobNumber,
    attempt: u32,
    path: String,
    has_ended: bool,
}

impl TensorBoard {
    /// Writes below a folder what the attempts of a state say.
    pub fn new(ledger: Ledger, state: &FilePath, folder: PathBuf) -> Self {
        Self {
            ledger,
            jobs: state.join("jobs"),
            folder,
            written: BTreeMap::new(),
            settled: BTreeSet::new(),
            is_troubled: false,
        }
    }

    /// Runs until shutdown, and then looks once more. What cannot be written is tried again, and keeps nobody from anything.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        loop {
            let is_last = *shutdown.borrow_and_update();
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            match looked.await {
                Ok(looked) => self = looked,
                Err(_) => return,
            }
            if is_last {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                changed = shutdown.changed() => if changed.is_err() { return },
            }
        }
    }

    fn look(&mut self) {
        let settled = &self.settled;
        for grown in self.ledger.read(|tree| attempts(tree, settled)) {
            if grown.has_ended && self.is_whole(&grown) {
                self.written.remove(&(grown.job, grown.attempt));
                self.settled.insert((grown.job, grown.attempt));
                continue;
            }
            match self.append(&grown) {
                Ok(()) => self.is_troubled = false,
                Err(error) if self.is_troubled => drop(error),
                Err(error) => {
                    tracing::warn!(%error, folder = %self.folder.display(), "TensorBoard's files cannot be written: will retry");
                    self.is_troubled = true;
                }
            }
        }
    }

    fn events(&self, grown: &Grown) -> PathBuf {
        self.jobs.join(format!("{}-{}", grown.job, grown.attempt)).join("events.jsonl")
    }

    /// Where the file of an attempt lies; TensorBoard takes the files of a folder in the order of their names.
    fn file(&self, grown: &Grown) -> PathBuf {
        let name = format!("events.out.tfevents.{:010}.{}", grown.job, grown.attempt);
        self.folder.join(&grown.path).join(name)
    }

    /// Whether an attempt that has ended is written to its end: by this daemon, or by one before it.
    fn is_whole(&self, grown: &Grown) -> bool {
        let Ok(events) = fs::metadata(self.events(grown)) else { return true };
        if let Some(written) = self.written.get(&(grown.job, grown.attempt)) {
            return *written >= events.len();
        }
        let changed = |metadata: fs::Metadata| metadata.modified().ok();
        let file = fs::metadata(self.file(grown)).ok().and_then(changed);
        file.is_some_and(|file| changed(events).is_none_or(|events| file > events))
    }

    /// Writes what an attempt has said since the last look.
    fn append(&mut self, grown: &Grown) -> io::Result<()> {
        let path = self.file(grown);
        let key = (grown.job, grown.attempt);
        loop {
            let at = self.written.get(&key).copied();
            let Some((pieces, to)) = read(&self.events(grown), at.unwrap_or(0))? else { return Ok(()) };
            if to == at.unwrap_or(0) {
                return Ok(());
            }
            if at.is_none()
                && let Some(folder) = path.parent()
            {
                fs::create_dir_all(folder)?;
            }
            let mut file = OpenOptions::new()
                .create(true)
                .write(true)
                .truncate(at.is_none())
                .append(at.is_some())
                .open(&path)?;
            file.write_all(&pieces)?;
            self.written.insert(key, to);
        }
    }
}

fn attempts(tree: &Tree, settled: &BTreeSet<(JobNumber, u32)>) -> Vec<Grown> {
    let all = tree.jobs().values().flat_map(|job| &job.attempts);
    let open = all.filter(|attempt| !settled.contains(&(attempt.start.job, attempt.start.attempt)));
    let grown = open.map(|attempt| Grown {
        job: attempt.start.job,
        attempt: attempt.start.attempt,
        path: attempt.start.path.to_string(),
        has_ended: attempt.end.is_some(),
    });
    grown.collect()
}

/// The records of whole lines from a place on, and the place behind them. None where nothing was said yet.
fn read(events: &FilePath, from: u64) -> io::Result<Option<(Vec<u8>, u64)>> {
    let mut file = match File::open(events) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(from))?;
    let mut lines = BufReader::new(file.take(AT_ONCE));
    let (mut records, mut to) = (Vec::new(), from);
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = lines.by_ref().read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") {
            // The rest of it comes; a line that is longer than all that is taken at once is none.
            let is_rubbish = length as u64 == AT_ONCE;
            return Ok(Some((records, if is_rubbish { to + AT_ONCE } else { to })));
        }
        to += length as u64;
        if length <= LONGEST_LINE
            && let Ok(line) = serde_json::from_slice::<Line>(&line)
        {
            take(&mut records, &line);
        }
    }
}

fn take(records: &mut Vec<u8>, Line { time, event }: &Line) {
    match event {
        Event::Started { .. } => record::begin(records, *time),
        Event::Step { step, loss, learning_rate, grad_norm, tokens_per_second, .. } => {
            let numbers = [
                ("loss", *loss),
                ("learning_rate", *learning_rate),
                ("grad_norm", *grad_norm),
                ("tokens_per_second", *tokens_per_second),
            ];
            let known: Vec<_> = numbers.into_iter().filter(|(_, number)| number.is_finite()).collect();
            record::numbers(records, *time, *step, &known);
        }
        Event::Evaluation { step, increment, loss, .. } => {
            record::numbers(
                records,
                *time,
                *step,
                &[(&format!("held_out_loss/increment_{increment}"), *loss)],
            );
        }
        Event::Checkpoint { .. } | Event::Finished { .. } | Event::Stopped { .. } | Event::Failed { .. } => {}
    }
}
