use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use artifacts::storage::crash::CrashDisk;
use artifacts::storage::{Entry, Hindrance, Kind};
use proptest::prelude::*;

use super::*;
use crate::ledger::path::Path as TrainingPath;
use crate::ledger::samples::{disk_with, record, records};
use crate::ledger::transition::{Evaluation, Transition};

const FOLDER: &str = "/journal";
/// Small enough that a few commits fill a file.
const SMALL: u64 = 800;

type Opened = Result<(Journal, Vec<Vec<Record>>, Option<Torn>), JournalError>;

fn open_on(storage: Arc<dyn Storage>, segment_bytes: u64) -> Opened {
    let mut commits = Vec::new();
    let (journal, torn) = Journal::open(storage, Path::new(FOLDER), segment_bytes, |records, _| {
        commits.push(records);
        Ok::<(), JournalError>(())
    })?;
    Ok((journal, commits, torn))
}

fn open(disk: &CrashDisk) -> Opened {
    open_on(Arc::new(disk.clone()), SMALL)
}

/// Appends commits of so many records each.
fn append(journal: &mut Journal, sizes: &[u64]) {
    for size in sizes {
        let first = journal.point().position + 1;
        journal.append(&records(first..first + size)).unwrap();
    }
}

/// The files of a journal with these commits.
fn written(sizes: &[u64]) -> BTreeMap<PathBuf, Vec<u8>> {
    let disk = CrashDisk::new();
    append(&mut open(&disk).unwrap().0, sizes);
    disk.files()
}

/// The only file of a journal with these commits.
fn written_in_one(sizes: &[u64]) -> (PathBuf, Vec<u8>) {
    let disk = CrashDisk::new();
    append(&mut open_on(Arc::new(disk.clone()), SEGMENT_BYTES).unwrap().0, sizes);
    let mut files = disk.files();
    assert_eq!(files.len(), 1);
    files.pop_first().unwrap()
}

fn last_line_start(bytes: &[u8]) -> usize {
    bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1
}

/// A header's or a commit's line with something replaced, and its checksum made right again.
fn forged(line: &str, from: &str, to: &str) -> Vec<u8> {
    assert!(line.contains(from));
    line::line(line.trim_end()[9..].replacen(from, to, 1).as_bytes())
}

#[test]
fn what_was_appended_is_read_back_over_many_files() {
    let disk = CrashDisk::new();
    let (mut journal, commits, torn) = open(&disk).unwrap();
    assert_eq!((commits, torn), (vec![], None));
    append(&mut journal, &[1, 3, 1, 2, 1, 1, 1, 6, 1, 1]);
    let point = journal.point();
    drop(journal);
    let (mut journal, commits, torn) = open(&disk).unwrap();
    assert_eq!(torn, None);
    assert_eq!(journal.point(), point);
    assert!(journal.segments() > 2, "{} files", journal.segments());
    assert_eq!(commits.iter().map(Vec::len).collect::<Vec<_>>(), [1, 3, 1, 2, 1, 1, 1, 6, 1, 1]);
    assert_eq!(commits.concat(), records(1..=18));
    append(&mut journal, &[1, 1]);
    assert_eq!(open(&disk).unwrap().1.concat(), records(1..=20));
}

#[test]
fn a_last_line_that_is_torn_at_any_byte_is_cut_off() {
    let files = written(&[1, 2, 1, 1, 1, 4]);
    let (last, bytes) = files.last_key_value().unwrap();
    let start = last_line_start(bytes);
    for length in start..bytes.len() {
        let mut torn_files = files.clone();
        torn_files.insert(last.clone(), bytes[..length].to_vec());
        let disk = disk_with(&torn_files);
        let (mut journal, commits, torn) = open(&disk).unwrap();
        assert_eq!(commits.concat(), records(1..=6), "{length}");
        assert_eq!(
            torn.map(|torn| (torn.byte, torn.bytes)),
            (length > start).then(|| { (start as u64, (length - start) as u64) })
        );
        assert_eq!(disk.files()[last], bytes[..start]);
        journal.append(&records(7..=10)).unwrap();
        assert_eq!(disk.files(), files, "the same records make the same bytes");
    }
}

#[test]
fn a_last_line_with_sectors_that_never_came_is_cut_off() {
    let (path, bytes) = written_in_one(&[1, 12]);
    let start = last_line_start(&bytes);
    assert!(bytes.len() - start > 3 * 512);
    for sector in (0..bytes.len()).step_by(512) {
        let mut torn = bytes.clone();
        let lost = sector.max(start)..(sector + 512).min(bytes.len());
        if lost.is_empty() {
            continue;
        }
        torn[lost.clone()].fill(0);
        let disk = disk_with([(&path, &torn)]);
        assert_eq!(open(&disk).unwrap().1.concat(), records(1..=1), "{lost:?}");
    }
}

#[test]
fn a_flipped_bit_anywhere_stops_it_and_is_named() {
    let files = written(&[1, 1, 2, 1, 1, 1, 1, 1]);
    assert!(files.len() > 2);
    for (path, bytes) in &files {
        for at in 0..bytes.len() {
            let bits = if at >= last_line_start(bytes) { 0..8 } else { at % 8..at % 8 + 1 };
            for bit in bits {
                let mut flipped = files.clone();
                flipped.get_mut(path).unwrap()[at] ^= 1 << bit;
                let disk = disk_with(&flipped);
                let Err(error) = open(&disk) else { panic!("byte {at} of {path:?}, bit {bit} was believed") };
                let JournalError::Damaged { path: named, line, byte, .. } = &error else { panic!("{error}") };
                let lines_before = bytes[..at].iter().filter(|byte| **byte == b'\n').count();
                assert_eq!((named, *line), (path, lines_before as u64 + 1), "byte {at}, bit {bit}: {error}");
                assert!(*byte == 0 || bytes[*byte as usize - 1] == b'\n');
                assert!((*byte as usize..*byte as usize + 2_000).contains(&at));
                assert_eq!(disk.files(), flipped, "nothing is changed");
            }
        }
    }
}

#[test]
fn a_missing_file_and_a_strange_one_stop_it() {
    let files = written(&[1, 1, 2, 1, 1, 1, 1, 1]);
    for missing in files.keys().rev().skip(1) {
        let mut rest = files.clone();
        rest.remove(missing);
        let error = open(&disk_with(&rest)).unwrap_err();
        assert!(error.to_string().contains("a file is missing"), "{error}");
    }
    let mut renamed = files.clone();
    let (path, bytes) = renamed.pop_last().unwrap();
    renamed.insert(path.with_extension("log.bak"), bytes);
    assert!(matches!(open(&disk_with(&renamed)), Err(JournalError::Stranger { .. })));
    let mut emptied = files;
    emptied.last_entry().unwrap().get_mut().clear();
    assert!(open(&disk_with(&emptied)).unwrap_err().to_string().contains("without a header"));
}

#[test]
fn a_sealed_file_that_was_changed_with_care_is_noticed() {
    let mut files = written(&[1, 1, 2, 1, 1, 1, 1, 1]);
    let first = files.first_entry().unwrap().into_mut();
    let start = last_line_start(first);
    let line = String::from_utf8(first.split_off(start)).unwrap();
    first.extend(forged(&line, "1700000000000", "1700000000001"));
    let error = open(&disk_with(&files)).unwrap_err();
    assert!(error.to_string().contains("not the one that was sealed"), "{error}");
}

#[test]
fn a_gap_and_a_repetition_stop_it() {
    let (path, bytes) = written_in_one(&[1, 1, 1]);
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    for order in [vec![0, 1, 3], vec![0, 1, 1, 2, 3], vec![0, 2, 1, 3]] {
        let shuffled = order.iter().map(|line| lines[*line]).collect::<Vec<_>>().concat();
        let error = open(&disk_with([(&path, &shuffled)])).unwrap_err();
        assert!(error.to_string().contains("was expected, not"), "{error}");
    }
}

#[test]
fn another_format_is_refused() {
    let files = written(&[1, 1]);
    let (path, bytes) = files.first_key_value().unwrap();
    let text = String::from_utf8(bytes.clone()).unwrap();
    let (header, rest) = text.split_once('\n').unwrap();
    for format in ["0", "2", "4000000000"] {
        let mut newer = forged(header, "\"format\":1", &format!("\"news\":[],\"format\":{format}"));
        newer.extend(rest.as_bytes());
        let error = open(&disk_with([(path, &newer)])).unwrap_err();
        assert!(matches!(error, JournalError::Format { .. }), "{error}");
        assert!(error.to_string().contains(&format!("format {format}")), "{error}");
    }
}

#[test]
fn a_record_that_this_program_does_not_know_stops_it() {
    let (path, mut bytes) = written_in_one(&[1, 4]);
    let line = String::from_utf8(bytes.split_off(last_line_start(&bytes))).unwrap();
    bytes.extend(forged(&line, "paused", "dreamt"));
    let error = open(&disk_with([(&path, &bytes)])).unwrap_err();
    assert!(error.to_string().contains("a newer program"), "{error}");
}

#[test]
fn what_could_not_be_read_back_is_never_written() {
    let disk = CrashDisk::new();
    let (mut journal, ..) = open(&disk).unwrap();
    append(&mut journal, &[1]);
    let files = disk.files();
    let loss = Evaluation { increment: 1, loss: f64::NAN, perplexity: 1.0, bits_per_byte: None, tokens: 1 };
    let path: TrainingPath = "path-switching.main.g1".parse().unwrap();
    let lost = [Some(f64::INFINITY), None].map(|bits_per_byte| Record {
        transition: Transition::Evaluated { path, step: 3, evaluation: Evaluation { bits_per_byte, ..loss } },
        ..record(2)
    });
    for lost in lost {
        assert!(matches!(journal.append(&[lost]), Err(JournalError::Unwritable { position: 2, .. })));
    }
    for wrong in [records(3..=3), records([2, 2]), records([2, 4]), vec![]] {
        assert!(matches!(journal.append(&wrong), Err(JournalError::Unwritable { position: 2, .. })));
    }
    let long = Transition::PathFailed { path, reason: "x".repeat(LONGEST_LINE as usize) };
    let error = journal.append(&[Record { transition: long, ..record(2) }]).unwrap_err();
    assert!(error.to_string().contains("a commit may take"), "{error}");
    assert_eq!(disk.files(), files);
    append(&mut journal, &[1]);
}

#[test]
fn a_power_cut_at_any_moment_loses_nothing_and_invents_nothing() {
    let disk = CrashDisk::new();
    let mut acknowledged = vec![(disk.moments(), 0)];
    let (mut journal, ..) = open(&disk).unwrap();
    let sizes = [1, 2, 1, 5, 1, 1, 1, 3, 1];
    for size in sizes {
        append(&mut journal, &[size]);
        acknowledged.push((disk.moments(), journal.point().position));
    }
    assert!(journal.segments() > 2);
    let ends: Vec<u64> = acknowledged.iter().map(|(_, position)| *position).collect();
    for moment in 0..=disk.moments() {
        let before =
            acknowledged.iter().rev().find(|(at, _)| *at <= moment).map_or(0, |(_, position)| *position);
        for image in disk.crash_images_at(moment) {
            let (mut journal, commits, _) = open(&image).unwrap();
            let found = commits.concat();
            assert_eq!(found, records(1..=found.len() as u64));
            let found = found.len() as u64;
            let next = ends.iter().copied().find(|end| *end > before);
            assert!(found == before || Some(found) == next, "{before} were acknowledged, {found} found");
            append(&mut journal, &[2]);
            for again in image.crash_images() {
                assert_eq!(open(&again).unwrap().1.concat(), records(1..=found + 2));
            }
        }
    }
}

/// A disk whose syncs can be made to fail.
#[derive(Clone, Default)]
struct Faulty {
    disk: CrashDisk,
    is_ill: Arc<AtomicBool>,
}

struct FaultyFile(Box<dyn File>, Arc<AtomicBool>);

fn ill() -> storage::Error {
    storage::Error::at("sync", Path::new(FOLDER))(std::io::Error::other("the disk is ill"))
}

impl File for FaultyFile {
    fn append(&mut self, bytes: &[u8]) -> storage::Result<()> {
        self.0.append(bytes)
    }
    fn sync_data(&mut self) -> storage::Result<()> {
        if self.1.load(Ordering::Relaxed) { Err(ill()) } else { self.0.sync_data() }
    }
    fn truncate(&mut self, length: u64) -> storage::Result<()> {
        self.0.truncate(length)
    }
    fn length(&self) -> u64 {
        self.0.length()
    }
}

impl Storage for Faulty {
    fn create(&self, path: &Path) -> storage::Result<Box<dyn File>> {
        Ok(Box::new(FaultyFile(self.disk.create(path)?, self.is_ill.clone())))
    }
    fn append(&self, path: &Path) -> storage::Result<Box<dyn File>> {
        Ok(Box::new(FaultyFile(self.disk.append(path)?, self.is_ill.clone())))
    }
    fn read(&self, path: &Path, longest: u64) -> storage::Result<Vec<u8>> {
        self.disk.read(path, longest)
    }
    fn list(&self, folder: &Path) -> storage::Result<Vec<Entry>> {
        self.disk.list(folder)
    }
    fn kind(&self, path: &Path) -> storage::Result<Option<Kind>> {
        self.disk.kind(path)
    }
    fn create_folder(&self, folder: &Path) -> storage::Result<()> {
        self.disk.create_folder(folder)
    }
    fn rename(&self, from: &Path, to: &Path) -> storage::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> storage::Result<()> {
        self.disk.remove_file(path)
    }
    fn remove_folder(&self, folder: &Path) -> storage::Result<()> {
        self.disk.remove_folder(folder)
    }
    fn sync_file(&self, path: &Path) -> storage::Result<()> {
        self.disk.sync_file(path)
    }
    fn sync_folder(&self, folder: &Path) -> storage::Result<()> {
        if self.is_ill.load(Ordering::Relaxed) { Err(ill()) } else { self.disk.sync_folder(folder) }
    }
}

#[test]
fn after_a_failed_sync_nothing_is_taken_before_it_is_opened_again() {
    for before in [vec![1, 1], vec![1, 1, 1, 1, 1]] {
        let faulty = Faulty::default();
        let (mut journal, ..) = open_on(Arc::new(faulty.clone()), SMALL).unwrap();
        append(&mut journal, &before);
        let next = before.len() as u64 + 1;
        faulty.is_ill.store(true, Ordering::Relaxed);
        let error = journal.append(&records(next..=next)).unwrap_err();
        assert!(matches!(error, JournalError::Storage(_)), "{error}");
        faulty.is_ill.store(false, Ordering::Relaxed);
        for _ in 0..2 {
            let error = journal.append(&records(next..=next)).unwrap_err();
            assert!(matches!(error, JournalError::Broken { .. }), "{error}");
            assert!(error.to_string().contains("the disk is ill"), "{error}");
        }
        let (mut journal, commits, _) = open(&faulty.disk).unwrap();
        assert_eq!(commits.concat()[..before.len()], records(1..next));
        append(&mut journal, &[1]);
    }
}

#[test]
fn what_was_read_at_a_start_survives_the_next_power_cut() {
    let faulty = Faulty::default();
    let (mut journal, ..) = open_on(Arc::new(faulty.clone()), SMALL).unwrap();
    append(&mut journal, &[1, 1]);
    faulty.is_ill.store(true, Ordering::Relaxed);
    journal.append(&records(3..=3)).unwrap_err();
    drop(journal);
    // The process has died between a write and its sync, and the machine lives on.
    assert!(faulty.disk.crash_images().iter().any(|image| open(image).unwrap().1.len() == 2));
    let (_journal, commits, _) = open(&faulty.disk).unwrap();
    assert_eq!(commits.len(), 3);
    for image in faulty.disk.crash_images() {
        assert_eq!(open(&image).unwrap().1.concat(), records(1..=3));
    }
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    for room in 0..12 {
        let disk = CrashDisk::new();
        let (mut journal, ..) = open(&disk).unwrap();
        append(&mut journal, &[1, 1]);
        disk.full_after(room);
        let mut refused = 0;
        while refused < 3 {
            let next = journal.point().position + 1;
            if let Err(error) = journal.append(&records(next..=next)) {
                assert_eq!(error.hindrance(), Some(Hindrance::Full), "{error}");
                refused += 1;
            }
        }
        let taken = journal.point().position;
        for image in disk.crash_images() {
            assert_eq!(open(&image).unwrap().1.concat()[..taken as usize], records(1..=taken));
        }
        disk.make_room();
        append(&mut journal, &[1, 3, 1, 1]);
        assert_eq!(open(&disk).unwrap().1.concat(), records(1..=taken + 6), "room for {room} operations");
    }
}

#[test]
fn records_are_read_from_any_position() {
    let disk = CrashDisk::new();
    let (mut journal, ..) = open(&disk).unwrap();
    append(&mut journal, &[1, 3, 1, 2, 1, 1, 1, 6, 1, 1]);
    let reader = journal.reader();
    append(&mut journal, &[1]);
    for after in 0..20 {
        for limit in [0, 1, 2, 7, 100] {
            let expected = records(after + 1..=18).into_iter().take(limit).collect::<Vec<_>>();
            assert_eq!(reader.records(after, limit).unwrap(), expected, "after {after}, at most {limit}");
        }
    }
    assert!(reader.records(u64::MAX, 1).unwrap().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_at_all_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), keep in 0usize..600) {
        let files = written(&[1, 1]);
        let (path, sound) = files.first_key_value().unwrap();
        let mut file = sound[..keep.min(sound.len())].to_vec();
        file.extend(bytes);
        if let Ok((_, commits, _)) = open(&disk_with([(path, &file)])) {
            let found = commits.concat();
            prop_assert_eq!(&found, &records(1..=found.len() as u64));
        }
    }
}
