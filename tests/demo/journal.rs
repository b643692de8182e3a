//! What the journal of the demo's state says of the order of things: which speeches came before which cut, and on which
//! of them the tokenizer was trained.

use harness::state::State;
use serde_json::Value;

use crate::ERAS;

/// A speech that was accepted.
struct Speech {
    name: String,
    bytes: u64,
    /// Tokens that it adds to the stream.
    tokens: u64,
}

/// The demo's journal.
pub struct Journal {
    transitions: Vec<Value>,
    /// In the order of acceptance.
    speeches: Vec<Speech>,
}

impl Journal {
    /// Asks the daemon.
    pub fn of(state: &State) -> Self {
        let shards = state.ask(&["shards"]);
        assert_eq!(
            shards["rejected"].as_array().unwrap().len() + shards["duplicates"].as_array().unwrap().len(),
            0
        );
        let speech = |shard: &Value| Speech {
            name: shard["name"].as_str().unwrap().to_owned(),
            bytes: shard["bytes"].as_u64().unwrap(),
            tokens: shard["tokens"]["stream"].as_u64().unwrap(),
        };
        let speeches = shards["accepted"].as_array().unwrap().iter().map(speech).collect();
        Self { transitions: state.transitions(), speeches }
    }

    fn all(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.transitions.iter().filter(move |transition| transition["kind"] == kind)
    }

    /// T, which all increments have.
    pub fn increment(&self) -> u64 {
        let steps: Vec<u64> = self.all("increment-cut").map(|cut| cut["steps"].as_u64().unwrap()).collect();
        assert!(steps.len() == ERAS && steps.iter().all(|other| *other == steps[0]), "{steps:?}");
        steps[0]
    }

    fn fixed(&self) -> &Value {
        self.all("initialized").next().unwrap()
    }

    fn tokens_of_a_step(&self) -> u64 {
        let number = |key: &str| self.fixed()[key].as_u64().unwrap();
        number("sequence_length") * number("sequences_per_step")
    }

    /// Whole steps in the first so many speeches.
    fn steps(&self, speeches: usize) -> u64 {
        let tokens: u64 = self.speeches[..speeches].iter().map(|speech| speech.tokens).sum();
        tokens.saturating_sub(1) / self.tokens_of_a_step()
    }

    /// Each era's speeches are dropped until its increment is cut, and no more: the last one is that which fills it.
    pub fn check_eras(&self, eras: &[Vec<String>]) {
        let (mut dropped, mut at_cuts) = (0, vec![0]);
        for transition in &self.transitions {
            match transition["kind"].as_str().unwrap() {
                "shard-accepted" => dropped += 1,
                "increment-cut" => at_cuts.push(dropped),
                _ => {}
            }
        }
        assert_eq!(dropped, self.speeches.len());
        assert_eq!(at_cuts.last(), Some(&dropped), "nothing is dropped after the last cut");
        for (number, (cuts, era)) in (1..).zip(at_cuts.windows(2).zip(eras)) {
            let own: Vec<&String> =
                self.speeches[cuts[0]..cuts[1]].iter().map(|speech| &speech.name).collect();
            assert!(!own.is_empty() && own.len() <= era.len(), "era {number}: {own:?}");
            assert!(own.iter().zip(era).all(|(own, expected)| *own == expected), "era {number}: {own:?}");
            let end = number * self.increment();
            assert!(self.steps(cuts[1]) >= end, "era {number} has the steps of its increment");
            assert!(
                self.steps(cuts[1] - 1) < end,
                "era {number} was dropped on after its increment was full"
            );
        }
    }

    /// The tokenizer is trained on as many speeches as it takes, all of the first era.
    pub fn check_tokenizer(&self, first_era: &[String]) {
        let asked = self.fixed()["tokenizer"]["train_bytes"].as_u64().unwrap();
        // At most what the tokens of an increment stand for.
        let enough = asked.min(self.increment() * self.tokens_of_a_step());
        let first =
            |kind: &str| self.transitions.iter().position(|transition| transition["kind"] == kind).unwrap();
        assert!(first("tokenizer-planned") < first("increment-cut"), "before the first cut");
        let planned = &self.transitions[first("tokenizer-planned")];
        let count = planned["shards"].as_u64().unwrap() as usize;
        let bytes = |speeches: &[Speech]| speeches.iter().map(|speech| speech.bytes).sum::<u64>();
        assert_eq!(planned["bytes"].as_u64(), Some(bytes(&self.speeches[..count])));
        assert!(bytes(&self.speeches[..count]) >= enough && bytes(&self.speeches[..count - 1]) < enough);
        let trained_on = self.speeches[..count].iter().map(|speech| &speech.name);
        assert!(trained_on.eq(&first_era[..count]), "the first speeches of the first era");
    }
}
