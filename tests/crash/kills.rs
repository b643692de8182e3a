//! A run that is killed twenty times publishes what an undisturbed run publishes.
//!
//! The moments are drawn with a seed that is printed (`LRPATH_SEED` sets it). All kinds of moment that are still wanted
//! are watched for at once, and whichever comes may be struck, so the campaign never waits for one that cannot come. A
//! kill counts for a kind only if the disk shows afterwards that it interrupted just that: a checkpoint, tokens or a
//! release that are half-written under their temporary names, or a branch whose last word is a step.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness::daemon::{Daemon, log_of};
use harness::state::State;
use harness::text::{Chance, sentences};
use serde_json::Value;

use crate::watch::{Moment, Watch};

/// Steps of an increment, 4 sequences of 64 tokens each.
const T: u64 = 300;
/// Bytes of a shard: long enough that tokenising it takes a moment; about 120 steps.
const SHARD: usize = 60_000;
/// So many shards at most: about three times what a campaign takes.
const SHARDS: u64 = 60;
/// Kills that interrupt what they were meant to.
const KILLS: u64 = 20;
/// At least so many of each kind of moment; the kinds of the others are drawn.
const EACH: u64 = 3;
/// Versions that are compared at least.
const VERSIONS: usize = 4;
/// A daemon is not killed more often than this over a shard that waits: it would give up the shard, rightly.
const OVER_A_SHARD: u32 = 3;
/// A state in which nothing happens for so long, though there is work, is stuck.
const STUCK: Duration = Duration::from_secs(20);

/// A hundred thousand parameters.
const MODEL: &str = r#"{
  "model_type": "llama", "vocab_size": 300, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
  "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
  "tie_word_embeddings": false, "initializer_range": 0.02, "max_position_embeddings": 64
}"#;

fn new_state() -> State {
    let config = format!(
        "seed = 11\n[model]\nconfig = \"model.json\"\n[tokenizer]\nvocabulary = 300\ntrain_bytes = 50000\n[data]\n\
         sequence_length = 64\nsequences_per_step = 4\nheld_out_share = 0.05\nheld_out_block = 32\n\
         settle_seconds = 0.2\nscan_seconds = 1.0\n[schedule]\nwarmup_steps = 4\npeak = 1e-3\nmin = 1e-4\n[cut]\n\
         every_tokens = {}\n[eager]\nmin_steps = 20\n[checkpoints]\nevery = 20\n[trainer]\nbackoff_seconds = 0.2\n\
         attempts = 50\nmicro_batch = 2\n[[slots]]\nname = \"one\"\ndevices = [\"cpu\"]\n",
        T * 256
    );
    State::of(MODEL, &config)
}

fn drop_shard(state: &State, number: u64) {
    state.drop_file(&format!("shard{number:02}.txt"), sentences(number, SHARD).as_bytes());
}

fn versions(status: &Value) -> &[Value] {
    status["paradigms"]["path-switching"]["versions"].as_array().map_or(&[], Vec::as_slice)
}

/// Whether everything that was dropped is taken, and everything that can be done with it is done.
fn is_idle(status: &Value, dropped: u64) -> bool {
    assert_eq!(status["shards"]["rejected"], 0, "a shard was rejected: {status:#}");
    assert!(
        versions(status).iter().all(|version| version["state"] != "failed"),
        "a version failed: {status:#}"
    );
    status["shards"]["accepted"].as_u64() == Some(dropped)
        && status["jobs"].as_array().unwrap().is_empty()
        && versions(status).iter().all(|version| version["state"] == "released" || version["state"] == "open")
}

/// Waits until so many shards are taken and everything is done with them.
fn finish(state: &State, dropped: u64) -> usize {
    let (mut seen, mut since) = (Value::Null, Instant::now());
    loop {
        let status = state.ask(&["status"]);
        if is_idle(&status, dropped) {
            return versions(&status).iter().filter(|version| version["state"] == "released").count();
        }
        if seen["position"] != status["position"] {
            (seen, since) = (status, Instant::now());
        }
        assert!(since.elapsed() < STUCK, "the run is stuck: {seen:#}\n{}", log_of(state));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Daemon,
    Trainer,
    Both,
}

/// What is still to be done, and what was done.
struct Campaign {
    state: State,
    chance: Chance,
    watch: Watch,
    /// None only within a strike.
    daemon: Option<Daemon>,
    dropped: u64,
    /// Hits that are still wanted.
    wanted: BTreeMap<Moment, u64>,
    /// Times that a moment is let go by before the next strike, and the sign that it was last seen by.
    skips: BTreeMap<Moment, (u64, PathBuf)>,
    hits: BTreeMap<Moment, u64>,
    kills: BTreeMap<Target, u64>,
    /// The attempts that were killed when a checkpoint or a branch was interrupted: one of them was at that.
    struck: Vec<Vec<String>>,
    over_a_shard: u32,
}

impl Campaign {
    fn new(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let mut wanted: BTreeMap<Moment, u64> = Moment::ALL.map(|moment| (moment, EACH)).into();
        for _ in wanted.values().sum::<u64>()..KILLS {
            let moment = Moment::ALL[chance.below(4) as usize];
            *wanted.entry(moment).or_default() += 1;
        }
        let state = new_state();
        let daemon = Some(Daemon::start(&state));
        let watch = Watch::new(state.path());
        let (skips, hits, kills, struck) = Default::default();
        let (dropped, over_a_shard) = (0, 0);
        let mut campaign =
            Self { state, chance, watch, daemon, dropped, wanted, skips, hits, kills, struck, over_a_shard };
        for moment in Moment::ALL {
            campaign.draw_skip(moment);
        }
        campaign
    }

    /// Not always the first chance: so the moment is another one each time. The common ones are let go by more often.
    fn draw_skip(&mut self, moment: Moment) {
        let bound = match moment {
            Moment::Checkpoint => 6,
            Moment::Branch => 60,
            Moment::Tokenising | Moment::Publishing => 2,
        };
        self.skips.insert(moment, (self.chance.below(bound), PathBuf::new()));
    }

    /// Kills until nothing more is wanted.
    fn run(&mut self) {
        let (mut quiet, mut seen, mut stuck) = (Instant::now(), Value::Null, Instant::now());
        let mut next_drop = Instant::now();
        while self.wanted.values().any(|wanted| *wanted > 0) {
            self.watch.refresh();
            if self.over_a_shard < OVER_A_SHARD
                && let Some((moment, sign)) = self.due()
            {
                self.strike(moment, &sign);
                (quiet, stuck) = (Instant::now(), Instant::now());
            }
            // Tokenising beside training, at any time; else only when there is nothing left to do.
            let is_wanted = self.wanted[&Moment::Tokenising] > 0 && Instant::now() >= next_drop;
            if !self.watch.trainers().is_empty() && self.over_a_shard == 0 && !is_wanted {
                quiet = Instant::now();
            } else if is_wanted || quiet.elapsed() > Duration::from_millis(100) {
                let status = self.state.ask(&["status"]);
                let is_taken = status["shards"]["accepted"].as_u64() == Some(self.dropped);
                if is_taken {
                    self.over_a_shard = 0;
                }
                if is_idle(&status, self.dropped) || is_taken && is_wanted {
                    assert!(self.dropped < SHARDS, "the data ran out; {:?} were still wanted", self.wanted);
                    drop_shard(&self.state, self.dropped);
                    self.dropped += 1;
                    stuck = Instant::now();
                }
                next_drop = Instant::now() + Duration::from_millis(self.chance.below(1000));
                quiet = Instant::now();
                if seen["position"] != status["position"] {
                    (seen, stuck) = (status, Instant::now());
                }
                assert!(stuck.elapsed() < STUCK, "the run is stuck: {seen:#}\n{}", log_of(&self.state));
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// A moment that is wanted, is now, and has been let go by often enough.
    fn due(&mut self) -> Option<(Moment, PathBuf)> {
        for moment in Moment::ALL {
            if self.wanted[&moment] == 0 {
                continue;
            }
            let Some(sign) = self.watch.sign(moment) else { continue };
            let Some((skips, last)) = self.skips.get_mut(&moment) else { continue };
            if *last != sign {
                if *skips == 0 {
                    return Some((moment, sign));
                }
                *skips -= 1;
                *last = sign;
            }
        }
        None
    }

    /// Mostly both; but each is killed alone too, before the last hit that it could be killed for.
    fn draw_target(&mut self, moment: Moment) -> Target {
        let alone = if moment.is_the_trainers() { Target::Trainer } else { Target::Daemon };
        let is_due = self.wanted[&moment] == 1 && !self.kills.contains_key(&alone);
        match self.chance.below(6) {
            _ if is_due => alone,
            0 => Target::Daemon,
            1 => alone,
            _ => Target::Both,
        }
    }

    /// Kills whom chance says, and finds out what that interrupted.
    fn strike(&mut self, moment: Moment, sign: &Path) {
        let target = self.draw_target(moment);
        let trainers = if target == Target::Daemon { BTreeMap::new() } else { self.watch.trainers() };
        if moment.is_the_trainers() {
            trainers.values().for_each(|trainer| trainer.kill());
        }
        if target != Target::Trainer {
            self.daemon.take().unwrap().kill();
            self.over_a_shard += 1;
        }
        trainers.values().for_each(|trainer| trainer.kill());
        let deadline = Instant::now() + Duration::from_secs(10);
        while trainers.values().any(|trainer| trainer.lives()) {
            assert!(Instant::now() < deadline, "a killed trainer lives on");
            std::thread::sleep(Duration::from_micros(100));
        }
        // A daemon that dies alone leaves its trainers at work: their checkpoint or branch is not interrupted. Nor is that
        // of a trainer so young that its daemon had not written down yet who it is.
        let is_struck = !moment.is_the_trainers() || !trainers.is_empty();
        let is_hit = self.watch.was_interrupted(moment, sign) && is_struck;
        *self.kills.entry(target).or_default() += 1;
        if is_hit {
            *self.hits.entry(moment).or_default() += 1;
            *self.wanted.entry(moment).or_default() -= 1;
        }
        if is_hit && moment.is_the_trainers() {
            self.struck.push(trainers.into_keys().collect());
        }
        let what = match (is_hit, is_struck) {
            (true, _) => "interrupted",
            (false, true) => "too late",
            (false, false) => "the trainer works on alone",
        };
        println!("{moment:?}, {target:?}: {what}");
        self.draw_skip(moment);
        if self.daemon.is_none() {
            self.daemon = Some(Daemon::start(&self.state));
        }
    }
}

/// The order in which a state accepted its shards, by name.
fn order(state: &State) -> Vec<String> {
    let shards = state.ask(&["shards"]);
    let accepted = shards["accepted"].as_array().expect("`shards --json` lists the accepted ones");
    accepted.iter().map(|shard| shard["name"].as_str().unwrap().to_owned()).collect()
}

/// What the journal knows of kills.
#[derive(Default)]
struct Recorded {
    /// Starts of the daemon.
    starts: u64,
    /// Readings that never came to an end.
    readings: u64,
    /// Attempts that ended without a last word, by the names of their folders: crashes, and stops of those that another
    /// daemon had started. That one cannot be told how its trainer ended: one that had been asked to stop, and is gone,
    /// has stopped for all that can be known.
    cut_short: BTreeSet<String>,
}

fn recorded(state: &State) -> Recorded {
    let output = state.ctl(&["events", "--json"]);
    assert!(output.status.success(), "events: {}", String::from_utf8_lossy(&output.stderr));
    let mut recorded = Recorded::default();
    let (mut open, mut untokenised) = (BTreeSet::new(), BTreeSet::new());
    let mut started: BTreeMap<String, u64> = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let transition = &event["transition"];
        let digest = transition["digest"].to_string();
        match transition["kind"].as_str().unwrap() {
            "daemon-started" => {
                recorded.starts += 1;
                recorded.readings += std::mem::take(&mut open).len() as u64 + untokenised.len() as u64;
            }
            "reading-started" => drop(open.insert(digest)),
            "shard-accepted" => {
                open.remove(&digest);
                // Before there is a tokenizer.
                if transition["tokens"].is_null() {
                    untokenised.insert(digest);
                }
            }
            "shard-tokenised" => drop(untokenised.remove(&digest)),
            "job-started" => drop(started.insert(attempt(transition), recorded.starts)),
            "job-ended" => {
                let name = attempt(transition);
                let is_adopted = started.get(&name).is_some_and(|under| *under < recorded.starts);
                match transition["outcome"]["kind"].as_str().unwrap() {
                    "crashed" => drop(recorded.cut_short.insert(name)),
                    "stopped" if is_adopted => drop(recorded.cut_short.insert(name)),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    recorded
}

/// The name of the folder of the attempt that a transition is about.
fn attempt(transition: &Value) -> String {
    format!("{}-{}", transition["job"], transition["attempt"])
}

#[test]
fn twenty_kills_do_not_touch_a_bit() {
    let seed = std::env::var("LRPATH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
    });
    println!("LRPATH_SEED={seed}");
    let mut campaign = Campaign::new(seed);
    campaign.run();
    let Campaign { state, daemon, mut dropped, hits, kills, struck, .. } = campaign;
    while finish(&state, dropped) < VERSIONS {
        drop_shard(&state, dropped);
        dropped += 1;
    }
    println!("{kills:?} were killed and {hits:?} interrupted, over {dropped} shards");
    let of = |target| kills.get(&target).copied().unwrap_or(0);
    let Recorded { starts, readings, cut_short } = recorded(&state);
    assert_eq!(
        starts,
        1 + of(Target::Daemon) + of(Target::Both),
        "the journal knows each start of the daemon"
    );
    assert!(
        readings >= hits[&Moment::Tokenising],
        "the journal knows each reading that was cut short: {readings}"
    );
    assert_eq!(struck.len() as u64, hits[&Moment::Checkpoint] + hits[&Moment::Branch]);
    for trainers in struck {
        let is_known = trainers.iter().any(|trainer| cut_short.contains(trainer));
        assert!(is_known, "the journal knows each trainer that was killed: {trainers:?} of {cut_short:?}");
    }
    let order = order(&state);
    daemon.unwrap().stop();

    let undisturbed = new_state();
    let daemon = Daemon::start(&undisturbed);
    for (taken, name) in (1..).zip(&order) {
        drop_shard(&undisturbed, name.trim_start_matches("shard").trim_end_matches(".txt").parse().unwrap());
        let deadline = Instant::now() + Duration::from_secs(30);
        while undisturbed.ask(&["status"])["shards"]["accepted"].as_u64() < Some(taken) {
            assert!(Instant::now() < deadline, "{name} is not accepted: {}", log_of(&undisturbed));
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    finish(&undisturbed, dropped);
    daemon.stop();
    let (killed, expected) = (state.release_digests(), undisturbed.release_digests());
    assert!(expected.len() >= VERSIONS, "only {} versions", expected.len());
    assert_eq!(killed, expected, "LRPATH_SEED={seed}");
}
