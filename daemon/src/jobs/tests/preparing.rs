//! What a trainer is told.

use std::collections::BTreeMap;

use artifacts::job::{Job, Piece, Start};
use artifacts::stream::{Stream, batch_digest};
use artifacts::tokens::ShardTokens as Tokens;
use paradigm::{Schedule, Settings as Rates};
use proptest::prelude::*;

use super::super::data::Data;
use super::super::prepare::{self, Known};
use super::*;

pub struct Told {
    pub job: Job,
    rates: Vec<f64>,
    pieces: Vec<Piece>,
}

pub fn prepare(world: &World, start: &JobStart, choices: &Choices) -> Result<Told, prepare::PrepareError> {
    let folder = world.folder_of(start);
    let known = world.ledger.read(|tree| Known::of(tree, start))?;
    let mut data = Data::new(world.state().join("tokens"));
    world.ledger.read(|tree| data.gather(tree))?;
    prepare::write(&Disk, world.state(), &folder, start, &known, &mut data, choices)?;
    let job: Job = serde_json::from_slice(&fs::read(folder.join("job.json")).unwrap()).unwrap();
    let rates = fs::read(folder.join(&job.learning_rates)).unwrap();
    let rates = rates.chunks_exact(8).map(|rate| f64::from_le_bytes(rate.try_into().unwrap())).collect();
    let pieces = fs::read(folder.join(&job.sequences)).unwrap();
    let pieces = pieces.chunks_exact(16).map(|piece| Piece::from_bytes(piece.try_into().unwrap())).collect();
    Ok(Told { job, rates, pieces })
}

fn tokens_of(job: &Job, piece: Piece) -> Vec<u32> {
    let bytes = fs::read(&job.token_files[piece.file as usize]).unwrap();
    let tokens: Vec<u32> = bytes.chunks_exact(4).map(|t| u32::from_le_bytes(t.try_into().unwrap())).collect();
    tokens[piece.first as usize..][..piece.count as usize].to_vec()
}

#[test]
fn rates_come_from_the_numbers_of_the_journal() {
    let world = World::with_steps(40);
    world.cut(10);
    world.cut(20);
    let settings = Rates {
        peak: 1e-3,
        min: 1e-4,
        warmup_steps: 2,
        rewarmup_steps: 1,
        decay: Decay::Linear,
        hold: Some(0.0),
    };
    let main = world.main_key(18);
    let last = CheckpointKey { path: version_path(Paradigm::Continual, 1), step: 10 };
    world.known_checkpoint(main);
    world.known_checkpoint(last);
    let base = world.main_job(0, 18);
    let of = |job, paradigm, segment, from, to, start| JobStart {
        job,
        path: version_path(paradigm, 2),
        segment,
        version: Some(2),
        from,
        to,
        start,
        ..base.clone()
    };
    use Paradigm::{Continual, FromScratch, PathSwitching};
    let cases = [
        (base.clone(), Schedule::main_path(&settings), false),
        (
            of(2, PathSwitching, SegmentKind::Branch, 18, 30, Some(main)),
            Schedule::branch(&settings, 18, 12),
            true,
        ),
        (of(3, FromScratch, SegmentKind::Scratch, 0, 30, None), Schedule::scratch(&settings, 30), true),
        (
            of(4, Continual, SegmentKind::Continual, 10, 30, Some(last)),
            Schedule::continual(&settings, 10, 30),
            true,
        ),
    ];
    for (start, schedule, at_end) in cases {
        let Told { job, rates, .. } = prepare(&world, &start, &world.settings.choices).unwrap();
        let expected: Vec<f64> = schedule.unwrap().rates(start.from..start.to).unwrap().collect();
        assert_eq!(rates, expected, "{:?}", start.segment);
        assert_eq!((job.from, job.to, job.evaluation.at_end), (start.from, start.to, at_end));
        match start.start {
            None => assert_eq!(job.start, Start::New { seed: SEED }),
            Some(key) => {
                let digest = world.ledger.read(|tree| tree.checkpoint(&key).unwrap().digest);
                let path = world.state().join("checkpoints").join(key.to_string());
                assert_eq!(job.start, Start::Checkpoint { path, digest, step: key.step });
            }
        }
    }
}

#[test]
fn a_job_without_its_tokens_is_refused() {
    type Harm = fn(&FilePath);
    let harms: [(Harm, &str); 2] = [
        (|folder| fs::remove_dir_all(folder).unwrap(), "cannot be read"),
        (|folder| fs::write(folder.join("stream.u32"), [0; 4]).unwrap(), "has 4 bytes"),
    ];
    for (harm, expected) in harms {
        let world = World::with_steps(6);
        harm(&world.state().join("tokens").join(Digest::of(b"first").to_string()));
        let start = world.start_main(0, 2);
        let end = world.end_of(&start);
        assert!(is_failure(&end.outcome, "prepare", expected), "{:?}", end.outcome);
        assert_eq!(fs::read_dir(world.state().join("jobs")).unwrap().count(), 0, "nothing is left behind");
    }
}

#[test]
fn a_job_beyond_the_data_is_refused() {
    let world = World::with_steps(6);
    let start = world.start_main(0, 7);
    assert!(is_failure(&world.end_of(&start).outcome, "prepare", "12 complete ones"));
}

/// The blocks of each increment, found the slow way: every block of every shard is asked for its place.
fn blocks_by_hand(world: &World, limit: u64) -> BTreeMap<u32, Vec<Vec<u32>>> {
    let (shards, increments) = world.ledger.read(|tree| (tree.shards().clone(), tree.increments().clone()));
    let mut stream = Stream::new(SEED, LENGTH, SEQUENCES).unwrap();
    for shard in &shards {
        stream.push(shard.digest, shard.tokens.unwrap().stream).unwrap();
    }
    let mut found: BTreeMap<u32, (u64, Vec<Vec<u32>>)> = BTreeMap::new();
    for (index, shard) in shards.iter().enumerate() {
        let tokens = Tokens::open(&world.state().join("tokens").join(shard.digest.to_string())).unwrap();
        for block in &tokens.shard.held_out {
            let sequence = (stream.start_of(index) + block.position) / u64::from(LENGTH);
            let Some(place) = stream.place_of(sequence) else { continue };
            let step = place / u64::from(SEQUENCES);
            let Some(increment) = increments.iter().find(|increment| step < increment.end) else { continue };
            let (total, blocks) = found.entry(increment.version).or_default();
            *total += u64::from(block.count);
            if *total <= limit {
                blocks.push(tokens.held_out[block.first as usize..][..block.count as usize].to_vec());
            }
        }
    }
    found
        .into_iter()
        .filter(|(_, (_, blocks))| !blocks.is_empty())
        .map(|(v, (_, blocks))| (v, blocks))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_job_gets_the_streams_batches_and_each_increments_held_out_blocks(
        sizes in proptest::collection::vec(1_u32..200, 1..12),
        share in 0.0..0.6_f64,
        cuts in proptest::collection::vec(1_u64..20, 0..4),
        limit in 0_u64..60,
        range in (0_u64..1000, 0_u64..1000),
    ) {
        let world = World::new();
        for (index, size) in sizes.iter().enumerate() {
            world.shard(&format!("shard {index}"), *size, share);
        }
        let mut stream = Stream::new(SEED, LENGTH, SEQUENCES).unwrap();
        let mut tokens = Vec::new();
        for shard in world.ledger.read(|tree| tree.shards().clone()) {
            stream.push(shard.digest, shard.tokens.unwrap().stream).unwrap();
            let folder = world.state().join("tokens").join(shard.digest.to_string());
            tokens.extend_from_slice(&Tokens::open(&folder).unwrap().stream);
        }
        let whole = stream.whole_steps();
        for steps in cuts {
            if world.ledger.read(Tree::end) + steps <= whole {
                world.cut(steps);
            }
        }
        let (a, b) = (range.0 % (whole + 1), range.1 % (whole + 1));
        let start = JobStart { start: None, ..world.main_job(a.min(b), a.max(b)) };
        let choices = Choices { evaluate_every: Some(3), evaluate_tokens: limit, ..world.settings.choices.clone() };
        let Told { job, rates, pieces } = prepare(&world, &start, &choices).unwrap();
        prop_assert_eq!(rates.len() as u64, start.to - start.from);

        // The batches, cut out of the whole stream by hand.
        let length = LENGTH as usize + 1;
        let told: Vec<u32> = pieces.iter().flat_map(|piece| tokens_of(&job, *piece)).collect();
        let order = stream.order(stream.places_of_steps(start.from..start.to)).unwrap();
        let by_hand: Vec<u32> =
            order.iter().flat_map(|g| tokens[(g * u64::from(LENGTH)) as usize..][..length].to_vec()).collect();
        prop_assert_eq!(batch_digest(&told), batch_digest(&by_hand));
        prop_assert_eq!(told, by_hand);

        let mut blocks = BTreeMap::new();
        for held_out in &job.evaluation.increments {
            let of: Vec<_> = held_out.blocks.iter().map(|block| tokens_of(&job, block.piece)).collect();
            blocks.insert(held_out.increment, of);
        }
        prop_assert_eq!(blocks, blocks_by_hand(&world, limit));
    }
}
