//! Names that a client gives: whatever leads out of where it belongs is refused, and nothing comes of it.

use std::process::Command;

use harness::daemon::{Daemon, wait_for, wait_for_releases};
use harness::state::{State, byte_config, tokens};
use serde_json::{Value, json};

const OUTSIDE: [&str; 12] = [
    "..",
    ".",
    "../v1",
    "../../etc/passwd",
    "/etc/passwd",
    "/",
    "a/../../b",
    "a/b",
    "v1/../../..",
    "a\0b",
    "line\nbreak",
    "",
];

/// Asks on the control socket, and says what came: the status and the body.
fn ask(state: &State, method: &str, path: &str, body: &Value) -> (u16, String) {
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--path-as-is",
        "--max-time",
        "20",
        "--write-out",
        "\n%{http_code}",
        "--request",
        method,
    ]);
    curl.arg("--unix-socket").arg(state.path().join("control.sock"));
    if method == "POST" {
        curl.args(["--data-binary", &body.to_string()]);
    }
    let output = curl.arg(format!("http://lrpathd{path}")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

fn encoded(name: &str) -> String {
    name.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

#[test]
fn no_name_that_a_client_gives_leads_out_of_where_it_belongs() {
    let tables = "[schedule]\nwarmup_steps = 2\npeak = 1e-3\nmin = 1e-4\n[checkpoints]\nevery = 5";
    let config = byte_config("seed = 9", tables).replace("[data]\n", "[data]\ntoken_width = \"uint16\"\n");
    let state = State::new(&config);
    let daemon = Daemon::start(&state);
    state.drop_file("1.bin", &tokens(1, 700));
    wait_for(&state, "acceptance", 30, |status| status["shards"]["accepted"] == json!(1));
    state.ask(&["cut"]);
    wait_for_releases(&state, "path-switching", 1, 60);
    // A link of somebody else's with the name of an alias is none of ours.
    std::os::unix::fs::symlink("/etc", state.path().join("releases/theirs")).unwrap();
    wait_for(&state, "rest", 30, |status| status["jobs"] == json!([]));
    let before = state.transitions().len();

    let refused = |method: &str, path: &str, body: Value| {
        let (status, text) = ask(&state, method, path, &body);
        assert!((400..500).contains(&status), "{method} {path} {body}: {status} {text}");
        assert!(!text.contains("root:"), "{path}: {text}");
        let refusal: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{path}: {text}"));
        assert!(refusal["error"].is_string(), "{text}");
    };
    for name in OUTSIDE {
        refused("POST", "/v1/cut", json!({ "name": name }));
        refused("POST", "/v1/alias", json!({ "name": name, "version": 1 }));
        refused("POST", "/v1/withdraw", json!({ "shard": name }));
        refused("POST", "/v1/retry", json!({ "paradigm": name }));
        refused("GET", &format!("/v1/explain?what={}", encoded(name)), Value::Null);
        for path in ["/v1/jobs/{}/log", "/v1/jobs/{}/curve", "/v1/cuts/{}", "/v1/evaluations/{}/1"] {
            refused("GET", &path.replace("{}", &encoded(name)), Value::Null);
        }
        if !name.contains('\0') && !name.contains('\n') && !name.is_empty() {
            refused("GET", &format!("/v1/jobs/{name}/log"), Value::Null);
            refused("GET", &format!("/{name}"), Value::Null);
        }
    }
    refused("POST", "/v1/alias", json!({ "name": "theirs", "version": 1 }));
    refused("POST", "/v1/alias", json!({ "name": "latest", "version": 1 }));
    refused("POST", "/v1/alias", json!({ "name": "v1", "version": 1 }));
    assert_eq!(state.transitions().len(), before, "nothing came of it");
    assert_eq!(
        std::fs::read_link(state.path().join("releases/theirs")).unwrap(),
        std::path::Path::new("/etc")
    );
    // In the watched folder a link that leads out is no shard either.
    std::os::unix::fs::symlink("/etc/passwd", state.path().join("data/passwd.txt")).unwrap();
    std::os::unix::fs::symlink("/etc", state.path().join("data/etc")).unwrap();
    state.drop_file("2.bin", &tokens(2, 700));
    wait_for(&state, "acceptance", 30, |status| status["shards"]["accepted"] == json!(2));
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let shards = state.ask(&["shards"]);
    let accepted = shards["accepted"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap());
    assert_eq!(accepted.collect::<Vec<_>>(), ["1.bin", "2.bin"]);
    daemon.stop();
}
