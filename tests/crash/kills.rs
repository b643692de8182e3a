//! A run that is killed twenty times publishes what an undisturbed run publishes.
//!
//! The moments are drawn with a seed that is printed (`LRPATH_SEED` sets it). A kill counts for a kind of moment only
//! if the disk shows afterwards that it interrupted just that: a checkpoint, tokens or a release that are half-written
//! under their temporary names, or a branch whose last word is a step.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use artifacts::event::Event;
use harness::daemon::{Daemon, log_of, released};
use harness::recount::events;
use harness::state::{State, config};
use harness::text::{Chance, sentences};

const T: u64 = 30;
const SHARDS: u64 = 12;
const KILLS: usize = 20;
/// At least so many kills in each kind of moment.
const EACH: usize = 3;

/// What a kill interrupts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    /// A checkpoint is being written.
    Checkpoint,
    /// A branch is being trained.
    Branch,
    /// A shard is being tokenised.
    Tokenising,
    /// A release is being made.
    Publishing,
}

const MOMENTS: [Moment; 4] = [Moment::Checkpoint, Moment::Branch, Moment::Tokenising, Moment::Publishing];

fn settings() -> String {
    config(
        "seed = 11",
        &format!(
            "[schedule]\nwarmup_steps = 4\npeak = 1e-3\nmin = 1e-4\n[cut]\nevery_tokens = {}\n[eager]\nmin_steps = 4\n\
             [checkpoints]\nevery = 5\n[[slots]]\nname = \"one\"\ndevices = [\"cpu\"]\n[[slots]]\nname = \"two\"\n\
             devices = [\"cpu\"]",
            T * 32
        ),
    )
}

fn shard(number: u64) -> Vec<u8> {
    // Long enough that tokenising takes a moment.
    sentences(number, 4000).into_bytes()
}

/// The processes of trainers that a state's jobs name and that still live.
fn trainers(state: &State) -> Vec<(PathBuf, u32)> {
    let mut living = Vec::new();
    for entry in std::fs::read_dir(state.path().join("jobs")).into_iter().flatten().flatten() {
        let Some(Event::Started { pid, .. }) = events(&entry.path()).into_iter().next() else { continue };
        let works_there =
            std::fs::read_link(format!("/proc/{pid}/fd/1")).is_ok_and(|out| out.starts_with(entry.path()));
        if works_there {
            living.push((entry.path(), pid));
        }
    }
    living
}

fn kill(pid: u32) {
    let _ = Command::new("kill").arg("-KILL").arg(pid.to_string()).status();
}

fn temporary_in(folder: &Path) -> bool {
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with(".tmp-"))
}

/// Whether the moment is now.
fn is_now(state: &State, moment: Moment) -> bool {
    match moment {
        Moment::Checkpoint => temporary_in(&state.path().join("checkpoints")),
        Moment::Tokenising => temporary_in(&state.path().join("tokens")),
        Moment::Publishing => temporary_in(&state.path().join("releases")),
        Moment::Branch => branches_at_work(state) > 0,
    }
}

/// Branches whose last word is a step.
fn branches_at_work(state: &State) -> usize {
    trainers(state)
        .iter()
        .filter(|(folder, _)| {
            let job = std::fs::read_to_string(folder.join("job.json")).unwrap_or_default();
            let is_branch = !job.contains(".main.");
            is_branch && matches!(events(folder).last(), Some(Event::Step { .. }))
        })
        .count()
}

/// Kills the daemon and every trainer, as a power cut would, and says whether the moment was hit.
fn strike(state: &State, daemon: Daemon, moment: Moment) -> bool {
    let trainers = trainers(state);
    daemon.kill();
    for (_, pid) in &trainers {
        kill(*pid);
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while trainers.iter().any(|(_, pid)| Path::new(&format!("/proc/{pid}/exe")).exists()) {
        assert!(Instant::now() < deadline, "a killed trainer lives on");
        std::thread::sleep(Duration::from_millis(1));
    }
    match moment {
        Moment::Branch => trainers.iter().any(|(folder, _)| {
            let job = std::fs::read_to_string(folder.join("job.json")).unwrap_or_default();
            !job.contains(".main.") && matches!(events(folder).last(), Some(Event::Step { .. }))
        }),
        Moment::Checkpoint | Moment::Tokenising | Moment::Publishing => is_now(state, moment),
    }
}

/// The order in which a state accepted its shards, by name.
fn order(state: &State) -> Vec<String> {
    let shards = state.ask(&["shards"]);
    let accepted = shards["accepted"].as_array().expect("`shards --json` lists the accepted ones");
    accepted.iter().map(|shard| shard["name"].as_str().unwrap().to_owned()).collect()
}

fn finish(state: &State) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while released(&state.ask(&["status"]), "path-switching") < 4 {
        assert!(Instant::now() < deadline, "the four versions were not made: {}", log_of(state));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn twenty_kills_do_not_touch_a_bit() {
    let seed = std::env::var("LRPATH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
    });
    println!("LRPATH_SEED={seed}");
    let mut chance = Chance(seed);
    let state = State::new(&settings());
    let mut daemon = Daemon::start(&state);
    let mut hits: BTreeMap<Moment, usize> = BTreeMap::new();
    let mut kills = 0;
    let mut dropped = 0;
    let deadline = Instant::now() + Duration::from_secs(300);
    loop {
        let wanted: Vec<Moment> =
            MOMENTS.into_iter().filter(|moment| hits.get(moment).copied().unwrap_or(0) < EACH).collect();
        if wanted.is_empty() && kills >= KILLS {
            break;
        }
        assert!(Instant::now() < deadline, "not every kind of moment came: {hits:?}\n{}", log_of(&state));
        let moment = if wanted.is_empty() {
            MOMENTS[chance.below(4) as usize]
        } else {
            wanted[chance.below(wanted.len() as u64) as usize]
        };
        // New data, so that something goes on.
        if dropped < SHARDS {
            state.drop_file(&format!("shard{dropped:02}.txt"), &shard(dropped));
            dropped += 1;
        } else if released(&state.ask(&["status"]), "path-switching") >= 4 {
            break;
        }
        let patience = Instant::now() + Duration::from_millis(300 + chance.below(1200));
        while !is_now(&state, moment) && Instant::now() < patience {
            std::thread::sleep(Duration::from_micros(100));
        }
        let was_now = is_now(&state, moment);
        if strike(&state, daemon, moment) && was_now {
            *hits.entry(moment).or_default() += 1;
        }
        kills += 1;
        daemon = Daemon::start(&state);
    }
    println!("{kills} kills, of which {hits:?} hit what they were meant to");
    assert!(kills >= KILLS, "only {kills} kills before the run was over");
    for moment in MOMENTS {
        assert!(hits.get(&moment).copied().unwrap_or(0) >= EACH, "{moment:?} was hit too rarely: {hits:?}");
    }
    for late in dropped..SHARDS {
        state.drop_file(&format!("shard{late:02}.txt"), &shard(late));
    }
    finish(&state);
    let order = order(&state);
    daemon.stop();

    let undisturbed = State::new(&settings());
    let daemon = Daemon::start(&undisturbed);
    for name in &order {
        let number = name.trim_start_matches("shard").trim_end_matches(".txt").parse().unwrap();
        undisturbed.drop_file(name, &shard(number));
        harness::daemon::wait_for(&undisturbed, "acceptance", 30, |status| {
            status["shards"]["accepted"].as_u64() >= Some(number.min(SHARDS))
        });
    }
    finish(&undisturbed);
    daemon.stop();
    let (killed, expected) = (state.release_digests(), undisturbed.release_digests());
    for version in ["v1", "v2", "v3", "v4"] {
        assert_eq!(killed[version], expected[version], "{version}, LRPATH_SEED={seed}");
    }
}
