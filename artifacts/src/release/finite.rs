//! A model with a number that is none is of no use to anybody: it is looked for before a version is published.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::weights::{Error, Weights};

/// Bytes that are looked at once; a multiple of every number's size.
const CHUNK: usize = 1 << 20;

/// The first tensor of a safetensors file, in the order of their bytes, that holds an infinity or no number. Tensors of
/// whole numbers have none.
///
/// # Errors
/// The file cannot be read, or is none.
pub fn first_not_finite(path: &Path) -> Result<Option<String>, Error> {
    let weights = Weights::open(path)?;
    let unreadable = |cause| Error::Unreadable { path: path.to_owned(), cause };
    let mut file = File::open(path).map_err(unreadable)?;
    let mut buffer = vec![0; CHUNK];
    for tensor in weights.tensors() {
        let Some(is_finite) = test(tensor.dtype) else { continue };
        file.seek(SeekFrom::Start(tensor.first)).map_err(unreadable)?;
        let mut left = tensor.bytes;
        while left > 0 {
            let chunk = &mut buffer[..left.min(CHUNK as u64) as usize];
            file.read_exact(chunk).map_err(unreadable)?;
            if !is_finite(chunk) {
                return Ok(Some(tensor.name.to_owned()));
            }
            left -= chunk.len() as u64;
        }
    }
    Ok(None)
}

/// Whether all numbers in some bytes are finite: whose exponent is all ones is not.
fn test(dtype: &str) -> Option<fn(&[u8]) -> bool> {
    fn half(bytes: &[u8], exponent: u16) -> bool {
        bytes.chunks_exact(2).all(|number| u16::from_le_bytes([number[0], number[1]]) & exponent != exponent)
    }
    match dtype {
        "F64" => Some(|bytes| {
            let exponent = 0x7ff << 4;
            bytes
                .chunks_exact(8)
                .all(|number| u16::from_le_bytes([number[6], number[7]]) & exponent != exponent)
        }),
        "F32" => Some(|bytes| {
            let exponent = 0xff << 7;
            bytes
                .chunks_exact(4)
                .all(|number| u16::from_le_bytes([number[2], number[3]]) & exponent != exponent)
        }),
        "BF16" => Some(|bytes| half(bytes, 0xff << 7)),
        "F16" => Some(|bytes| half(bytes, 0x1f << 10)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::{Dtype, TensorView, serialize};

    use super::*;

    fn found(dtype: Dtype, bytes: &[u8], width: usize) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let view = |bytes: &'static [u8]| TensorView::new(Dtype::U8, vec![bytes.len()], bytes).unwrap();
        let judged = TensorView::new(dtype, vec![bytes.len() / width], bytes).unwrap();
        let views = [("a", view(&[0xff; 8])), ("judged", judged), ("z", view(&[0xff; 8]))];
        std::fs::write(&path, serialize(views, None).unwrap()).unwrap();
        first_not_finite(&path).unwrap()
    }

    #[test]
    fn every_kind_of_number_that_is_none_is_found_wherever_it_stands() {
        let name = Some("judged".to_owned());
        for (place, count) in [(0, 1), (2, 3), (300_000, 300_001), (262_143, 300_000)] {
            let f32s = |number: f32| {
                let mut numbers = vec![f32::MAX; count];
                numbers[place] = number;
                numbers.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>()
            };
            for number in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                assert_eq!(found(Dtype::F32, &f32s(number), 4), name, "{number} at {place}");
            }
            for number in [0.0, -0.0, f32::MIN_POSITIVE, f32::from_bits(1), f32::MIN] {
                assert_eq!(found(Dtype::F32, &f32s(number), 4), None, "{number} at {place}");
            }
        }
        for (bits, expected) in
            [(0x7f80, name.clone()), (0xffc0, name.clone()), (0x7f7f, None), (0x0001, None)]
        {
            assert_eq!(
                found(Dtype::BF16, &[0, 0, 0, 0, bits as u8, (bits >> 8) as u8], 2),
                expected,
                "{bits:x}"
            );
        }
        for (bits, expected) in [(0x7c00, name.clone()), (0xfe00, name.clone()), (0x7bff, None)] {
            assert_eq!(found(Dtype::F16, &[bits as u8, (bits >> 8) as u8], 2), expected, "{bits:x}");
        }
        for (number, expected) in [(f64::NAN, name.clone()), (f64::NEG_INFINITY, name), (f64::MIN, None)] {
            assert_eq!(found(Dtype::F64, &number.to_le_bytes(), 8), expected, "{number}");
        }
    }
}
