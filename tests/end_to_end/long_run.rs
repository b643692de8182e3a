//! A day of a busy project in minutes: ten thousand shards, two hundred versions, a daemon that is stopped and killed now and
//! then. The journal says what this test has done and nothing else, and the daemon is as small at the end as it was.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use harness::daemon::{Daemon, wait_for, wait_for_releases};
use harness::state::{State, byte_config};
use serde_json::{Value, json};

const CUTS: u64 = 200;
const SHARDS_A_CUT: u64 = 50;
/// A restart after so many cuts; every second one is a death.
const RESTART_AFTER: u64 = 10;
/// Memory is compared from here on, in shards: the last figure before the thousandth.
const SETTLED: u64 = 950;
/// Growth of resident memory that is allowed, in bytes: the version tree has some 30,000 nodes more at the end, most of them
/// shards and held-out losses.
const MOST_GROWTH: u64 = 10_000_000;

/// Looks that a figure is the least of, and the time between two.
const LOOKS: u32 = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(150);

#[derive(Clone, Copy)]
struct Figures {
    resident: u64,
    descriptors: usize,
}

/// What the daemon takes when it has nothing to do: the least of some looks, because it scans its folder every second, and
/// now and then looks for what can be removed.
fn figures(daemon: &Daemon) -> Figures {
    let looks = (0..LOOKS).map(|_| {
        std::thread::sleep(BETWEEN_LOOKS);
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        let descriptors = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
        (kilobytes * 1024, descriptors)
    });
    let (resident, descriptors): (Vec<u64>, Vec<usize>) = looks.unzip();
    Figures {
        resident: resident.into_iter().min().unwrap(),
        descriptors: descriptors.into_iter().min().unwrap(),
    }
}

fn at_rest(state: &State) {
    wait_for(state, "rest", 60, |status| {
        status["jobs"] == json!([]) && status["doing"] == "waits for shards"
    });
}

#[test]
fn ten_thousand_shards_and_two_hundred_versions_leave_a_true_journal_and_a_small_daemon() {
    let tables = "[schedule]\nwarmup_steps = 2\npeak = 1e-3\nmin = 1e-4\n[checkpoints]\nevery = 100000";
    let config = byte_config("seed = 9\nmain_path = \"lazy\"", tables);
    let state = State::new(&config);
    let mut daemon = Daemon::start(&state);
    // The model: which shards there are, in which order, and which versions with how many of them.
    let mut shards: Vec<String> = Vec::new();
    let mut versions: Vec<(String, usize)> = Vec::new();
    let mut settled: Option<Figures> = None;
    let mut last = figures(&daemon);
    for cut in 1..=CUTS {
        for number in 1..=SHARDS_A_CUT {
            let name = format!("{cut:03}-{number:02}.txt");
            state.drop_file(
                &name,
                format!("Shard {number} of version {cut} says {}.\n", cut * number).as_bytes(),
            );
        }
        let count = cut * SHARDS_A_CUT;
        wait_for(&state, "acceptance", 60, |status| status["shards"]["accepted"] == json!(count));
        let listed = state.ask(&["shards"]);
        let names = listed["accepted"].as_array().unwrap()[shards.len()..].iter();
        shards.extend(names.map(|one| one["name"].as_str().unwrap().to_owned()));
        let made = state.ask(&["cut", &format!("day-{cut:03}")]);
        assert_eq!(made["outcome"]["kind"], "made", "{made}");
        versions.push((format!("day-{cut:03}"), shards.len()));
        // What is made in the middle of a restart is made all the same.
        if cut % RESTART_AFTER == 0 {
            match cut / RESTART_AFTER % 2 {
                0 => daemon.kill(),
                _ => daemon.stop(),
            }
            daemon = Daemon::start(&state);
        }
        wait_for_releases(&state, "path-switching", cut as usize, 60);
        if cut % RESTART_AFTER == RESTART_AFTER - 1 {
            at_rest(&state);
            last = figures(&daemon);
            println!("{count} shards: {} kB, {} descriptors", last.resident / 1024, last.descriptors);
            if count == SETTLED {
                settled = Some(last);
            }
        }
    }
    at_rest(&state);
    let before = settled.unwrap();
    let growth = last.resident.saturating_sub(before.resident);
    println!("grown by {growth} bytes, from {} to {} descriptors", before.descriptors, last.descriptors);
    assert!(growth < MOST_GROWTH, "{growth} bytes more");
    assert_eq!(last.descriptors, before.descriptors);
    the_journal_is_the_model(&state, &shards, &versions);
    daemon.stop();
    assert!(state.ctl(&["check", "--all"]).status.success());
}

/// What the journal says is what was done: each shard once, in this order; each version once, of these shards.
fn the_journal_is_the_model(state: &State, shards: &[String], versions: &[(String, usize)]) {
    let transitions = state.transitions();
    let of = |kind: &str| -> Vec<&Value> { transitions.iter().filter(|one| one["kind"] == kind).collect() };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let accepted: Vec<String> = of("shard-accepted").iter().map(|one| text(&one["name"])).collect();
    assert_eq!(accepted, shards);
    assert_eq!((of("shard-duplicate").len(), of("shard-rejected").len(), of("cut-refused").len()), (0, 0, 0));
    let cuts: Vec<(String, usize)> = of("increment-cut")
        .iter()
        .map(|one| (text(&one["name"]), one["shards"].as_u64().unwrap() as usize))
        .collect();
    assert_eq!(cuts, versions);
    let mut end = 0;
    for (number, increment) in (1..).zip(of("increment-cut")) {
        end += increment["steps"].as_u64().unwrap();
        assert_eq!((&increment["version"], &increment["end"]), (&json!(number), &json!(end)));
    }
    let mut released: BTreeMap<u64, usize> = BTreeMap::new();
    for one in of("released") {
        *released.entry(one["version"].as_u64().unwrap()).or_default() += 1;
    }
    assert_eq!(released, (1..=versions.len() as u64).map(|version| (version, 1)).collect());
    let starts = of("daemon-started").len() as u64;
    assert_eq!(starts, 1 + CUTS / RESTART_AFTER);
    for end in of("job-ended") {
        assert!(["finished", "stopped"].contains(&end["outcome"]["kind"].as_str().unwrap()), "{end}");
    }
}
