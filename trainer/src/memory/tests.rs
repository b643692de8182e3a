//! Jobs that fit, jobs that do not, and what is said of them.

use std::path::Path;

use super::*;
use crate::fixture::{self, Fixture};

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
    check(job, &config(|_| {}), precision(job.precision), available)
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
    let all = check(&job, &config, Precision::F32, None).unwrap().bytes().div_ceil(1 << 20);
    let check = |available: u64| check(&job, &config, Precision::F32, Some(available)).unwrap_err().message;
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
    let refusal = check(&job(), &model, Precision::F32, None).unwrap_err();
    assert_eq!(refusal.kind, Kind::NoMemory);
    assert!(refusal.message.starts_with("no machine has the memory for this model: "), "{refusal}");
    let mut long = job();
    (long.sequences_per_step, long.micro_batch, long.sequence_length) = (1 << 31, 1 << 31, 1 << 20);
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
