//! The daemon with a slot of GPUs that are this machine's CPU: from shards to released versions.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use harness::daemon::{Daemon, wait_for, wait_for_releases};
use harness::emulated_driver::EmulatedDriver;
use harness::pretended_driver::PretendedDriver;
use harness::state::{State, byte_config, tokens};
use serde_json::{Value, json};

use crate::{events_of, with_cuda};

/// Releases so many versions on a slot, and gives the kernels of each checkpoint.
fn released(devices: &[&str], versions: u64) -> Vec<String> {
    // One library tells the daemon of the GPUs, the other runs what its trainers ask of them.
    let (told, emulated) = (PretendedDriver::new(), EmulatedDriver::new());
    let [(libraries, emulated_at), (words, _)] = emulated.environment("");
    let told_by = told.by();
    let [env, told_at, gpus] = &told_by[..] else { panic!("{told_by:?}") };
    let told_at = format!("{told_at}:{emulated_at}");
    assert!(told_at.starts_with(libraries));
    // A trainer gets little of the daemon's environment.
    let command = json!(["env", format!("{words}=gpus=2"), with_cuda()]);
    let tables = format!(
        "command = {command}\nmicro_batch = 1\n[schedule]\nwarmup_steps = 2\npeak = 1e-3\nmin = 1e-4\n\
         [checkpoints]\nevery = 5\n[[slots]]\nname = \"gpu\"\ndevices = {devices:?}\n"
    );
    let config = byte_config("seed = 9\n", &tables).replace("[model]\n", "[model]\nprecision = \"bf16\"\n");
    let state = State::new(&config.replace("[data]\n", "[data]\ntoken_width = \"uint16\"\n"));
    let mut daemon = Daemon::launch(&state, &[env, &told_at, gpus]);
    daemon.wait(&state);
    for number in 1..=versions {
        state.drop_file(&format!("{number}.bin"), &tokens(number, 600));
        wait_for(&state, "acceptance", 30, |status| status["shards"]["accepted"] == json!(number));
        state.ask(&["cut"]);
    }
    wait_for_releases(&state, "path-switching", versions as usize, 240);
    let kernels = fs::read_dir(state.path().join("checkpoints"))
        .unwrap()
        .map(|entry| {
            let text = fs::read(entry.unwrap().path().join("state.json")).unwrap();
            serde_json::from_slice::<Value>(&text).unwrap()["kernels"].as_str().unwrap().to_owned()
        })
        .collect();
    daemon.stop();
    assert!(state.ctl(&["check"]).status.success());
    evaluate(&state, &emulated.environment(""));
    kernels
}

/// The first release is measured on the GPU on what was held out of each increment, as the job with the most of them has it.
fn evaluate(state: &State, environment: &[(&str, String)]) {
    let increments = |path: &PathBuf| {
        let job: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        job["evaluation"]["increments"].as_array().unwrap().len()
    };
    let jobs = fs::read_dir(state.path().join("jobs")).unwrap();
    let jobs = jobs.map(|entry| entry.unwrap().path().join("job.json"));
    let job = jobs.max_by_key(increments).unwrap();
    let mut command = Command::new(with_cuda());
    command.arg("evaluate").arg("--model").arg(state.path().join("releases/v1")).arg("--job").arg(&job);
    let output = command.envs(environment.iter().cloned()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let events = events_of(&output.stdout);
    assert!(!events.is_empty() && events.len() == increments(&job), "{events:?}");
    assert!(events.iter().all(|event| event["loss"].as_f64().unwrap() > 0.0), "{events:?}");
}

#[test]
fn four_versions_are_released_from_a_gpu() {
    let kernels = released(&["cuda:0"], 4);
    assert!(!kernels.is_empty());
    assert!(kernels.iter().all(|name| name == "gpu-bf16-cuda-sm90-lt130100"), "{kernels:?}");
}

#[test]
fn a_slot_of_two_gpus_trains_each_job_on_both() {
    let kernels = released(&["cuda:0", "cuda:1"], 2);
    assert!(!kernels.is_empty());
    let both = "gpu-bf16-cuda-sm90-lt130100-nccl22809-x2";
    assert!(kernels.iter().all(|name| name == both), "{kernels:?}");
}
