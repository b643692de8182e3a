//! The format of TensorBoard's event files: records with checksums (TFRecord) that each hold an `Event` of protocol buffers.
//!
//! Four fields of one message are all that is written, so they are written here: `Event { 1: wall_time double, 2: step int64,
//! 3: file_version string, 5: summary }`, `Summary { 1: repeated Value }`, `Value { 1: tag string, 2: simple_value float }`.

/// What stands first in a file.
pub const VERSION: &str = "brain.Event:2";

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const FIXED32: u8 = 5;

/// Appends the record that a file begins with.
pub fn begin(file: &mut Vec<u8>, time: f64) {
    let mut event = Vec::new();
    double(&mut event, 1, time);
    bytes(&mut event, 3, VERSION.as_bytes());
    frame(file, &event);
}

/// Appends numbers of one step.
pub fn numbers(file: &mut Vec<u8>, time: f64, step: u64, numbers: &[(&str, f64)]) {
    let mut summary = Vec::new();
    for (tag, number) in numbers {
        let mut value = Vec::new();
        bytes(&mut value, 1, tag.as_bytes());
        key(&mut value, 2, FIXED32);
        #[expect(clippy::cast_possible_truncation, reason = "the format has 32 bits for a number")]
        value.extend((*number as f32).to_le_bytes());
        bytes(&mut summary, 1, &value);
    }
    let mut event = Vec::new();
    double(&mut event, 1, time);
    key(&mut event, 2, VARINT);
    varint(&mut event, step);
    bytes(&mut event, 5, &summary);
    frame(file, &event);
}

/// A record: its length and its bytes, each with a checksum.
fn frame(file: &mut Vec<u8>, record: &[u8]) {
    let length = (record.len() as u64).to_le_bytes();
    file.extend(length);
    file.extend(masked(&length).to_le_bytes());
    file.extend(record);
    file.extend(masked(record).to_le_bytes());
}

/// The checksum as TFRecord has it: turned and shifted, so that a record may hold checksums itself.
fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn key(out: &mut Vec<u8>, field: u8, kind: u8) {
    out.push(field << 3 | kind);
}

fn double(out: &mut Vec<u8>, field: u8, value: f64) {
    key(out, field, FIXED64);
    out.extend(value.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    key(out, field, BYTES);
    varint(out, value.len() as u64);
    out.extend(value);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_the_bytes_that_tensorflow_writes() {
        // tf.summary's writer, for the version and for loss = 2.5 at step 300, at the time 1.0.
        let mut file = Vec::new();
        begin(&mut file, 1.0);
        assert_eq!(file[..8], 24u64.to_le_bytes());
        assert_eq!(file[12..21], [0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
        assert_eq!(file[21..36], *b"\x1a\x0dbrain.Event:2");
        let mut file = Vec::new();
        numbers(&mut file, 1.0, 300, &[("loss", 2.5)]);
        let event = &file[12..file.len() - 4];
        let value = b"\x0a\x04loss\x15\x00\x00\x20\x40";
        let mut expected = vec![0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x10, 0xac, 0x02, 0x2a, 13, 0x0a, 11];
        expected.extend(value);
        assert_eq!(event, expected);
        // RFC 3720, B.4: the checksum of 32 zeros.
        assert_eq!(masked(&[0; 32]), 0x8a91_36aa_u32.rotate_right(15).wrapping_add(0xa282_ead8));
    }
}
