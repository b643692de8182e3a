//! GPUs are told of as their driver tells of them, and a driver that misbehaves holds nobody up.

use std::time::{Duration, Instant};

use harness::daemon::{Daemon, log_of, wait_for};
use harness::pretended_driver::{Gpus, PretendedDriver};
use harness::state::{State, byte_config};
use serde_json::{Value, json};

const NO_HANGING: Duration = Duration::from_secs(10);

fn indices(status: &Value) -> Vec<u64> {
    status["devices"].as_array().unwrap().iter().map(|device| device["index"].as_u64().unwrap()).collect()
}

#[test]
fn gpus_are_told_of_whatever_their_driver_does() {
    let driver = PretendedDriver::new();
    let state = State::new(&byte_config("", ""));
    let by = driver.by();
    let by: Vec<&str> = by.iter().map(String::as_str).collect();
    let mut daemon = Daemon::launch(&state, &by);
    daemon.wait(&state);
    let expected = json!([
        {"index": 0, "uuid": "GPU-00000000-0000-0000-0000-000000000001", "name": "Pretended GPU",
         "memory": 80_000_000_000_u64, "memory_used": 1_500_000_000, "utilisation": 0.87},
        {"index": 1, "uuid": "GPU-00000000-0000-0000-0000-000000000002", "name": "Pretended GPU",
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
