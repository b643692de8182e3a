//! A daemon with a port, for who wants to look.

use harness::daemon::{Daemon, wait_for, wait_for_releases};
use harness::pretended_driver::PretendedDriver;
use harness::state::{State, byte_config, tokens};
use serde_json::json;

pub const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A state that holds two versions, a name, a duplicate, a shard that was rejected and a withdrawn one, on a machine with two
/// GPUs.
pub struct Watched {
    pub state: State,
    pub address: String,
    pub daemon: Daemon,
    _gpus: PretendedDriver,
}

impl Watched {
    /// With more in the configuration.
    pub fn new(more: &str) -> Self {
        let address = free_address();
        let tables = format!(
            "[schedule]\nwarmup_steps = 2\npeak = 1e-3\nmin = 1e-4\n[checkpoints]\nevery = 5\n[control]\nlisten = \
             {address:?}\ntoken_file = \"token\"\n{more}"
        );
        let config =
            byte_config("seed = 9", &tables).replace("[data]\n", "[data]\ntoken_width = \"uint16\"\n");
        let state = State::new(&config);
        std::fs::write(state.path().join("token"), TOKEN).unwrap();
        let gpus = PretendedDriver::new();
        let by = gpus.by();
        let mut daemon = Daemon::launch(&state, &by.iter().map(String::as_str).collect::<Vec<_>>());
        daemon.wait(&state);
        for number in 1..=2 {
            state.drop_file(&format!("{number}.bin"), &tokens(number, 1500));
            wait_for(&state, "acceptance", 30, |status| status["shards"]["accepted"] == json!(number));
            state.ask(&["cut"]);
            wait_for_releases(&state, "path-switching", usize::try_from(number).unwrap(), 60);
        }
        state.ask(&["alias", "stable", "v1"]);
        state.drop_file("again.bin", &tokens(1, 1500));
        state.drop_file("no.jsonl", b"{\"text\": 1}\n");
        state.drop_file("3.bin", &tokens(3, 100));
        wait_for(&state, "acceptance", 30, |status| {
            status["shards"]["accepted"] == json!(3) && status["shards"]["rejected"] == json!(1)
        });
        Self { state, address, daemon, _gpus: gpus }
    }
}

/// An address on which nobody listens just now.
pub fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}
