//! Whatever comes out of an archive is what went into it, and nothing comes out of a bad one without a refusal.

use std::io::{Cursor, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::super::{Content, Document, Error, Format, Options, Refusal, Width, read};
use super::*;

const ARCHIVES: [Archive; 2] = [Archive::Gzip, Archive::Zstandard];

fn packed(archive: Archive, bytes: &[u8]) -> Vec<u8> {
    match archive {
        Archive::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Archive::Zstandard => {
            let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
            encoder.include_checksum(true).unwrap();
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
    }
}

fn documents(content: Content, archive: Archive, bytes: Vec<u8>) -> Result<Vec<Document>, Error> {
    documents_with(&Options::new(1000), content, archive, bytes)
}

fn documents_with(
    options: &Options,
    content: Content,
    archive: Archive,
    bytes: Vec<u8>,
) -> Result<Vec<Document>, Error> {
    let format = Format { content, archive: Some(archive) };
    let size = bytes.len() as u64;
    read(format, Path::new("shard"), Cursor::new(bytes), size, options)?.collect()
}

fn refusal(content: Content, archive: Archive, bytes: Vec<u8>) -> Refusal {
    match documents(content, archive, bytes) {
        Err(Error::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

fn lines(count: usize) -> String {
    (0..count).map(|i| format!("{{\"text\": \"document {i} of so many\"}}\n")).collect()
}

#[test]
fn a_name_says_what_is_packed_and_how() {
    for (name, content, archive) in [
        ("a.txt.gz", Content::Text, Archive::Gzip),
        ("b.JSONL.GZ", Content::JsonLines, Archive::Gzip),
        ("c.d.bin.zst", Content::TokenFile, Archive::Zstandard),
        ("e.rs.zst", Content::Text, Archive::Zstandard),
    ] {
        assert_eq!(Format::of(name), Ok(Format { content, archive: Some(archive) }), "{name}");
    }
    assert!(Format::of("a.bin.gz").unwrap().is_tokens() && !Format::of("a.txt.gz").unwrap().is_tokens());
}

#[test]
fn every_content_comes_out_as_it_went_in() {
    let text = "a text of some length, é ".repeat(30_000);
    let tokens: Vec<u8> = (0..300_000u32).flat_map(|i| ((i % 1000) as u16).to_le_bytes()).collect();
    let options = Options::new(1000);
    for (content, bytes) in [
        (Content::Text, text.as_bytes()),
        (Content::JsonLines, lines(10_000).as_bytes()),
        (Content::TokenFile, &tokens),
    ] {
        let size = bytes.len() as u64;
        let plain = read(content.into(), Path::new("shard"), Cursor::new(bytes.to_vec()), size, &options);
        let expected: Vec<Document> = plain.unwrap().map(Result::unwrap).collect();
        for archive in ARCHIVES {
            let whole = packed(archive, bytes);
            assert!(whole.len() < bytes.len());
            assert_eq!(documents(content, archive, whole).unwrap(), expected);
            // Two archives one after the other are one: `cat a.gz b.gz`.
            let (first, second) = bytes.split_at(bytes.len() / 3);
            let both = [packed(archive, first), packed(archive, second)].concat();
            assert_eq!(documents(content, archive, both).unwrap(), expected);
        }
    }
}

#[test]
fn how_much_came_out_is_known() {
    for archive in ARCHIVES {
        let (text, format) = (lines(1000), Format { content: Content::JsonLines, archive: Some(archive) });
        let bytes = packed(archive, text.as_bytes());
        let size = bytes.len() as u64;
        let mut found =
            read(format, Path::new("shard"), Cursor::new(bytes), size, &Options::new(1000)).unwrap();
        assert_eq!(found.by_ref().count(), 1000);
        assert_eq!(found.unpacked(), Some(text.len() as u64));
    }
    let plain = read(Content::Text.into(), Path::new("shard"), Cursor::new("text"), 4, &Options::new(1000));
    assert_eq!(plain.unwrap().unpacked(), None);
}

#[test]
fn an_archive_that_is_cut_short_is_refused_wherever_it_is_cut() {
    for archive in ARCHIVES {
        let whole = packed(archive, lines(200).as_bytes());
        for length in 1..whole.len() {
            let refusal = refusal(Content::JsonLines, archive, whole[..length].to_vec());
            assert!(matches!(refusal, Refusal::BrokenArchive { .. }), "{archive:?} {length}: {refusal}");
        }
    }
}

#[test]
fn what_is_no_archive_is_refused_with_words() {
    for archive in ARCHIVES {
        let refusal =
            refusal(Content::Text, archive, b"a text that is not packed at all".to_vec()).to_string();
        let expected = "shard: the archive cannot be unpacked within its first 32 bytes: ";
        assert!(refusal.starts_with(expected) && refusal.ends_with("or drop what it holds"), "{refusal}");
    }
    // Something after the end: gzip warns of it and goes on; here it may be text that would be lost.
    let whole = packed(Archive::Gzip, b"text");
    let behind = refusal(Content::Text, Archive::Gzip, [&whole[..], b"rubbish"].concat());
    assert!(matches!(behind, Refusal::BrokenArchive { .. }), "{behind}");
}

#[test]
fn an_archive_of_nothing_is_empty() {
    for archive in ARCHIVES {
        for content in [Content::Text, Content::JsonLines, Content::TokenFile] {
            let refusal = refusal(content, archive, packed(archive, b""));
            assert!(matches!(refusal, Refusal::Empty { .. }), "{refusal}");
        }
    }
}

#[test]
fn half_a_token_in_an_archive_is_refused() {
    for archive in ARCHIVES {
        let refusal = refusal(Content::TokenFile, archive, packed(archive, &[0; 7])).to_string();
        assert_eq!(refusal, "shard: 7 bytes are no whole number of tokens of 2 bytes");
        let wide = Options { width: Width::Uint32, ..Options::new(1000) };
        let found = documents_with(&wide, Content::TokenFile, archive, packed(archive, &[0; 8]));
        assert_eq!(found.unwrap(), [Document::Tokens(vec![0, 0])]);
    }
}

/// A small archive of blank lines without end: each is passed over, so that no other bound would ever be met.
#[test]
fn an_archive_that_swells_is_refused_before_it_has_come_out() {
    let bomb = zstd::encode_all(io::repeat(b'\n').take(1 << 30), 3).unwrap();
    assert!(bomb.len() < 100_000, "{}", bomb.len());
    let most = bomb.len() as u64 * 200 + (16 << 20);
    let refusal = refusal(Content::JsonLines, Archive::Zstandard, bomb);
    assert_eq!(refusal, Refusal::SwollenArchive { path: "shard".into(), most });
    let expected = format!(
        "shard: the archive holds more than {most} bytes, far more than text of any kind packs so small; drop what it \
         holds if that is meant"
    );
    assert_eq!(refusal.to_string(), expected);
}

/// gzip packs nothing to less than a thousandth of its size, which is more than enough for a bomb.
#[test]
fn one_of_gzip_swells_too() {
    let bomb = packed(Archive::Gzip, &vec![b'\n'; 64 << 20]);
    let refusal = refusal(Content::JsonLines, Archive::Gzip, bomb);
    assert!(matches!(refusal, Refusal::SwollenArchive { .. }), "{refusal}");
}

/// A window that no tool opens unasked.
#[test]
fn an_archive_with_too_long_a_window_is_refused_with_a_way_out() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(30).unwrap();
    encoder.write_all(lines(10).as_bytes()).unwrap();
    let refusal = refusal(Content::JsonLines, Archive::Zstandard, encoder.finish().unwrap()).to_string();
    assert!(
        refusal.contains("Frame requires too much memory") && refusal.contains("without --long"),
        "{refusal}"
    );
}

/// Bytes that end with an error of the system.
struct Failing(Cursor<Vec<u8>>);

impl Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::from_raw_os_error(5)),
            count => Ok(count),
        }
    }
}

#[test]
fn what_the_system_would_not_read_is_no_fault_of_the_archive() {
    for archive in ARCHIVES {
        let mut bytes = packed(archive, lines(1000).as_bytes());
        bytes.truncate(bytes.len() / 2);
        let format = Format { content: Content::JsonLines, archive: Some(archive) };
        let found = read(format, Path::new("shard"), Failing(Cursor::new(bytes)), 1000, &Options::new(1000));
        let found: Result<Vec<_>, _> = found.unwrap().collect();
        assert!(matches!(found, Err(Error::Unreadable { cause, .. }) if cause.raw_os_error() == Some(5)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_damage_makes_a_reader_panic_or_lose_text_unseen(
        at in any::<prop::sample::Index>(), mask in 1..=255u8, content in 0..3usize,
    ) {
        let content = [Content::Text, Content::JsonLines, Content::TokenFile][content];
        let bytes = match content {
            Content::TokenFile => (0..2000u16).flat_map(|i| (i * 7 % 1000).to_le_bytes()).collect(),
            _ => lines(50).into_bytes(),
        };
        for archive in ARCHIVES {
            let sound = packed(archive, &bytes);
            let expected = documents(content, archive, sound.clone()).unwrap();
            let place = at.index(sound.len());
            let mut damaged = sound;
            damaged[place] ^= mask;
            // Both carry a checksum of their content; what is still read is what was packed.
            if let Ok(found) = documents(content, archive, damaged) {
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 1..300)) {
        for archive in ARCHIVES {
            for content in [Content::Text, Content::JsonLines, Content::TokenFile] {
                let _ = documents(content, archive, bytes.clone());
            }
        }
    }
}
