//! The forecast against figures worked out by hand, and what must hold for every model.

use proptest::prelude::*;

use super::*;
use crate::model::Form;

fn tiny() -> Model {
    Model::new(Sizes {
        vocabulary: 4096,
        width: 128,
        feed_forward: 344,
        layers: 4,
        heads: 4,
        groups: 2,
        head: 32,
        tied: false,
        form: Form::LLAMA,
    })
    .unwrap()
}

const TINY: Workload = Workload {
    precision: Precision::F32,
    recompute: Recompute::Selective,
    sequence_length: 256,
    sequences_per_step: 24,
    micro_batch: 8,
    threads: 2,
};

fn bytes(workload: &Workload) -> u64 {
    Forecast::new(&tiny(), workload).unwrap().bytes()
}

#[test]
fn every_part_of_a_small_step_is_what_its_words_say() {
    let (model, n) = (tiny(), 8 * 256);
    let matrices = 2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 344;
    let parameters = 4 * (matrices + 2 * 128) + 128 + 2 * 4096 * 128;
    for (precision, e, rounded, packed_logits) in [(Precision::F32, 4, 0, 0), (Precision::Bf16, 2, 128, 4096)]
    {
        let workload = Workload { precision, ..TINY };
        let expected = [
            (Part::Weights, 4 * parameters),
            (Part::Gradients, 4 * parameters),
            (Part::Moments, 8 * parameters),
            (Part::Snapshot, 20 * parameters),
            (Part::PackedHead, 2 * e * 4096 * 128),
            (Part::Units, 4 * (2 * n * 128 * 4 + 2 * n * 4)),
            (Part::Projections, 4 * n * (4 + 2 * 2) * 32 * e),
            (Part::Attended, 4 * n * 4 * 32 * e),
            (Part::LogSumExp, 4 * 8 * 4 * 256 * 4),
            (Part::GateUp, 4 * n * 2 * 344 * e),
            (Part::Normed, 0),
            (Part::Activated, 0),
            (Part::Entries, 0),
            (Part::FinalUnit, n * 128 * 4 + n * 4),
            (Part::Stream, n * 128 * 4),
            (Part::StreamGradient, n * 128 * 4),
            (Part::Temporaries, n * ((128 + 344 + 256 + 128 + rounded) * e + 128 * 4)),
            (Part::PackedOperand, n * 344 * e),
            // In f32 all are read in place but those of queries and keys, which lie 256 f32 apart.
            (Part::PackedGradient, if e == 4 { n * 128 * 4 } else { n * 344 * 2 }),
            (Part::NormSums, 32 * 128 * 4),
            (Part::Logits, 256 * (2048 * 4 + (4096 + 16 + packed_logits + 128) * e + 2 * 4 + 24)),
            (Part::AttentionUnits, 2 * 256 * ((3 + 2 * 2) * 32 * e + 2 * 4 + (2 + 2) * 32 * 4)),
            (Part::AttentionStrips, 2 * (64 * 256 * (4 + e) + 64 * 32 * 4 + 64 * 64 * (8 + 2 * e))),
            // The width is within one block: a panel of 32 columns.
            (Part::ProductStrips, if e == 4 { 0 } else { 2 * 96 * 32 * 4 }),
            (Part::Rotary, 256 * 32 * 4),
            (Part::Batches, 4 * 24 * 257 * 4 + 3 * n * 4),
        ];
        let forecast = Forecast::new(&model, &workload).unwrap();
        assert_eq!(forecast.parts(), expected);
        assert_eq!(forecast.bytes(), expected.iter().map(|(_, bytes)| bytes).sum::<u64>());
        assert_eq!(forecast.bytes() - forecast.bytes_of_step(), 20 * parameters);
    }
}

#[test]
fn what_is_recomputed_is_not_kept() {
    let n = 8 * 256;
    let kept = |recompute| {
        let forecast = Forecast::new(&tiny(), &Workload { recompute, ..TINY }).unwrap();
        let of = |wanted| forecast.parts().iter().find(|(part, _)| *part == wanted).unwrap().1;
        [Part::Units, Part::Projections, Part::GateUp, Part::Normed, Part::Activated, Part::Entries].map(of)
    };
    let [units, projections, gate_up, ..] = kept(Recompute::Selective);
    assert_eq!(kept(Recompute::None), [units, projections, gate_up, 4 * 2 * n * 128 * 4, 4 * n * 344 * 4, 0]);
    assert_eq!(kept(Recompute::Full), [units / 4, projections / 4, gate_up / 4, 0, 0, 4 * n * 128 * 4]);
}

#[test]
fn a_transposed_operand_takes_memory_where_it_cannot_be_read_in_place() {
    let logits = |vocabulary, width| {
        let model = Model::new(Sizes { vocabulary, width, ..*tiny().sizes() }).unwrap();
        let rest = 4 * 2048 + 4 * (vocabulary + 16) + 4 * width + 4 * 2 + 24;
        Part::Logits.bytes(&model, &TINY).unwrap() / 256 - rest
    };
    assert_eq!(logits(4000, 352), 0);
    // The product has too many columns; its rows are 16 KiB apart.
    assert_eq!(logits(4000, 353), 4 * 4000);
    assert_eq!(logits(4080, 352), 4 * 4080);
    // Of the 768 columns of a gate's gradient 2^19 units of 32 bits hold 2 blocks of 256 tokens.
    let wide = Model::new(Sizes { width: 768, feed_forward: 768, ..*tiny().sizes() }).unwrap();
    assert_eq!(Part::PackedGradient.bytes(&wide, &TINY).unwrap(), 2 * 256 * 768 * 4);
}

#[test]
fn sums_that_are_stored_in_bf16_have_a_strip_for_each_thread() {
    let of = |width, precision, threads| {
        let model = Model::new(Sizes { width, ..*tiny().sizes() }).unwrap();
        Part::ProductStrips.bytes(&model, &Workload { precision, threads, ..TINY }).unwrap()
    };
    assert_eq!(of(256, Precision::Bf16, 3), 3 * 96 * 32 * 4);
    assert_eq!(of(257, Precision::Bf16, 3), 3 * 96 * 512 * 4);
    assert_eq!(of(257, Precision::F32, 3), 0);
}

#[test]
fn a_large_vocabulary_has_fewer_rows_of_logits() {
    let rows = |vocabulary: u64| {
        let model = Model::new(Sizes { vocabulary, ..*tiny().sizes() }).unwrap();
        let kept = 4 * (vocabulary + 16) + 4 * 128;
        let each = 4 * vocabulary.min(2048) + kept + 4 * vocabulary.div_ceil(2048) + 24;
        let bytes = Part::Logits.bytes(&model, &TINY).unwrap();
        assert_eq!(bytes % each, 0);
        bytes / each
    };
    assert_eq!([31, 32_768, 32_769, 128_256, 1 << 24].map(rows), [256, 256, 128, 64, 1]);
}

#[test]
fn the_largest_micro_batch_is_the_last_divisor_that_fits() {
    let of = |micro_batch| bytes(&Workload { micro_batch, ..TINY });
    let largest = |bytes| largest_micro_batch(&tiny(), &TINY, bytes);
    assert_eq!(largest(of(24)), Some(24));
    assert_eq!(largest(of(24) - 1), Some(12));
    assert_eq!(largest(of(5)), Some(4));
    assert_eq!(largest(of(1)), Some(1));
    assert_eq!(largest(of(1) - 1), None);
    assert_eq!(largest_micro_batch(&tiny(), &Workload { sequences_per_step: 0, ..TINY }, u64::MAX), None);
}

#[test]
fn divisors_are_those_that_divide() {
    for number in [1, 2, 12, 36, 97, 1024] {
        let expected: Vec<u32> = (1..=number).filter(|divisor| number % divisor == 0).collect();
        assert_eq!(divisors(number), expected);
    }
    assert_eq!(divisors(u32::MAX).last(), Some(&u32::MAX));
}

#[test]
fn bytes_that_are_not_exact_any_more_are_refused_with_words_and_never_fit() {
    let workload = Workload { sequence_length: u32::MAX, micro_batch: u32::MAX, ..TINY };
    let refusal = Forecast::new(&tiny(), &workload).unwrap_err().to_string();
    assert!(refusal.starts_with("bytes of a training step: "), "{refusal}");
    let workload = Workload { sequence_length: 1 << 20, sequences_per_step: 1 << 28, ..TINY };
    let micro_batch = largest_micro_batch(&tiny(), &workload, u64::MAX).unwrap();
    assert!(micro_batch < 1 << 28);
    assert!(Forecast::new(&tiny(), &Workload { micro_batch: 2 * micro_batch, ..workload }).is_err());
}

#[test]
fn a_forecast_is_a_list_of_named_bytes() {
    let json = serde_json::to_value(Forecast::new(&tiny(), &TINY).unwrap()).unwrap();
    assert_eq!(json["parts"][0][0], "weights");
    assert_eq!(json["parts"].as_array().unwrap().len(), Part::ALL.len());
    assert_eq!(json["bytes"], bytes(&TINY));
}

prop_compose! {
    fn model()(
        (vocabulary, width, feed_forward) in (1..50_000_u64, 1..500_u64, 1..2_000_u64),
        (layers, groups, sharing, head) in (1..9_u64, 1..9_u64, 1..9_u64, 1..200_u64),
        tied: bool,
    ) -> Model {
        let heads = groups * sharing;
        Model::new(Sizes { vocabulary, width, feed_forward, layers, heads, groups, head, tied, form: Form::LLAMA }).unwrap()
    }
}

prop_compose! {
    fn workload()(
        precision in prop::sample::select(&Precision::ALL[..]),
        recompute in prop::sample::select(&Recompute::ALL[..]),
        (sequence_length, sequences_per_step) in (1..5_000_u32, 1..500_u32),
        (micro_batch, threads) in (1..100_u32, 1..65_u32),
    ) -> Workload {
        Workload { precision, recompute, sequence_length, sequences_per_step, micro_batch, threads }
    }
}

proptest! {
    #[test]
    fn more_work_never_takes_less(model in model(), workload in workload()) {
        let bytes = |workload: Workload| Forecast::new(&model, &workload).unwrap().bytes();
        let all = bytes(workload);
        let Workload { sequence_length, sequences_per_step, micro_batch, threads, .. } = workload;
        for more in [
            Workload { sequences_per_step: sequences_per_step + 1, ..workload },
            Workload { micro_batch: micro_batch + 1, ..workload },
            Workload { sequence_length: sequence_length + 1, ..workload },
            Workload { threads: threads + 1, ..workload },
        ] {
            prop_assert!(bytes(more) > all, "{:?}", more);
        }
        let [none, selective] = [Recompute::None, Recompute::Selective]
            .map(|recompute| bytes(Workload { recompute, ..workload }));
        prop_assert!(none > selective);
    }

    #[test]
    fn a_step_takes_more_than_sixteen_bytes_a_parameter(model in model(), workload in workload()) {
        let forecast = Forecast::new(&model, &workload).unwrap();
        prop_assert!(forecast.bytes_of_step() > 16 * model.parameters());
    }

    #[test]
    fn the_largest_micro_batch_fits_and_the_next_divisor_does_not(
        model in model(), workload in workload(), share in 0.0..1.5_f64,
    ) {
        let sequences = workload.sequences_per_step;
        let of = |micro_batch| {
            Forecast::new(&model, &Workload { micro_batch, ..workload }).unwrap().bytes()
        };
        let bytes = (of(sequences) as f64 * share) as u64;
        let largest = largest_micro_batch(&model, &workload, bytes);
        let fitting = (1..=sequences).filter(|m| sequences % m == 0 && of(*m) <= bytes).max();
        prop_assert_eq!(largest, fitting);
    }

    #[test]
    fn tokens_grow_memory_in_proportion_apart_from_whole_blocks(model in model(), workload in workload()) {
        let by_tokens = |workload: Workload| {
            let forecast = Forecast::new(&model, &workload).unwrap();
            let kept = |part: &Part| (Part::Units as u32..=Part::Temporaries as u32).contains(&(*part as u32));
            forecast.parts().iter().filter(|(part, _)| kept(part)).map(|(_, bytes)| bytes).sum::<u64>()
        };
        let once = by_tokens(workload);
        let (sequence_length, micro_batch) = (workload.sequence_length, workload.micro_batch);
        prop_assert_eq!(by_tokens(Workload { sequence_length: 3 * sequence_length, ..workload }), 3 * once);
        prop_assert_eq!(by_tokens(Workload { micro_batch: 3 * micro_batch, ..workload }), 3 * once);
    }
}
