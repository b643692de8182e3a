//! Jobs that fit, jobs that do not, and what is said of them.

use std::path::Path;
use std::sync::Arc;

use artifacts::job;
use candle_core::{DType, Device};
use half::bf16;
use paradigm::memory::Part;

use super::*;
use crate::data::{AHEAD, Batch, Data, TokenFiles};
use crate::fixture::{self, Fixture};
use crate::kernels::cpu::element::Element;
use crate::kernels::cpu::isa::Isa;
use crate::model::Weights;
use crate::step::{Plan, Scheduled, Step};
use crate::task::Task;

fn config(change: impl FnOnce(&mut serde_json::Value)) -> Config {
    let mut config = serde_json::from_str(&fixture::config(false)).unwrap();
    change(&mut config);
    Config::parse(Path::new("config.json"), &config.to_string()).unwrap()
}

fn job() -> Job {
    let mut job = Fixture::new().job;
    (job.sequences_per_step, job.micro_batch) = (12, 12);
    job
}

fn of(job: &Job, available: Option<u64>) -> Result<Forecast, Failure> {
    check(job, &config(|_| {}), available)
}

#[test]
fn parameters_are_counted_as_the_tensors_are() {
    for tied in [false, true] {
        let config = config(|config| config["tie_word_embeddings"] = tied.into());
        let elements: usize = config.tensors().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        assert_eq!(Model::new(config.sizes()).unwrap().parameters(), elements as u64);
    }
}

#[test]
fn a_job_fits_to_the_byte() {
    let forecast = of(&job(), None).unwrap();
    assert_eq!(of(&job(), Some(forecast.bytes())), Ok(forecast.clone()));
    let refusal = of(&job(), Some(forecast.bytes() - 1)).unwrap_err();
    assert_eq!(refusal.kind, Kind::NoMemory);
    assert!(refusal.message.ends_with("the largest micro_batch that fits is 6"), "{refusal}");
}

#[test]
fn a_refusal_says_what_is_needed_what_there_is_and_what_fits() {
    let config = config(|config| {
        config["vocab_size"] = 32_000.into();
        config["hidden_size"] = 768.into();
        config["intermediate_size"] = 2048.into();
        config["num_hidden_layers"] = 12.into();
    });
    let mut job = job();
    (job.sequence_length, job.threads) = (64, Some(2));
    let all = check(&job, &config, None).unwrap().bytes().div_ceil(1 << 20);
    let check = |available: u64| check(&job, &config, Some(available)).unwrap_err().message;
    let started = |message: &str, there_is: &str| {
        let wanted = format!(
            "training with micro_batch 12 takes {all} MiB of memory, but {there_is} MiB are available; "
        );
        assert!(message.starts_with(&wanted), "{message}, not {wanted}");
    };
    let some = check((all - 100) << 20);
    started(&some, &(all - 100).to_string());
    assert!(some.contains("the largest micro_batch that fits is "), "{some}");
    let none = check(300 << 20);
    started(&none, "300");
    assert!(none.contains("no micro_batch fits, even 1 needs ") && none.contains("smaller model"), "{none}");
}

#[test]
fn what_no_machine_has_is_refused_where_nothing_is_known_of_this_one() {
    let model = config(|config| {
        for key in ["hidden_size", "intermediate_size", "num_hidden_layers"] {
            config[key] = (1 << 24).into();
        }
    });
    let refusal = check(&job(), &model, None).unwrap_err();
    assert_eq!(refusal.kind, Kind::NoMemory);
    assert!(refusal.message.starts_with("no machine has the memory for this model: "), "{refusal}");
    let mut long = job();
    (long.sequences_per_step, long.micro_batch, long.sequence_length) = (1 << 28, 1 << 28, 1 << 20);
    let refusal = of(&long, None).unwrap_err();
    assert_eq!(refusal.kind, Kind::NoMemory);
    assert!(
        refusal.message.contains("takes 2^33 MiB or more of memory, but no machine has that"),
        "{refusal}"
    );
    assert!(refusal.message.contains("the largest micro_batch that fits is "), "{refusal}");
}

#[test]
fn more_threads_need_more() {
    let bytes = |threads| {
        let job = Job { threads: Some(threads), ..job() };
        of(&job, None).unwrap().bytes()
    };
    assert!(bytes(2) > bytes(1));
}

/// What a step took, and what was forecast of it.
fn taken_and_forecast<E: Element>(config: &Config, workload: Workload) -> (f64, f64) {
    let Workload { recompute, sequence_length, micro_batch, threads, .. } = workload;
    let recompute = match recompute {
        Recompute::None => job::Recompute::None,
        Recompute::Selective => job::Recompute::Selective,
        Recompute::Full => job::Recompute::Full,
    };
    let weights = Weights::new(config, 1, DType::F32, &Device::Cpu).unwrap();
    let (length, micro_batch) = (sequence_length as usize, micro_batch as usize);
    let plan = Plan { length, micro_batch, recompute };
    let mut step = Scheduled::<E>::new(Isa::best(), config, plan).unwrap();
    let tokens = (0..micro_batch * (length + 1)).map(|i| (i * 7 % config.vocabulary) as u32).collect();
    let batch = Batch::of(tokens, length, None);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads as usize).build().unwrap();
    pool.install(|| step.differentiate(&weights, &batch)).unwrap();
    let forecast = Forecast::new(&Model::new(config.sizes()).unwrap(), &workload).unwrap();
    let kept_elsewhere = [Part::Weights, Part::Gradients, Part::Moments, Part::Snapshot, Part::Batches];
    let parts = forecast.parts().iter().filter(|(part, _)| !kept_elsewhere.contains(part));
    (step.bytes() as f64, parts.map(|(_, bytes)| *bytes as f64).sum())
}

#[test]
fn a_step_takes_what_was_forecast() {
    let config = config(|config| {
        config["vocab_size"] = 3000.into();
        config["hidden_size"] = 96.into();
        config["intermediate_size"] = 256.into();
        config["num_attention_heads"] = 6.into();
        config["num_key_value_heads"] = 3.into();
        config["num_hidden_layers"] = 3.into();
    });
    for recompute in Recompute::ALL {
        for (sequence_length, micro_batch) in [(256, 4), (64, 1), (700, 3)] {
            let workload = |precision| Workload {
                precision,
                recompute,
                sequence_length,
                sequences_per_step: micro_batch,
                micro_batch,
                threads: 1,
            };
            let pairs = [
                taken_and_forecast::<f32>(&config, workload(Precision::F32)),
                taken_and_forecast::<bf16>(&config, workload(Precision::Bf16)),
            ];
            for (taken, forecast) in pairs {
                let ratio = taken / forecast;
                println!(
                    "{recompute:?} {sequence_length} x {micro_batch}: {taken} of {forecast}, {ratio:.3}"
                );
                assert!(
                    (0.99..1.01).contains(&ratio),
                    "{recompute:?} {sequence_length} x {micro_batch}: {ratio}"
                );
            }
        }
    }
}

/// What reads ahead takes as many batches as are forecast, and no more memory for each.
#[test]
fn batches_take_what_was_forecast() {
    for end_of_text in [None, Some(1)] {
        let mut fixture = Fixture::new();
        (fixture.job.micro_batch, fixture.job.mask_documents_at) = (2, end_of_text);
        let task = Task::read(&fixture.write()).unwrap();
        let tokens = TokenFiles::open(&task.job, &task.folder, fixture::VOCABULARY as usize).unwrap();
        let data = Data::open(&task.job, &task.folder, Arc::new(tokens)).unwrap();
        let mut ahead = data.ahead(0, 3).unwrap();
        let batch = ahead.take().unwrap();
        let examples = batch.examples(0, 2);
        let words = examples.inputs.capacity()
            + examples.targets.capacity()
            + examples.documents.as_ref().map_or(examples.inputs.len(), Vec::capacity);
        let taken = 4 * ((AHEAD + 2) * batch.tokens.capacity() + words);
        let forecast = of(&task.job, None).unwrap();
        let part = forecast.parts().iter().find(|(part, _)| *part == Part::Batches).unwrap();
        assert_eq!(part.1, taken as u64);
    }
}

/// Which transposed operands are packed is decided by the kernels and foretold by the forecast: on both sides of the number
/// of columns, and of rows a multiple of a kibibyte apart.
#[test]
fn packed_operands_are_forecast() {
    let workload = Workload {
        precision: Precision::F32,
        recompute: Recompute::Selective,
        sequence_length: 256,
        sequences_per_step: 4,
        micro_batch: 4,
        threads: 1,
    };
    for (width, feed_forward) in [(352, 344), (384, 344), (352, 512), (384, 512)] {
        let config = config(|config| {
            config["vocab_size"] = 3000.into();
            config["hidden_size"] = width.into();
            config["intermediate_size"] = feed_forward.into();
            config["num_attention_heads"] = 4.into();
            config["num_key_value_heads"] = 2.into();
            config["num_hidden_layers"] = 1.into();
        });
        for (taken, forecast) in [
            taken_and_forecast::<f32>(&config, workload),
            taken_and_forecast::<bf16>(&config, Workload { precision: Precision::Bf16, ..workload }),
        ] {
            let ratio = taken / forecast;
            assert!((0.99..1.01).contains(&ratio), "{width}, {feed_forward}: {taken} of {forecast}, {ratio}");
        }
    }
}

#[test]
fn what_a_gpu_has_no_memory_for_is_refused_with_what_fits() {
    let mut fixture = Fixture::new();
    (fixture.job.micro_batch, fixture.job.sequences_per_step) = (4, 4);
    let task = Task::read(&fixture.write()).unwrap();
    let config = task.config().unwrap();
    let all = check_on_gpu(&task.job, &config, None).unwrap();
    assert_eq!(check_on_gpu(&task.job, &config, Some(all)), Ok(all));
    let refusal = check_on_gpu(&task.job, &config, Some(all - 1)).unwrap_err();
    assert_eq!(refusal.kind, Kind::NoMemory);
    assert!(
        refusal.message.contains("of the GPU's memory") && refusal.message.contains("that fits is 2"),
        "{refusal}"
    );
    let none = check_on_gpu(&task.job, &config, Some(1 << 16)).unwrap_err();
    assert!(none.message.contains("no micro_batch fits: take a GPU with more memory"), "{none}");
}
