use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::manifest;
use crate::storage::crash::CrashDisk;
use crate::storage::{Disk, Storage};

fn cutting(end_of_text: Option<u32>, block: u32, share: f64) -> Cutting {
    Cutting::new(11, end_of_text, block, share).unwrap()
}

fn digest() -> Digest {
    Digest::of(b"a shard")
}

/// Writes documents, and opens what came of them.
fn written(cutting: Cutting, documents: &[(&[u32], Option<&[u64]>)]) -> ShardTokens {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(&Disk, folder.path(), digest(), "a.txt", cutting).unwrap();
    for (tokens, ends) in documents {
        writer.document(tokens, *ends).unwrap();
    }
    let shard = writer.finish(77).unwrap();
    let published = folder.path().join(digest().to_string());
    manifest::verify(&published).unwrap();
    let read = ShardTokens::open(&published).unwrap();
    assert_eq!(read.shard, shard);
    assert_eq!((shard.bytes, shard.name.as_str(), shard.digest), (77, "a.txt", digest()));
    read
}

/// The rule of the stream, as directly as it can be said.
fn reference(cutting: Cutting, documents: &[Vec<u32>]) -> (Vec<u32>, Vec<(u64, Vec<u32>)>) {
    let (mut stream, mut held_out) = (Vec::new(), Vec::new());
    for document in documents.iter().flat_map(|d| d.split(|token| Some(*token) == cutting.end_of_text())) {
        let before = stream.len();
        for block in document.chunks(cutting.block() as usize) {
            let bytes: Vec<u8> = block.iter().flat_map(|token| token.to_le_bytes()).collect();
            if cutting.holds_out(&bytes) {
                held_out.push((stream.len() as u64, block.to_vec()));
            } else {
                stream.extend_from_slice(block);
            }
        }
        if stream.len() > before {
            stream.extend(cutting.end_of_text());
        }
    }
    (stream, held_out)
}

fn blocks(tokens: &ShardTokens) -> Vec<(u64, Vec<u32>)> {
    let block = |block: &Block| {
        let first = block.first as usize;
        (block.position, tokens.held_out[first..first + block.count as usize].to_vec())
    };
    tokens.shard.held_out.iter().map(block).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn blocks_are_cut_and_held_out_by_the_rule(
        documents in prop::collection::vec(prop::collection::vec(0u32..6, 0..40), 0..12),
        end_of_text in prop::option::of(0u32..6),
        block in 1u32..9,
        share in 0.0..0.9,
    ) {
        let cutting = cutting(end_of_text, block, share);
        let inputs: Vec<_> = documents.iter().map(|d| (d.as_slice(), None)).collect();
        let tokens = written(cutting, &inputs);
        let (stream, held_out) = reference(cutting, &documents);
        prop_assert_eq!(&*tokens.stream, stream);
        prop_assert_eq!(blocks(&tokens), held_out);
        let texts = documents.iter().flat_map(|d| d.split(|t| Some(*t) == end_of_text)).filter(|d| !d.is_empty());
        prop_assert_eq!(tokens.shard.documents, texts.count() as u64);
    }
}

#[test]
fn a_document_in_pieces_is_the_same_document() {
    let cutting = cutting(Some(0), 5, 0.4);
    let tokens: Vec<u32> = (0..400).map(|i| i * 7919 % 13).collect();
    let ends: Vec<u64> = (0..400).map(|i| i * 3).collect();
    let whole = written(cutting, &[(&tokens, Some(&ends))]);
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(&Disk, folder.path(), digest(), "a.txt", cutting).unwrap();
    for (tokens, ends) in tokens.chunks(3).zip(ends.chunks(3)) {
        writer.push(tokens, Some(ends)).unwrap();
    }
    assert_eq!(writer.finish(77).unwrap(), whole.shard);
}

#[test]
fn a_block_knows_the_bytes_behind_what_it_predicts() {
    // Everything is held out but next to nothing.
    let cutting = cutting(None, 3, 1.0f64.next_down());
    let tokens = written(cutting, &[(&[1, 2, 3, 4], Some(&[2, 5, 9, 14])), (&[5, 6], None)]);
    let bytes: Vec<_> = tokens.shard.held_out.iter().map(|block| block.bytes).collect();
    assert_eq!(bytes, [Some(7), Some(0), None]);
    assert_eq!(tokens.stream.len(), 0);
}

#[test]
fn byte_ends_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(&Disk, folder.path(), digest(), "a.txt", cutting(None, 3, 0.0)).unwrap();
    let error = writer.push(&[1, 2], Some(&[1])).unwrap_err();
    assert_eq!(error.to_string(), "2 tokens came with 1 byte ends; one for each is needed, or none at all");
}

/// Writes a shard of three blocks, some of them held out.
fn write(storage: &dyn Storage, folder: &Path) -> Result<Shard, Error> {
    let mut writer = Writer::create(storage, folder, digest(), "a.txt", cutting(None, 4, 0.5))?;
    writer.document(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], None)?;
    writer.finish(12)
}

#[test]
fn a_shard_is_whole_or_not_there_whenever_the_power_goes() {
    let disk = CrashDisk::new();
    let shard = write(&disk, Path::new("/")).unwrap();
    assert!(!shard.held_out.is_empty() && shard.tokens > 0);
    let mut seen = [false; 2];
    for moment in 0..=disk.moments() {
        for image in disk.crash_images_at(moment) {
            let published = Path::new("/").join(digest().to_string());
            let there = image.kind(&published).unwrap().is_some();
            seen[usize::from(there)] = true;
            if there {
                let real = tempfile::tempdir().unwrap();
                image.write_to(real.path()).unwrap();
                let published = real.path().join(digest().to_string());
                manifest::verify(&published).unwrap();
                assert_eq!(ShardTokens::open(&published).unwrap().shard, shard);
            }
        }
    }
    assert_eq!(seen, [true, true]);
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    let mut room = 0;
    loop {
        let disk = CrashDisk::new();
        disk.full_after(room);
        match write(&disk, Path::new("/")) {
            Ok(_) => break,
            Err(Error::Storage(error)) => assert!(error.is_full(), "{error}"),
            Err(error) => panic!("{error}"),
        }
        assert_eq!(disk.list(Path::new("/")).unwrap(), [], "room for {room}");
        room += 1;
    }
    assert!(room >= 7, "a folder, four files and their bytes need room: {room}");
}

#[test]
fn a_shard_that_is_there_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    write(&Disk, folder.path()).unwrap();
    match write(&Disk, folder.path()) {
        Err(Error::Storage(error)) => assert!(error.is_taken(), "{error}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn files_that_do_not_fit_together_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = write(&Disk, folder.path()).unwrap().tokens;
    let published = folder.path().join(digest().to_string());
    let stream = published.join(STREAM);
    std::fs::write(&stream, vec![0; tokens as usize * 4 + 4]).unwrap();
    assert!(matches!(ShardTokens::open(&published), Err(Unusable::Count { .. })));
    std::fs::write(&stream, [1, 2, 3]).unwrap();
    let error = Tokens::open(&stream).unwrap_err().to_string();
    assert!(error.contains("has 3 bytes, which is no whole number of tokens"), "{error}");
    std::fs::remove_file(&stream).unwrap();
    assert!(matches!(ShardTokens::open(&published), Err(Unusable::Unreadable { .. })));
}
