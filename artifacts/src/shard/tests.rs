use std::io::Cursor;

use proptest::prelude::*;

use super::*;

fn options() -> Options {
    Options::new(1000)
}

fn documents(content: Content, bytes: &[u8], options: &Options) -> Result<Vec<Document>, Error> {
    read(content.into(), Path::new("shard"), Cursor::new(bytes.to_vec()), bytes.len() as u64, options)?
        .collect()
}

fn texts(content: Content, bytes: &[u8]) -> Vec<String> {
    let text = |document| match document {
        Document::Text(text) => text,
        Document::Tokens(tokens) => panic!("{tokens:?}"),
    };
    documents(content, bytes, &options()).unwrap().into_iter().map(text).collect()
}

fn refusal(content: Content, bytes: &[u8], options: &Options) -> String {
    match documents(content, bytes, options) {
        Err(Error::Refused(refusal)) => refusal.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_name_stands_for_a_format() {
    for (name, format) in [
        ("a.txt", Content::Text),
        ("b.MD", Content::Text),
        ("c.tar.rs", Content::Text),
        ("d.jsonl", Content::JsonLines),
        ("e.bin", Content::TokenFile),
    ] {
        assert_eq!(Format::of(name), Ok(format.into()), "{name}");
    }
    for name in [
        "a",
        "txt",
        ".txt",
        "a.json",
        "a.gz",
        ".txt.gz",
        "a.tar.gz",
        "a.gz.txt.zip",
        "a.txt.gz.gz",
        "a.parquet",
        "a.",
        "",
    ] {
        let refusal = Format::of(name).unwrap_err().to_string();
        assert!(refusal.contains("this file format is not known"), "{refusal}");
    }
}

#[test]
fn a_text_is_one_document_without_its_byte_order_mark() {
    assert_eq!(texts(Content::Text, b"one\r\ntwo\0"), ["one\r\ntwo\0"]);
    assert_eq!(texts(Content::Text, "\u{feff}\u{feff}é".as_bytes()), ["\u{feff}é"]);
}

#[test]
fn a_bad_text_is_refused_with_its_place() {
    let check =
        |bytes: &[u8], expected: &str| assert_eq!(refusal(Content::Text, bytes, &options()), expected);
    check(b"", "shard: the file is empty; a shard holds at least one document");
    check(BOM, "shard: the file is empty; a shard holds at least one document");
    check(b"ab\ncd\nef\xffgh", "shard:3: broken UTF-8 at byte 8 of the file; text is taken as UTF-8 only");
    check(b"cut \xe2\x82", "shard:1: broken UTF-8 at byte 4 of the file; text is taken as UTF-8 only");
    check(
        &[BOM, b"\n\xc0"].concat(),
        "shard:2: broken UTF-8 at byte 4 of the file; text is taken as UTF-8 only",
    );
}

const BOM: &[u8] = text::BYTE_ORDER_MARK;

#[test]
fn a_document_of_the_longest_length_is_taken_and_one_more_byte_is_not() {
    let short = Options { longest_document: 4, longest_line: 14, ..options() };
    for bytes in [b"abcd".to_vec(), [BOM, b"abcd"].concat()] {
        assert_eq!(documents(Content::Text, &bytes, &short).unwrap(), [Document::Text("abcd".into())]);
    }
    for bytes in [b"abcde".to_vec(), [BOM, b"abcde"].concat()] {
        assert!(
            refusal(Content::Text, &bytes, &short).starts_with("shard:1: a document is longer than 4 bytes")
        );
    }
    let line = "{\"text\":\"abcd\"}";
    assert_eq!(line.len(), 15);
    let refused = refusal(Content::JsonLines, line.as_bytes(), &short);
    assert!(refused.starts_with("shard:1: the line is longer than 14 bytes"), "{refused}");
    let longer = Options { longest_line: 15, ..short.clone() };
    let twice = [line, line].join("\n");
    assert_eq!(documents(Content::JsonLines, twice.as_bytes(), &longer).unwrap().len(), 2);
    let shorter = Options { longest_document: 3, ..longer };
    let refused = refusal(Content::JsonLines, line.as_bytes(), &shorter);
    assert!(refused.starts_with("shard:1: a document is longer than 3 bytes"), "{refused}");
}

#[test]
fn json_lines_give_one_field_each() {
    let file = [
        "\u{feff}{\"text\": \"one\", \"other\": [1, {\"text\": 2}]}\r\n",
        "\n  \r\n",
        "{\"id\":7,\"t\\u0065xt\":\"t\\u00e9\\n\"}\n",
        "{\"text\":\"\"}\n",
        "{\"text\":1,\"text\":\"last\"}",
    ];
    assert_eq!(texts(Content::JsonLines, file.concat().as_bytes()), ["one", "té\n", "", "last"]);
}

#[test]
fn another_field_may_be_set() {
    let options = Options { field: "content".into(), ..options() };
    let found = documents(Content::JsonLines, b"{\"text\":1,\"content\":\"here\"}", &options).unwrap();
    assert_eq!(found, [Document::Text("here".into())]);
}

#[test]
fn a_bad_line_is_refused_with_its_place() {
    let first = b"{\"text\":\"good\"}\n\n";
    let check = |line: &[u8], expected: &str| {
        let found = refusal(Content::JsonLines, &[first, line].concat(), &options());
        assert_eq!(found, expected);
    };
    check(b"{\"txt\":\"\"}\n", "shard:3: the field `text` is missing (line at byte 17 of the file)");
    for (value, found) in [
        ("3", "a number"),
        ("-1e3", "a number"),
        ("null", "null"),
        ("true", "a boolean"),
        ("[[], 1]", "an array"),
        ("{\"text\":\"\"}", "an object"),
    ] {
        check(
            format!("{{\"text\":{value}}}\n").as_bytes(),
            &format!(
                "shard:3: the field `text` holds {found}; a string was expected (line at byte 17 of the file)"
            ),
        );
    }
    check(
        b"{\"text\":\"go",
        "shard:3:11: no JSON object can be read (byte 17 of the file): EOF while parsing a string",
    );
    check(
        b"{\"text\":\"\"} x",
        "shard:3:13: no JSON object can be read (byte 17 of the file): trailing characters",
    );
    check(
        b"[\"text\"]",
        "shard:3:0: no JSON object can be read (byte 17 of the file): invalid type: sequence, expected an object with \
         a field `text`",
    );
    check(
        b"{\"text\":\"g\xffd\"}",
        "shard:3: broken UTF-8 at byte 27 of the file; text is taken as UTF-8 only",
    );
    assert!(refusal(Content::JsonLines, b"\n \n", &options()).contains("the file is empty"));
    let surrogate = refusal(Content::JsonLines, br#"{"text":"\ud800"}"#, &options());
    assert!(surrogate.starts_with("shard:1:"), "{surrogate}");
}

#[test]
fn broken_utf8_behind_a_byte_order_mark_has_its_true_byte() {
    let found = refusal(Content::JsonLines, &[BOM, b"{\"text\":\"\xff\"}"].concat(), &options());
    assert!(found.contains("at byte 12 of"), "{found}");
}

#[test]
fn deep_nesting_breaks_nothing() {
    let deep = [b"{\"text\":".as_slice(), &[b'['; 100_000]].concat();
    assert!(refusal(Content::JsonLines, &deep, &options()).contains("EOF while parsing"));
    let other = [b"{\"a\":".as_slice(), &[b'['; 100_000], &[b']'; 100_000], b",\"text\":\"x\"}"].concat();
    assert_eq!(texts(Content::JsonLines, &other), ["x"]);
}

#[test]
fn after_a_refusal_there_is_nothing_more() {
    let bytes = b"{\"text\":\"a\"}\nrubbish\n{\"text\":\"b\"}\n";
    let size = bytes.len() as u64;
    let mut documents =
        read(Content::JsonLines.into(), Path::new("shard"), Cursor::new(bytes), size, &options()).unwrap();
    assert!(documents.next().unwrap().is_ok());
    assert!(documents.next().unwrap().is_err());
    assert!(documents.next().is_none());
}

fn tokens(bytes: &[u8], options: &Options) -> Vec<u32> {
    let run = |document| match document {
        Document::Tokens(tokens) => tokens,
        Document::Text(text) => panic!("{text}"),
    };
    documents(Content::TokenFile, bytes, options).unwrap().into_iter().flat_map(run).collect()
}

#[test]
fn token_files_are_read_in_both_widths_across_chunks() {
    let numbers: Vec<u32> = (0..200_000).map(|i| i % 1000).collect();
    let narrow: Vec<u8> = numbers.iter().flat_map(|n| (*n as u16).to_le_bytes()).collect();
    let wide: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    assert_eq!(tokens(&narrow, &options()), numbers);
    assert_eq!(tokens(&wide, &Options { width: Width::Uint32, ..options() }), numbers);
}

#[test]
fn a_bad_token_file_is_refused_with_its_place() {
    let mut bytes = vec![0; 2 * 200_000];
    bytes[2 * 150_000..][..2].copy_from_slice(&1000u16.to_le_bytes());
    assert_eq!(
        refusal(Content::TokenFile, &bytes, &options()),
        "shard: token 150000 (byte 300000 of the file) is 1000, which is outside the vocabulary of 1000 tokens"
    );
    assert_eq!(
        refusal(Content::TokenFile, &[0; 7], &options()),
        "shard: 7 bytes are no whole number of tokens of 2 bytes"
    );
    let wide = Options { width: Width::Uint32, ..options() };
    assert!(refusal(Content::TokenFile, &[0; 6], &wide).contains("tokens of 4 bytes"));
    assert!(refusal(Content::TokenFile, &[], &wide).contains("the file is empty"));
}

/// llm.c's header: magic, version, number of tokens, and zeros.
fn with_header(magic: u32, version: u32, promised: u32, tokens: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        [magic, version, promised].iter().flat_map(|number| number.to_le_bytes()).collect();
    bytes.resize(1024, 0);
    [&bytes, tokens].concat()
}

#[test]
fn a_header_of_llm_c_says_how_wide_tokens_are() {
    let numbers: Vec<u32> = (0..200_001).map(|i| i % 1000).collect();
    let narrow: Vec<u8> = numbers.iter().flat_map(|n| (*n as u16).to_le_bytes()).collect();
    let wide: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    let count = numbers.len() as u32;
    for width in [Width::Uint16, Width::Uint32] {
        let options = Options { width, ..options() };
        assert_eq!(tokens(&with_header(20_240_520, 1, count, &narrow), &options), numbers);
        assert_eq!(tokens(&with_header(20_240_801, 7, count, &wide), &options), numbers);
    }
    // Another version is none that we know: then these are tokens like any others.
    let others = with_header(20_240_520, 2, count, &narrow);
    assert!(
        refusal(Content::TokenFile, &others, &options()).starts_with("shard: token 0 (byte 0 of the file)")
    );
}

#[test]
fn a_header_that_promises_what_is_not_there_is_refused() {
    let file = |promised: u32, bytes: usize| with_header(20_240_520, 1, promised, &vec![0; bytes]);
    for promised in [9, 11] {
        let expected = format!(
            "shard: its header promises {promised} tokens, but 10 follow: the file is cut short, or is two in one"
        );
        assert_eq!(refusal(Content::TokenFile, &file(promised, 20), &options()), expected);
    }
    assert_eq!(
        refusal(Content::TokenFile, &file(10, 19), &options()),
        "shard: 19 bytes are no whole number of tokens of 2 bytes"
    );
    assert!(refusal(Content::TokenFile, &file(0, 0), &options()).contains("the file is empty"));
    let mut outside = file(10, 20);
    outside[1024 + 6..][..2].copy_from_slice(&1000u16.to_le_bytes());
    let refusal = refusal(Content::TokenFile, &outside, &options());
    assert!(refusal.starts_with("shard: token 3 (byte 1030 of the file) is 1000"), "{refusal}");
}

#[test]
fn a_token_file_that_shrinks_while_it_is_read_is_not_the_shards_fault() {
    let documents =
        read(Content::TokenFile.into(), Path::new("shard"), Cursor::new([0; 7]), 8, &options()).unwrap();
    assert!(matches!(documents.collect::<Result<Vec<_>, _>>(), Err(Error::Unreadable { .. })));
}

#[test]
fn a_file_is_opened_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.py");
    std::fs::write(&path, "print(1)\n").unwrap();
    let found: Vec<_> = open(&path, &options()).unwrap().map(Result::unwrap).collect();
    assert_eq!(found, [Document::Text("print(1)\n".into())]);
    assert!(matches!(open(&folder.path().join("b.py"), &options()), Err(Error::Unreadable { .. })));
    let unknown = open(&folder.path().join("b.exe"), &options());
    assert!(matches!(unknown, Err(Error::Refused(Refusal::UnknownFormat { .. }))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), bound in 0u64..40) {
        let bounds = Options { longest_document: bound, longest_line: bound, ..options() };
        for content in [Content::Text, Content::JsonLines, Content::TokenFile] {
            for options in [&bounds, &options(), &Options { width: Width::Uint32, ..options() }] {
                let _ = documents(content, &bytes, options);
            }
        }
    }

    #[test]
    fn no_nearly_good_line_makes_a_reader_panic(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "{", "}", "[", "]", "\"", "text", "\"text\"", ":", ",", "\n", "\\u", "d800", "\\", "1e999", "-", "null",
                "{\"text\":\"a\"}\n", "\u{feff}", " ", "\r",
            ]),
            0..20,
        ),
    ) {
        let _ = documents(Content::JsonLines, parts.concat().as_bytes(), &options());
    }

    #[test]
    fn every_text_comes_through_a_json_line(found in prop::collection::vec(".*", 1..8)) {
        let lines: Vec<String> = found.iter().map(|t| serde_json::json!({"a": 1, "text": t}).to_string()).collect();
        prop_assert_eq!(texts(Content::JsonLines, lines.join("\n").as_bytes()), found);
    }
}
