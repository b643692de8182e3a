use std::path::Path;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::storage::Disk;
use crate::tokens::{Cutting, ShardTokens, Writer};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    seed: u64,
    sequence_length: u32,
    sequences_per_step: u32,
    held_out_share: f64,
    held_out_block: u32,
    end_of_text: Option<u32>,
    shards: Vec<CaseShard>,
    increment_ends: Vec<u64>,
    order: Vec<u64>,
    held_out: Vec<CaseBlock>,
    batches: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseShard {
    digest: Digest,
    documents: Vec<Vec<u32>>,
    sequences_so_far: u64,
    tokens_so_far: u64,
    cut: bool,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseBlock {
    stream_position: u64,
    tokens: Vec<u32>,
    increment: Option<u64>,
}

fn write(folder: &Path, cutting: Cutting, shard: &CaseShard) -> ShardTokens {
    let mut writer = Writer::create(&Disk, folder, shard.digest, "case", cutting).unwrap();
    for document in &shard.documents {
        writer.document(document, None).unwrap();
    }
    writer.finish(0).unwrap();
    ShardTokens::open(&folder.join(shard.digest.to_string())).unwrap()
}

/// The tokens of a sequence, read through its pieces.
fn sequence(stream: &Stream, shards: &[ShardTokens], sequence: u64) -> Vec<u32> {
    let pieces = stream.pieces(sequence).unwrap();
    let tokens = |piece: &Piece| {
        let first = piece.first as usize;
        shards[piece.shard].stream[first..first + piece.count as usize].to_vec()
    };
    pieces.iter().flat_map(tokens).collect()
}

fn check(case: &Case) {
    let folder = tempfile::tempdir().unwrap();
    let cutting =
        Cutting::new(case.seed, case.end_of_text, case.held_out_block, case.held_out_share).unwrap();
    let mut stream = Stream::new(case.seed, case.sequence_length, case.sequences_per_step).unwrap();
    let (mut shards, mut ends) = (Vec::new(), Vec::new());
    for shard in &case.shards {
        let tokens = write(folder.path(), cutting, shard);
        stream.push(shard.digest, tokens.shard.tokens).unwrap();
        shards.push(tokens);
        assert_eq!((stream.tokens(), stream.sequences()), (shard.tokens_so_far, shard.sequences_so_far));
        if shard.cut {
            ends.push(stream.whole_steps());
        }
    }
    assert_eq!(ends, case.increment_ends);
    assert_eq!(stream.order(0..stream.sequences()).unwrap(), case.order);

    let increment = |position: u64| {
        let place = stream.place_of(stream.held_out_sequence(position))?;
        let step = place / u64::from(case.sequences_per_step);
        case.increment_ends.iter().position(|end| step < *end).map(|index| index as u64 + 1)
    };
    let mut held_out = Vec::new();
    for (index, shard) in shards.iter().enumerate() {
        for block in &shard.shard.held_out {
            let first = block.first as usize;
            let tokens = shard.held_out[first..first + block.count as usize].to_vec();
            let stream_position = stream.start_of(index) + block.position;
            held_out.push(CaseBlock { stream_position, tokens, increment: increment(stream_position) });
        }
    }
    assert_eq!(held_out, case.held_out);

    let batch = |step: u64| {
        let order = stream.order(stream.places_of_steps(step..step + 1)).unwrap();
        let tokens: Vec<u32> = order.into_iter().flat_map(|g| sequence(&stream, &shards, g)).collect();
        batch_digest(&tokens)
    };
    assert_eq!((0..stream.whole_steps()).map(batch).collect::<Vec<_>>(), case.batches);
}

#[test]
fn every_golden_case_is_reproduced() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../../vectors/stream.json")).unwrap();
    assert_eq!(cases.len(), 8);
    cases.iter().for_each(check);
}

fn stream_of(seed: u64, length: u32, per_step: u32, shards: &[u64]) -> Stream {
    let mut stream = Stream::new(seed, length, per_step).unwrap();
    for (index, tokens) in shards.iter().enumerate() {
        stream.push(Digest::of(&index.to_le_bytes()), *tokens).unwrap();
    }
    stream
}

/// A stream of random shards, some of them empty.
fn streams() -> impl Strategy<Value = (Stream, Vec<u64>)> {
    let shards = prop::collection::vec(prop_oneof![0u64..5, 0u64..200], 0..20);
    (any::<u64>(), 1u32..12, 1u32..5, shards)
        .prop_map(|(seed, length, per_step, shards)| (stream_of(seed, length, per_step, &shards), shards))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_complete_sequence_has_one_place((stream, _) in streams()) {
        let order = stream.order(0..stream.sequences()).unwrap();
        let mut sorted = order.clone();
        sorted.sort_unstable();
        prop_assert!(sorted.into_iter().eq(0..stream.sequences()));
        let all: Vec<u64> = (0..stream.sequences() + 2).collect();
        let places = stream.places_of(&all);
        for (place, sequence) in order.iter().enumerate() {
            prop_assert_eq!(places[*sequence as usize], Some(place as u64));
            prop_assert_eq!(stream.place_of(*sequence), Some(place as u64));
        }
        prop_assert_eq!(&places[order.len()..], [None, None]);
    }

    #[test]
    fn the_pieces_of_a_sequence_are_its_tokens_in_a_row((stream, shards) in streams()) {
        let tokens: Vec<(usize, u64)> =
            shards.iter().enumerate().flat_map(|(shard, n)| (0..*n).map(move |i| (shard, i))).collect();
        for sequence in 0..stream.sequences() {
            let pieces = stream.pieces(sequence).unwrap();
            let found: Vec<_> =
                pieces.iter().flat_map(|p| (p.first..p.first + p.count).map(|i| (p.shard, i))).collect();
            let start = (sequence * stream.shape.sequence_length) as usize;
            prop_assert_eq!(&found[..], &tokens[start..=start + stream.shape.sequence_length as usize]);
            prop_assert!(pieces.iter().all(|piece| piece.count > 0));
        }
        prop_assert!(stream.pieces(stream.sequences()).is_err());
    }

    #[test]
    fn later_shards_change_no_place_given((stream, _) in streams(), more in prop::collection::vec(0u64..100, 0..5)) {
        let before = stream.order(0..stream.sequences()).unwrap();
        let mut longer = stream.clone();
        for (index, tokens) in more.iter().enumerate() {
            longer.push(Digest::of(&[index as u8]), *tokens).unwrap();
        }
        prop_assert_eq!(longer.order(0..stream.sequences()).unwrap(), before);
    }

    #[test]
    fn a_shard_changes_no_step_before_the_first_that_it_can_change(
        (stream, shards) in streams(), at in 0.0..1.0, tokens in 0u64..200
    ) {
        prop_assume!(!shards.is_empty());
        let shard = (at * shards.len() as f64) as usize;
        let mut other = Stream::new(stream.seed, stream.shape.sequence_length as u32, stream.shape.sequences_per_step as u32).unwrap();
        for (index, digest) in stream.shards().iter().enumerate() {
            other.push(*digest, if index == shard { tokens } else { shards[index] }).unwrap();
        }
        let step = stream.first_step_with(shard);
        prop_assert_eq!(other.first_step_with(shard), step);
        let places = stream.places_of_steps(0..step);
        prop_assert_eq!(other.order(places.clone()).unwrap(), stream.order(places.clone()).unwrap());
        for sequence in stream.order(places).unwrap() {
            prop_assert_eq!(other.pieces(sequence).unwrap(), stream.pieces(sequence).unwrap());
            prop_assert!(stream.pieces(sequence).unwrap().iter().all(|piece| piece.shard < shard));
        }
        // Held-out blocks in it, or behind it, count for later steps.
        let behind = stream.held_out_sequence(stream.start_of(shard));
        prop_assert!(stream.place_of(behind).is_none_or(|place| place / stream.shape.sequences_per_step >= step));
    }

    #[test]
    fn the_order_may_be_asked_for_in_parts((stream, _) in streams(), cut in 0.0..1.0) {
        let steps = stream.whole_steps();
        let cut = (steps as f64 * cut) as u64;
        let (head, tail) = (stream.places_of_steps(0..cut), stream.places_of_steps(cut..steps));
        let parts = [stream.order(head).unwrap(), stream.order(tail).unwrap()].concat();
        prop_assert_eq!(parts, stream.order(0..steps * stream.shape.sequences_per_step).unwrap());
        prop_assert!(steps * stream.shape.sequences_per_step <= stream.sequences());
        prop_assert!(stream.sequences() < (steps + 1) * stream.shape.sequences_per_step);
    }

    #[test]
    fn the_shards_of_steps_are_those_with_a_token_in_them((stream, _) in streams(), from in 0.0..1.0, to in 0.0..1.0) {
        let step = |share: f64| (share * stream.whole_steps() as f64) as u64;
        let steps = step(from)..step(to) + 1;
        prop_assume!(steps.end <= stream.whole_steps() && steps.start <= steps.end);
        let order = stream.order(stream.places_of_steps(steps.clone())).unwrap();
        let mut expected = BTreeSet::new();
        for sequence in order {
            let start = sequence * stream.shape.sequence_length;
            expected.extend((start..=start + stream.shape.sequence_length).map(|token| stream.holding(token)));
        }
        prop_assert_eq!(stream.shards_of_steps(steps).unwrap(), expected);
    }
}

#[test]
fn a_sequence_over_many_small_shards_has_a_piece_of_each() {
    let stream = stream_of(1, 9, 1, &[3, 0, 4, 0, 0, 2, 1, 5]);
    let pieces = stream.pieces(0).unwrap();
    let expected = [(0, 3), (2, 4), (5, 2), (6, 1)].map(|(shard, count)| Piece { shard, first: 0, count });
    assert_eq!(pieces, expected);
}

#[test]
fn what_is_not_there_yet_is_refused() {
    let stream = stream_of(1, 4, 2, &[9]);
    let expected = Error::NotYet { end: 3, sequences: 2 };
    assert_eq!(stream.order(0..3), Err(expected.clone()));
    assert_eq!(stream.pieces(2), Err(expected));
    assert_eq!(
        stream.shards_of_steps(0..u64::MAX).unwrap_err(),
        Error::NotYet { end: u64::MAX, sequences: 2 }
    );
    assert_eq!(stream.place_of(2), None);
}

#[test]
fn an_empty_stream_has_nothing() {
    let stream = stream_of(1, 4, 2, &[0, 0]);
    assert_eq!((stream.tokens(), stream.sequences(), stream.whole_steps()), (0, 0, 0));
    assert_eq!(stream.order(0..0), Ok(vec![]));
}

#[test]
fn counts_beyond_2_to_53_are_refused() {
    let mut stream = stream_of(1, 4, 2, &[BOUND - 2]);
    stream.push(Digest::of(b"one more"), 1).unwrap();
    let digest = Digest::of(b"too many");
    assert_eq!(stream.push(digest, 1), Err(Error::TooLong { digest }));
    assert_eq!(stream.push(digest, u64::MAX), Err(Error::TooLong { digest }));
    assert_eq!(stream.tokens(), BOUND - 1);
    assert!(Stream::new(1, 0, 1).is_err());
    assert!(Stream::new(1, 1, 0).is_err());
    assert!(Stream::new(1, u32::MAX, u32::MAX).is_err());
}

#[test]
fn a_hundred_thousand_shards_cost_no_search_through_all_of_them() {
    let stream = stream_of(1, 100, 8, &vec![10_000; 100_000]);
    assert_eq!(stream.sequences(), 9_999_999);
    let mut pieces = 0;
    // Were each sequence to pass over all shards before it, this would take minutes.
    for sequence in (0..stream.sequences()).step_by(97) {
        pieces += stream.pieces(sequence).unwrap().len();
    }
    assert!(pieces > 103_092);
    let last = stream.whole_steps() - 1;
    assert_eq!(stream.order(stream.places_of_steps(last..last + 1)).unwrap().len(), 8);
}
