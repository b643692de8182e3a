//! Files as people pack them.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

/// As `gzip` does it.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// As `zstd` does it.
pub fn zstandard(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// llm.c's header of a file of so many tokens of two bytes (GPT-2's), or of four (LLaMA 3's), and the tokens.
pub fn with_header_of_llm_c(wide: bool, tokens: &[u8]) -> Vec<u8> {
    let (magic, version, width) = if wide { (20_240_801u32, 7u32, 4) } else { (20_240_520, 1, 2) };
    let mut header: Vec<u8> = [magic, version, (tokens.len() / width) as u32]
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    header.resize(1024, 0);
    [&header, tokens].concat()
}
