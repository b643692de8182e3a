//! What actors and API ask of each other beside the ledger: answers that no journal holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::types::WaitingFile;
use crate::api::{Live, Progress};
use crate::devices::Devices;
use crate::inbox::InboxHandle;
use crate::jobs::{self, JobsHandle};
use crate::ledger::transition::{CutNumber, JobNumber};
use crate::ledger::tree::Tree;
use crate::scheduler::Surroundings;
use crate::scheduler::decide::Slot;

/// The handles of the actors.
#[derive(Clone)]
pub struct Neighbours {
    /// The inbox.
    pub inbox: InboxHandle,
    /// The jobs.
    pub jobs: JobsHandle,
    /// The GPUs.
    pub devices: Arc<Devices>,
}

impl Surroundings for Neighbours {
    fn is_quiet(&self) -> bool {
        self.inbox.is_quiet()
    }

    fn has_devices(&self, slot: &Slot) -> bool {
        self.devices.missing(&slot.devices, slot.shared).is_none()
    }

    fn stop(&self, job: JobNumber) {
        self.jobs.stop(job);
    }
}

impl Live for Neighbours {
    fn request_cut(&self, name: Option<String>) -> Result<CutNumber, String> {
        self.inbox.request_cut(name).map_err(|error| error.to_string())
    }

    fn waiting(&self) -> Vec<WaitingFile> {
        let waiting = self.inbox.waiting().into_iter();
        waiting
            .map(|file| WaitingFile {
                name: file.name,
                bytes: file.bytes,
                since: file.since,
                why: file.why,
                changes: file.changes,
                blocked: file.blocked,
            })
            .collect()
    }

    fn markers(&self) -> BTreeSet<CutNumber> {
        self.inbox.markers()
    }

    fn moment(&self, look: &mut dyn FnMut(&Tree, &BTreeMap<JobNumber, Progress>)) {
        self.jobs.snapshot(|tree, running| {
            let progress = running.iter().map(|(job, progress)| (*job, told(progress))).collect();
            look(tree, &progress);
        });
    }
}

/// Progress as the API tells it.
fn told(progress: &jobs::Progress) -> Progress {
    Progress {
        attempt: progress.attempt,
        step: progress.step,
        steps_done: progress.steps_done,
        loss: progress.loss,
        learning_rate: progress.learning_rate,
        tokens_per_second: progress.tokens_per_second,
        first_event_at: progress.first_event_at,
        last_event_at: progress.last_event_at,
        warning: progress.warning.clone(),
    }
}
