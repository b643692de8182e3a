//! The process is killed at any moment, again and again.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;

/// Commits samples for ever, and says after each what is acknowledged.
#[test]
#[ignore = "it is the child of another test"]
fn committing_child() {
    let Some(state) = std::env::var_os("LRPATH_COMMITTING_CHILD") else { return };
    let ledger = open_with(Path::new(&state), &Options { probe: Probe::None, ..options() }).unwrap();
    let found = ledger.read(Tree::position);
    assert_eq!(
        ledger.records(0, usize::MAX).unwrap(),
        records(1..=found),
        "a record was lost, changed or repeated"
    );
    assert!(ledger.read(|tree| *tree == tree_of(found)), "the tree is not that of its records");
    let mut out = std::io::stdout().lock();
    loop {
        let position = ledger.read(Tree::position);
        writeln!(out, "\nacknowledged {position}").unwrap();
        out.flush().unwrap();
        grow(&ledger, 1 + position % 3);
    }
}

/// Says what the child said last, after it was killed some time into its work.
fn kill_a_child(state: &Path, after: Duration) -> Option<(u64, u64)> {
    let (program, arguments) = child("kill::committing_child");
    let mut child = Command::new(program)
        .args(arguments)
        .env("LRPATH_COMMITTING_CHILD", state)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let acknowledged = |line: String| line.strip_prefix("acknowledged ").map(|rest| rest.parse().unwrap());
    let first: Option<u64> = lines.by_ref().find_map(acknowledged);
    let Some(first) = first else {
        let output = child.wait_with_output().unwrap();
        panic!("the child did not open the state: {}", String::from_utf8_lossy(&output.stderr));
    };
    std::thread::sleep(after);
    child.kill().unwrap();
    let last = lines.filter_map(acknowledged).last().unwrap_or(first);
    child.wait().unwrap();
    Some((first, last))
}

#[test]
fn killed_at_any_moment_it_loses_nothing() {
    let state = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for cycle in 0u64..60 {
        // From before the first commit to some hundred commits later.
        let after = Duration::from_micros(cycle * cycle * 40);
        let (first, last) = kill_a_child(state.path(), after).unwrap();
        assert!(first >= acknowledged, "{acknowledged} were acknowledged, {first} were found");
        assert!(first <= acknowledged + 3, "{acknowledged} were acknowledged, {first} were found");
        acknowledged = last;
    }
    assert!(acknowledged > 100, "only {acknowledged} records in all cycles");
    let count = open(state.path()).read(Tree::position);
    assert!(count >= acknowledged);
    assert_recovers(state.path(), count);
    assert_eq!(set_aside_in(state.path()), 0, "a kill is no damage");
}
