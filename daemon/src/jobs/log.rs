//! A trainer's log: for people, and never larger than a disk can bear.
//!
//! The trainer writes the file itself, so that nothing is lost when the daemon dies; a pipe would break. The file is
//! opened for appending, and what is cut away under the writer is gone for good: its next line stands at the new end.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::executor::LOG;

/// A log longer than this is cut.
const LONGEST: u64 = 16 << 20;
/// What is kept of a log that is cut, in [`BEFORE`].
const KEPT: u64 = 1 << 20;
/// The end of what was cut away last.
pub const BEFORE: &str = "log.before";
/// Bytes that are looked at for the last lines.
const TAIL: u64 = 8 << 10;
/// Lines that are shown.
const LINES: usize = 12;
/// Bytes that are shown.
const SHOWN: usize = 2 << 10;

/// Cuts a log that has grown too long; its last part goes to [`BEFORE`]. Lines that are written in this very moment may
/// be lost.
pub fn bound(folder: &Path) -> io::Result<()> {
    let path = folder.join(LOG);
    match fs::metadata(&path) {
        Ok(facts) if facts.len() > LONGEST => {
            fs::write(folder.join(BEFORE), end_of(&path, KEPT)?)?;
            File::options().write(true).open(&path)?.set_len(0)
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The last lines of a log, fit to be shown; empty if there are none.
pub fn tail(folder: &Path) -> String {
    let bytes = end_of(&folder.join(LOG), TAIL).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let shown = lines[lines.len().saturating_sub(LINES)..].join("\n");
    let shown: String = shown.chars().filter(|c| *c == '\n' || *c == '\t' || !c.is_control()).collect();
    let mut from = shown.len().saturating_sub(SHOWN);
    while !shown.is_char_boundary(from) {
        from += 1;
    }
    shown[from..].to_owned()
}

fn end_of(path: &Path, length: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let from = file.metadata()?.len().saturating_sub(length);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_long_log_is_cut_under_its_writer_and_its_end_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = File::options().create(true).append(true).open(folder.path().join(LOG)).unwrap();
        bound(folder.path()).unwrap();
        for _ in 0..LONGEST / 1024 {
            log.write_all(&[b'x'; 1024]).unwrap();
        }
        bound(folder.path()).unwrap();
        assert!(!folder.path().join(BEFORE).exists());
        log.write_all(b"the last line\n").unwrap();
        bound(folder.path()).unwrap();
        log.write_all(b"the next line\n").unwrap();
        assert_eq!(fs::read(folder.path().join(LOG)).unwrap(), b"the next line\n");
        let before = fs::read(folder.path().join(BEFORE)).unwrap();
        assert!(before.ends_with(b"the last line\n") && before.len() as u64 == KEPT);
    }

    #[test]
    fn the_tail_is_what_a_person_can_read() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(tail(folder.path()), "");
        let many: String = (0..100).map(|line| format!("line {line}\n")).collect();
        fs::write(folder.path().join(LOG), many + "\n\u{1b}[31mred\u{7}\n").unwrap();
        let shown = tail(folder.path());
        assert!(shown.starts_with("line 89\n") && shown.ends_with("[31mred"), "{shown}");
        fs::write(folder.path().join(LOG), [0xff; 100_000]).unwrap();
        assert!(tail(folder.path()).len() <= SHOWN);
    }
}
