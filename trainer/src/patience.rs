//! Waiting for a disk that is full or cannot be written.
//!
//! Hours of training are in memory when a checkpoint does not fit. A job may say how long that is waited for: then
//! nothing is lost when somebody makes room in time. Whoever is asked to stop waits no longer.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use artifacts::storage::Hindrance;

/// Between two tries.
const BETWEEN: Duration = Duration::from_secs(1);
/// Between two looks whether it is asked to stop.
const LOOK: Duration = Duration::from_millis(50);

/// How long something is tried that the machine hinders.
#[derive(Debug, Clone, Default)]
pub struct Patience {
    wait: Duration,
    stop: Arc<AtomicBool>,
}

impl Patience {
    /// Tries for so long, or until `stop` is set.
    pub fn new(wait: Duration, stop: Arc<AtomicBool>) -> Self {
        Self { wait, stop }
    }

    /// Tries something again while it is hindered and patience lasts. The first hindrance is told to people.
    ///
    /// # Errors
    /// The last one.
    pub fn insist<T, E: fmt::Display>(
        &self,
        mut attempt: impl FnMut() -> Result<T, E>,
        hindrance: impl Fn(&E) -> Option<Hindrance>,
    ) -> Result<T, E> {
        let mut waiting_since = None;
        loop {
            let error = match attempt() {
                Err(error) if hindrance(&error).is_some() => error,
                done => return done,
            };
            let since = *waiting_since.get_or_insert_with(|| {
                if !self.wait.is_zero() {
                    // The log may lie on the disk that is full.
                    let _ = writeln!(io::stderr(), "{error}; it is tried for {} s", self.wait.as_secs());
                }
                Instant::now()
            });
            let next = Instant::now() + BETWEEN;
            while Instant::now() < next {
                if self.stop.load(Ordering::Relaxed) || since.elapsed() >= self.wait {
                    return Err(error);
                }
                std::thread::sleep(LOOK);
            }
        }
    }
}

/// A stream that waits where it finds the disk full, so that no line on it is ever cut.
pub struct PatientStream<W> {
    stream: W,
    patience: Patience,
}

impl<W: Write> PatientStream<W> {
    /// The stream, with patience.
    pub fn new(stream: W, patience: Patience) -> Self {
        Self { stream, patience }
    }
}

impl<W: Write> Write for PatientStream<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self { stream, patience } = self;
        patience.insist(|| stream.write(bytes), Hindrance::of)
    }

    fn flush(&mut self) -> io::Result<()> {
        let Self { stream, patience } = self;
        patience.insist(|| stream.flush(), Hindrance::of)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A disk that takes so many bytes at each write, and none where there is 0.
    struct Disk {
        room: VecDeque<usize>,
        written: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.room.pop_front() {
                Some(0) => Err(io::ErrorKind::StorageFull.into()),
                Some(room) => {
                    self.written.extend_from_slice(&bytes[..room.min(bytes.len())]);
                    Ok(room.min(bytes.len()))
                }
                None => Err(io::Error::other("it is broken")),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_written_whole_across_a_full_disk() {
        let disk = Disk { room: [3, 0, 2, 0, 100].into(), written: Vec::new() };
        let mut stream = PatientStream::new(disk, Patience::new(Duration::from_secs(60), Arc::default()));
        stream.write_all(b"a line of events\n").unwrap();
        assert_eq!(stream.stream.written, b"a line of events\n");
        assert!(stream.write_all(b"x").unwrap_err().to_string().contains("broken"), "no waiting mends that");
    }

    #[test]
    fn patience_ends_with_its_time_and_with_a_request_to_stop() {
        let full = || Err::<(), _>(io::Error::from(io::ErrorKind::StorageFull));
        let begun = Instant::now();
        assert!(Patience::default().insist(full, Hindrance::of).is_err());
        assert!(begun.elapsed() < BETWEEN / 2, "a job that says nothing of it waits for nothing");
        let stopped = Patience::new(Duration::from_secs(3600), Arc::new(AtomicBool::new(true)));
        assert!(stopped.insist(full, Hindrance::of).is_err());
        assert!(begun.elapsed() < BETWEEN);
        let brief = Patience::new(Duration::from_millis(200), Arc::default());
        assert!(brief.insist(full, Hindrance::of).is_err());
        assert!((Duration::from_millis(200)..BETWEEN).contains(&begun.elapsed()));
    }
}
