//! What the daemon tells of what happens: for each fact that the journal has taken, one line in the log and one count.
//!
//! Both come out of the record itself, in one place and after it is safe on the disk. So the log, the metrics and
//! `lrpathctl events` never say different things, and no room needs to know how it is watched. What is so at a moment, such
//! as the length of a queue, is no event: it is asked for when somebody looks.

mod counters;
mod events;

use crate::ledger::Observer;
use crate::ledger::transition::Record;
use crate::ledger::tree::Tree;
pub use counters::Counters;

/// The counts of a running daemon, and its voice.
#[derive(Debug, Default)]
pub struct Telemetry {
    /// What was counted since the daemon was started.
    pub counters: Counters,
}

impl Observer for Telemetry {
    fn committed(&self, record: &Record, tree: &Tree) {
        events::tell(&record.transition, tree, &self.counters);
    }
}
