//! The description of the API holds for the API: requests are made out of it, sound ones and others.

use std::path::Path;
use std::process::Command;

use crate::observer;
use crate::watched::{TOKEN, Watched};

/// Requests that are made of each operation.
const EXAMPLES: &str = "30";

#[test]
fn whatever_is_asked_gets_an_answer_that_is_described() {
    let watched = Watched::new("");
    let hooks = Path::new(env!("CARGO_MANIFEST_DIR")).join("observers");
    let folder = tempfile::tempdir().unwrap();
    let url = format!("http://{}/v1/openapi.json", watched.address);
    let asked = Command::new("timeout")
        .arg("240")
        .arg(observer("schemathesis"))
        .args(["run", &url, "--max-examples", EXAMPLES, "--seed", "20", "--request-timeout", "10"])
        // One goes on for ever, and one has the API begin anew; tests of their own look at both.
        .args(["--exclude-path", "/v1/live", "--exclude-path", "/v1/reload"])
        // A whole number with a decimal point is one for JSON schema, and none for serde.
        .args(["--exclude-checks", "positive_data_acceptance"])
        .args(["--header", &format!("Authorization: Bearer {TOKEN}")])
        .env("PYTHONPATH", &hooks)
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&asked.stdout);
    assert!(asked.status.success(), "{said}\n{}", String::from_utf8_lossy(&asked.stderr));
    let generated =
        said.lines().find_map(|line| line.trim().split_once(" generated")?.0.parse::<usize>().ok());
    let count = generated.unwrap_or_else(|| panic!("no count in {said}"));
    assert!(count > 500, "{count} requests: {said}");
    watched.daemon.stop();
    assert!(watched.state.ctl(&["check", "--quick"]).status.success());
}
