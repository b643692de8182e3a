//! GPUs are told of as their driver tells of them, and a driver that misbehaves holds nobody up.

use std::collections::BTreeSet;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness::daemon::{Daemon, log_of, wait_for, wait_for_releases};
use harness::pretended_driver::{Gpus, PretendedDriver};
use harness::state::{State, byte_config, tokens};
use serde_json::{Value, json};

const NO_HANGING: Duration = Duration::from_secs(10);

/// A trainer's command that notes which GPUs it may see, and trains on the CPU: these are not there.
fn trainer(folder: &Path) -> PathBuf {
    let path = folder.join("trainer.sh");
    let text = format!(
        "#!/bin/sh\nprintf %s \"$CUDA_VISIBLE_DEVICES\" > \"$(dirname \"$2\")/seen\"\n\
         grep -q '\"device\": \"cuda\"' \"$2\" || exit 64\n\
         sed -i 's/\"device\": \"cuda\"/\"device\": \"cpu\"/' \"$2\"\nexec {:?} --job \"$2\"\n",
        harness::program("lrpath-train")
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn state(folder: &Path, more: &str, slots: &str) -> State {
    let command = trainer(folder);
    // The trainer's table is open.
    let tables = format!(
        "command = [{command:?}]\n[schedule]\nwarmup_steps = 2\npeak = 1e-3\nmin = 1e-4\n[checkpoints]\nevery = 100000\n{slots}"
    );
    let config = byte_config(&format!("seed = 9\nmain_path = \"lazy\"\n{more}"), &tables);
    State::new(&config.replace("[data]\n", "[data]\ntoken_width = \"uint16\"\n"))
}

fn started(state: &State, driver: &PretendedDriver) -> Daemon {
    let by = driver.by();
    let mut daemon = Daemon::launch(state, &by.iter().map(String::as_str).collect::<Vec<_>>());
    daemon.wait(state);
    daemon
}

fn drop_and_cut(state: &State, number: u64, count: usize) {
    state.drop_file(&format!("{number}.bin"), &tokens(number, count));
    wait_for(state, "acceptance", 30, |status| status["shards"]["accepted"] == json!(number));
    state.ask(&["cut"]);
}

/// What somebody else on this machine does who has a GPU.
fn hold(uuid: &str) -> std::io::Result<UnixDatagram> {
    UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(format!("lrpath/{uuid}")).unwrap())
}

fn indices(status: &Value) -> Vec<u64> {
    status["devices"].as_array().unwrap().iter().map(|device| device["index"].as_u64().unwrap()).collect()
}

#[test]
fn gpus_are_told_of_whatever_their_driver_does() {
    let driver = PretendedDriver::new();
    let state = State::new(&byte_config("", ""));
    let daemon = started(&state, &driver);
    let expected = json!([
        {"index": 0, "uuid": driver.uuid(0), "name": "Pretended GPU",
         "memory": 80_000_000_000_u64, "memory_used": 1_500_000_000, "utilisation": 0.87},
        {"index": 1, "uuid": driver.uuid(1), "name": "Pretended GPU",
         "memory": 80_000_000_000_u64, "memory_used": 3_000_000_000_u64, "utilisation": null},
    ]);
    assert_eq!(state.ask(&["status"])["devices"], expected);
    let shown = String::from_utf8(state.ctl(&["status"]).stdout).unwrap();
    assert!(shown.contains("gpu 0   Pretended GPU, 1.5 GB of 80 GB in use, 87 % busy\n"), "{shown}");

    driver.are(Gpus::SecondLost);
    wait_for(&state, "the loss", 30, |status| indices(status) == [0]);
    assert_eq!(log_of(&state).matches("a GPU does not answer any more").count(), 1, "{}", log_of(&state));

    driver.are(Gpus::Hanging);
    let before = Instant::now();
    wait_for(&state, "the silence", 30, |status| indices(status).is_empty());
    for _ in 0..20 {
        assert_eq!(indices(&state.ask(&["status"])), [0; 0]);
    }
    assert!(before.elapsed() < NO_HANGING, "a driver that hangs holds everybody up");
    assert_eq!(log_of(&state).matches("driver does not answer").count(), 1, "{}", log_of(&state));

    driver.are(Gpus::Good);
    wait_for(&state, "the answer", 30, |status| indices(status) == [0, 1]);

    driver.are(Gpus::Unloaded);
    wait_for(&state, "the unloading", 30, |status| indices(status).is_empty());
    driver.are(Gpus::Good);
    wait_for(&state, "the driver's return", 30, |status| status["devices"] == expected);
    daemon.stop();
}

#[test]
fn each_gpu_is_a_slot_and_jobs_beside_each_other_have_different_ones() {
    let driver = PretendedDriver::new();
    let folder = tempfile::tempdir().unwrap();
    let state = state(folder.path(), "gpu_slots = true\nparadigm = [\"from-scratch\", \"continual\"]\n", "");
    let daemon = started(&state, &driver);
    drop_and_cut(&state, 1, 60_000);
    let both = wait_for(&state, "two jobs at once", 60, |status| {
        status["slots"].as_array().unwrap().iter().all(|slot| !slot["job"].is_null())
    });
    let slots: Vec<_> =
        both["slots"].as_array().unwrap().iter().map(|slot| (&slot["name"], &slot["devices"][0])).collect();
    assert_eq!(slots, [(&json!("gpu0"), &json!(driver.uuid(0))), (&json!("gpu1"), &json!(driver.uuid(1)))]);
    wait_for(&state, "the locks", 30, |_| hold(&driver.uuid(0)).is_err() && hold(&driver.uuid(1)).is_err());
    wait_for_releases(&state, "from-scratch", 1, 120);
    wait_for_releases(&state, "continual", 1, 120);
    let seen: BTreeSet<String> = fs::read_dir(state.path().join("jobs"))
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path().join("seen")).unwrap())
        .collect();
    assert_eq!(seen, BTreeSet::from([driver.uuid(0), driver.uuid(1)]), "each saw its own and no other");
    wait_for(&state, "their end", 10, |_| hold(&driver.uuid(0)).is_ok() && hold(&driver.uuid(1)).is_ok());
    daemon.stop();
}

#[test]
fn a_gpu_that_somebody_has_or_that_is_gone_gets_no_job_until_it_is_back() {
    let driver = PretendedDriver::new();
    let folder = tempfile::tempdir().unwrap();
    let state = state(folder.path(), "", "[[slots]]\nname = \"second\"\ndevices = [\"cuda:1\"]\n");
    let daemon = started(&state, &driver);
    let held = hold(&driver.uuid(1)).unwrap();
    drop_and_cut(&state, 1, 60_000);
    let waits = wait_for(&state, "the wait", 30, |status| !status["slots"][0]["missing"].is_null());
    let why = waits["slots"][0]["missing"].as_str().unwrap();
    assert!(why.contains("cuda:1") && why.contains("in use by another job on this machine"), "{why}");
    driver.are(Gpus::SecondLost);
    drop(held);
    let waits = wait_for(&state, "the loss", 30, |status| {
        status["slots"][0]["missing"].as_str().is_some_and(|why| why.contains("is not there"))
    });
    let why = waits["slots"][0]["missing"].as_str().unwrap();
    assert!(why.contains(&format!("there is cuda:0 ({})", driver.uuid(0))), "{why}");
    let shown = String::from_utf8(state.ctl(&["status"]).stdout).unwrap();
    assert!(
        shown.contains("slots   second waits\n        second: the device cuda:1 is not there"),
        "{shown}"
    );
    assert_eq!(state.ask(&["jobs"]), json!([]), "nothing was tried in vain");

    // The trainer has the lock, and not the daemon.
    driver.are(Gpus::Good);
    wait_for(&state, "a job", 30, |status| status["jobs"][0]["step"].as_u64().unwrap_or(0) > 5);
    daemon.kill();
    assert!(hold(&driver.uuid(1)).is_err(), "its trainer lives on");
    let daemon = started(&state, &driver);
    wait_for_releases(&state, "path-switching", 1, 120);
    wait_for(&state, "the lock", 10, |_| hold(&driver.uuid(1)).is_ok());
    daemon.stop();
}

#[test]
fn a_machine_without_gpus_is_told_so_where_each_is_to_be_a_slot() {
    let folder = tempfile::tempdir().unwrap();
    let state = state(folder.path(), "gpu_slots = true\n", "");
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let mut daemon = Daemon::launch(&state, &["env", &format!("LD_LIBRARY_PATH={}", empty.display())]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while daemon.lives() {
        assert!(Instant::now() < deadline, "it runs without a place to train");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(
        log_of(&state).contains("makes a slot of each GPU, and no driver tells of one"),
        "{}",
        log_of(&state)
    );
}

#[test]
fn a_slot_with_two_devices_trains_by_two_processes() {
    let slots = "[[slots]]\nname = \"pair\"\ndevices = [\"cpu\", \"cpu\"]\n";
    let tables = format!("[schedule]\nwarmup_steps = 2\npeak = 1e-3\nmin = 1e-4\n{slots}");
    let config = byte_config("seed = 9", &tables).replace("[data]\n", "[data]\ntoken_width = \"uint16\"\n");
    let state = State::new(&config);
    let daemon = Daemon::start(&state);
    drop_and_cut(&state, 1, 3000);
    wait_for_releases(&state, "path-switching", 1, 120);
    for attempt in fs::read_dir(state.path().join("jobs")).unwrap() {
        let attempt = attempt.unwrap().path();
        let read = |name: &str| fs::read_to_string(attempt.join(name)).unwrap();
        let job: Value = serde_json::from_str(&read("job.json")).unwrap();
        assert_eq!((&job["ranks"], &job["micro_batch"]), (&json!(2), &json!(1)));
        let started: Value = serde_json::from_str(read("events.jsonl").lines().next().unwrap()).unwrap();
        assert!(started["kernels"].as_str().unwrap().ends_with("-x2"), "{started}");
    }
    daemon.stop();
}
