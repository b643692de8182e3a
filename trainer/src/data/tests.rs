//! Batches, and every way in which a job's data can be wrong.

use std::collections::BTreeSet;
use std::fs;

use super::*;
use crate::fixture::{Fixture, LENGTH, PER_STEP, STEPS, VOCABULARY, tokens, write_tokens};

fn open(fixture: &Fixture) -> Result<Data, DataError> {
    let tokens = TokenFiles::open(&fixture.job, fixture.path(), VOCABULARY as usize)?;
    Data::open(&fixture.job, fixture.path(), Arc::new(tokens))
}

fn refusal(fixture: &Fixture) -> String {
    match open(fixture) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("the data was taken"),
    }
}

fn write_pieces(fixture: &Fixture, pieces: &[Piece]) {
    let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_bytes()).collect();
    fs::write(fixture.path().join("sequences.bin"), bytes).unwrap();
}

#[test]
fn a_batch_is_the_steps_sequences_with_their_digest() {
    let fixture = Fixture::new();
    let all = tokens(STEPS as u32 * PER_STEP * LENGTH + 1, 1);
    let data = open(&fixture).unwrap();
    for step in [0, 7, STEPS - 1] {
        let batch = data.batch(step).unwrap();
        let sequences = (0..PER_STEP as usize).flat_map(|number| {
            let first = (step as usize * PER_STEP as usize + number) * LENGTH as usize;
            &all[first..=first + LENGTH as usize]
        });
        let expected: Vec<u32> = sequences.copied().collect();
        assert_eq!(batch.tokens, expected);
        let bytes: Vec<u8> = expected.iter().flat_map(|token| token.to_le_bytes()).collect();
        assert_eq!(batch.digest, blake3::hash(&bytes).to_hex()[..16]);
    }
}

#[test]
fn a_digest_is_that_of_the_streams_golden_cases() {
    // The first batch of the first case of the stream's vectors.
    let mut fixture = Fixture::new();
    let stream = [
        232, 444, 287, 439, 474, 400, 239, 232, 261, 438, 301, 98, 95, 412, 263, 244, 323, 315, 407, 96, 49,
        229, 156, 73, 47, 276, 415, 456, 356, 325, 22, 305, 203, 494, 232, 335, 379, 316, 333, 81, 0,
    ];
    write_tokens(&fixture.path().join("stream.u32"), &stream);
    let (to, sequence_length, sequences_per_step) = (1, 8, 2);
    fixture.job = Job { to, sequence_length, sequences_per_step, ..fixture.job };
    write_pieces(&fixture, &[2, 4].map(|g| Piece { file: 0, count: 9, first: g * 8 }));
    let tokens = Arc::new(TokenFiles::open(&fixture.job, fixture.path(), 500).unwrap());
    let batch = Data::open(&fixture.job, fixture.path(), tokens).unwrap().batch(0).unwrap();
    assert_eq!(batch.digest, "6b8a38b1b574c8b0");
}

#[test]
fn batches_read_ahead_come_in_order_and_may_be_left() {
    let fixture = Fixture::new();
    let mut ahead = open(&fixture).unwrap().ahead(5, STEPS).unwrap();
    for step in 5..9 {
        assert_eq!(ahead.take().unwrap().step, step);
    }
    drop(ahead);
    let mut ahead = open(&fixture).unwrap().ahead(STEPS - 1, STEPS).unwrap();
    assert!(ahead.take().is_ok());
    assert!(matches!(ahead.take(), Err(DataError::Thread(_))));
}

#[test]
fn batches_are_the_same_in_memory_that_was_given_back() {
    let fixture = Fixture::new();
    let fresh = open(&fixture).unwrap();
    let mut ahead = open(&fixture).unwrap().ahead(0, STEPS).unwrap();
    let mut memory = BTreeSet::new();
    for step in 0..STEPS {
        let (found, expected) = (ahead.take().unwrap(), fresh.batch(step).unwrap());
        assert_eq!((&found.tokens, &found.digest), (&expected.tokens, &expected.digest));
        memory.insert(found.tokens.as_ptr() as usize);
        ahead.give_back(found);
    }
    // Those that are ready, one that is being read, one in use.
    assert!(memory.len() <= AHEAD + 2, "{} batches are in memory", memory.len());
}

#[test]
fn a_piece_outside_its_file_is_refused_with_its_place() {
    let fixture = Fixture::new();
    let count = LENGTH + 1;
    let holds = STEPS * u64::from(PER_STEP * LENGTH) + 1;
    for (piece, reason) in [
        (Piece { file: 2, count, first: 0 }, "but the job names 2 token files".to_owned()),
        (Piece { file: 0, count, first: holds - 12 }, format!("stream.u32 holds {holds}")),
        (Piece { file: 0, count, first: u64::MAX }, format!("stream.u32 holds {holds}")),
        (Piece { file: 1, count, first: 99 }, "held_out.u32 holds 100".to_owned()),
    ] {
        write_pieces(&fixture, &[Piece { file: 0, count, first: 0 }, piece]);
        let refusal = refusal(&fixture);
        assert!(
            refusal.contains("sequences.bin: record 1 takes 13 tokens") && refusal.contains(&reason),
            "{refusal}"
        );
    }
}

#[test]
fn sequences_that_do_not_fill_the_steps_are_refused() {
    let fixture = Fixture::new();
    let good = fs::read(fixture.path().join("sequences.bin")).unwrap();
    let piece = |count| Piece { file: 0, count, first: 0 }.to_bytes();
    for (bytes, reason) in [
        (good[..good.len() - 16].to_vec(), "79 whole sequences and 5 tokens more"),
        (good[..good.len() - 32].to_vec(), "79 whole sequences and 0 tokens more"),
        ([&good[..], &piece(13)].concat(), "81 whole sequences"),
        ([&good[..], &[0; 3]].concat(), "3 bytes after its last whole record"),
        ([&piece(14), &good[16..]].concat(), "does not end with record 0"),
        ([&piece(0), &good[..]].concat(), "does not end with record 0"),
        (Vec::new(), "0 whole sequences and 0 tokens more"),
    ] {
        fs::write(fixture.path().join("sequences.bin"), bytes).unwrap();
        let refusal = refusal(&fixture);
        assert!(refusal.contains(reason) && refusal.contains("80 sequences of 13 tokens"), "{refusal}");
    }
}

#[test]
fn a_token_outside_the_vocabulary_is_named() {
    let fixture = Fixture::new();
    let mut stream = tokens(STEPS as u32 * PER_STEP * LENGTH + 1, 1);
    stream[50] = VOCABULARY;
    write_tokens(&fixture.path().join("stream.u32"), &stream);
    let data = open(&fixture).unwrap();
    assert!(data.batch(0).is_ok());
    let error = data.batch(1).unwrap_err().to_string();
    let fewer = TokenFiles::open(&fixture.job, fixture.path(), 30).unwrap();
    let held_out = crate::evaluate::check(&fixture.job, &fewer, Path::new("job.json"));
    assert!(matches!(held_out, Err(DataError::Token { token: 30, .. })));
    assert!(
        error.contains("stream.u32: token 50 is 31, outside the model's vocabulary of 31 tokens"),
        "{error}"
    );
}

#[test]
fn token_files_that_are_none_are_refused() {
    let fixture = Fixture::new();
    fs::write(fixture.path().join("held_out.u32"), [0; 7]).unwrap();
    assert!(refusal(&fixture).contains("7 bytes"));
    fs::remove_file(fixture.path().join("held_out.u32")).unwrap();
    assert!(refusal(&fixture).contains("held_out.u32"));
    fs::write(fixture.path().join("held_out.u32"), []).unwrap();
    assert!(open(&fixture).is_ok());
}

#[test]
fn rates_that_are_none_are_refused() {
    let fixture = Fixture::new();
    let path = fixture.path().join("rates.f64");
    assert_eq!(Rates::read(&fixture.job, fixture.path()).unwrap().of(3), 4e-3);
    let refusal = |rates: &[f64]| {
        fs::write(&path, rates.iter().flat_map(|rate| rate.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
        Rates::read(&fixture.job, fixture.path()).err().unwrap().to_string()
    };
    assert!(refusal(&[1e-3; 19]).contains("has 152 bytes, but the job has 20 steps"));
    let mut rates = [1e-3; 20];
    rates[4] = f64::NAN;
    assert!(refusal(&rates).contains("the rate of step 4 is NaN"));
    rates[4] = -1e-3;
    assert!(refusal(&rates).contains("the rate of step 4 is -0.001"));
}
