//! Answers that go on: the journal's records as they come, and a trainer's log.
//!
//! A task reads and hands on pieces through a short queue, so that a reader who does not read holds up nobody and costs
//! nothing. An empty line every few seconds finds out who has gone.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::channel::{Channel, Sender};

use super::shared::{Shared, blocking};
use crate::ledger::transition::{JobNumber, Record};

/// Pieces that wait for a reader.
const QUEUE: usize = 4;
/// Records of one piece.
const RECORDS: usize = 256;
/// Bytes of one piece of a log.
const CHUNK: usize = 64 << 10;
/// Time between looks at a log that grows.
const LOOK: Duration = Duration::from_millis(200);
/// A reader that gets nothing is sent an empty line so often.
const BEAT: Duration = Duration::from_secs(10);

/// Records as JSON, one a line.
pub(super) fn lines(records: &[Record]) -> Vec<u8> {
    let mut text = Vec::new();
    for record in records {
        // Records are plain data; what the journal holds as JSON can be written as JSON.
        if serde_json::to_writer(&mut text, record).is_ok() {
            text.push(b'\n');
        }
    }
    text
}

/// All records after a position, and those that come.
pub(super) fn events(shared: Shared, after: u64) -> Body {
    let (sender, channel) = Channel::<Bytes, Infallible>::new(QUEUE);
    tokio::spawn(follow_events(shared, after, sender));
    Body::new(channel)
}

async fn follow_events(mut shared: Shared, mut after: u64, mut sender: Sender<Bytes>) {
    let mut position = shared.backend.ledger.watch();
    while !*shared.shutdown.borrow() {
        position.borrow_and_update();
        let read = blocking(&shared.backend, move |backend| backend.ledger.records(after, RECORDS)).await;
        let Ok(Ok(records)) = read else { return };
        if let Some(last) = records.last() {
            after = last.position;
            if sender.send_data(Bytes::from(lines(&records))).await.is_err() {
                return;
            }
            continue;
        }
        tokio::select! {
            changed = position.changed() => if changed.is_err() { return },
            _ = shared.shutdown.changed() => return,
            () = tokio::time::sleep(BEAT) => {
                if sender.send_data(Bytes::from_static(b"\n")).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// What an attempt wrote on standard error, from its beginning, and on while it runs.
pub(super) fn log(shared: Shared, job: JobNumber, attempt: u32, follow: bool) -> Body {
    let (sender, channel) = Channel::<Bytes, Infallible>::new(QUEUE);
    tokio::spawn(follow_log(shared, job, attempt, follow, sender));
    Body::new(channel)
}

async fn follow_log(
    mut shared: Shared,
    job: JobNumber,
    attempt: u32,
    follow: bool,
    mut sender: Sender<Bytes>,
) {
    let mut at = 0;
    loop {
        // Asked before reading: what is written before the end is read after it.
        let runs = shared.backend.ledger.read(|tree| {
            tree.attempt(job).is_some_and(|last| last.end.is_none() && last.start.attempt == attempt)
        });
        let read = blocking(&shared.backend, move |backend| {
            piece(&backend.state.join(format!("jobs/{job}-{attempt}/log")), at)
        });
        let Ok(Ok(bytes)) = read.await else { return };
        if !bytes.is_empty() {
            at += bytes.len() as u64;
            if sender.send_data(Bytes::from(bytes)).await.is_err() {
                return;
            }
            continue;
        }
        if !follow || !runs {
            return;
        }
        tokio::select! {
            _ = shared.shutdown.changed() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// The next bytes of a file; none at its end, or where it is not there yet.
fn piece(path: &std::path::Path, at: u64) -> io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.take(CHUNK as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}
