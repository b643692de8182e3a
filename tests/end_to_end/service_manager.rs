//! What the daemon tells the service manager that started it, as systemd would hear it.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use harness::daemon::{Daemon, wait_for, wait_for_releases};
use harness::state::{State, byte_config, tokens};
use serde_json::json;

const TABLES: &str = "[schedule]\nwarmup_steps = 2\npeak = 1e-3\nmin = 1e-4\n[checkpoints]\nevery = 5";
const WATCHDOG: Duration = Duration::from_millis(600);

/// What is heard within a time, each message with its moment, until one is `last`.
fn heard(socket: &UnixDatagram, last: impl Fn(&str) -> bool, limit: Duration) -> Vec<(Instant, String)> {
    socket.set_read_timeout(Some(limit)).unwrap();
    let (mut said, mut bytes) = (Vec::new(), [0; 4096]);
    loop {
        let length = socket.recv(&mut bytes).unwrap_or_else(|error| panic!("{error} after {said:?}"));
        for line in std::str::from_utf8(&bytes[..length]).unwrap().lines() {
            said.push((Instant::now(), line.to_owned()));
            if last(line) {
                return said;
            }
        }
    }
}

#[test]
fn it_says_that_it_is_ready_what_it_does_that_it_lives_and_that_it_stops() {
    let config = byte_config("seed = 9", TABLES).replace("[data]\n", "[data]\ntoken_width = \"uint16\"\n");
    let state = State::new(&config);
    let place = state.path().with_file_name("notify");
    let socket = UnixDatagram::bind(&place).unwrap();
    let environment = [
        "env".to_owned(),
        format!("NOTIFY_SOCKET={}", place.display()),
        format!("WATCHDOG_USEC={}", WATCHDOG.as_micros()),
    ];
    let mut daemon = Daemon::launch(&state, &environment.each_ref().map(String::as_str));
    let limit = Duration::from_secs(20);
    heard(&socket, |line| line == "READY=1", limit);
    daemon.wait(&state);

    let said = heard(&socket, |line| line == "STATUS=waits for shards", limit);
    assert!(said.iter().all(|(_, line)| line != "READY=1"), "it is ready once: {said:?}");
    state.drop_file("1.bin", &tokens(1, 700));
    wait_for(&state, "acceptance", 30, |status| status["shards"]["accepted"] == json!(1));
    state.ask(&["cut"]);
    wait_for_releases(&state, "path-switching", 1, 60);

    // It gives a sign of life more often than it must.
    let begun = Instant::now();
    let signs: Vec<Instant> = std::iter::from_fn(|| {
        (begun.elapsed() < Duration::from_secs(3)).then(|| {
            let said = heard(&socket, |line| line == "WATCHDOG=1", WATCHDOG);
            said.last().unwrap().0
        })
    })
    .collect();
    assert!(signs.windows(2).all(|pair| pair[1] - pair[0] < WATCHDOG), "{signs:?}");

    let pid = rustix::process::Pid::from_raw(daemon.pid() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    heard(&socket, |line| line == "STOPPING=1", limit);
    daemon.stop();
}
