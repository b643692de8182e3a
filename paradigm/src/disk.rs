//! What stands on the disk once all versions are there.
//!
//! Training leaves two kinds of large files: checkpoints, which are needed until nothing begins at them any more, and
//! releases, which stay. How many checkpoints that are is the paradigm's doing: path switching keeps its last branch
//! points, so that a version can be made again without its main path, and the others keep what the next one begins at.

use serde::Serialize;

use crate::model::Model;
use crate::plan::Paradigm;
use crate::units::{self, TooLarge};

/// Bytes of a parameter in a checkpoint: the weight and AdamW's two moments, in f32.
const CHECKPOINT: u64 = 12;
/// Bytes of a parameter in a release: the weight, in f32.
const RELEASE: u64 = 4;

/// What stands on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
pub struct Disk {
    /// Bytes of a checkpoint: 12 P.
    pub checkpoint: u64,
    /// Checkpoints, with that which is being written.
    pub checkpoints: u64,
    /// Bytes of a release: 4 P.
    pub release: u64,
    /// Releases.
    pub releases: u64,
    /// Bytes of all.
    pub bytes: u64,
}

impl Disk {
    /// What so many versions leave, if the branch points of the last `branch_points` of them are kept.
    ///
    /// # Errors
    /// 2^53 bytes or more.
    pub fn new(
        model: &Model,
        paradigm: Paradigm,
        versions: u32,
        branch_points: u32,
    ) -> Result<Self, TooLarge> {
        let [checkpoint, release] =
            [CHECKPOINT, RELEASE].map(|bytes| bytes.saturating_mul(model.parameters()));
        // In each, the job at work has its last checkpoint, and the next one is written beside it.
        let at_work = 2;
        let checkpoints = match paradigm {
            // The newest one of the main path, and the branch points.
            Paradigm::PathSwitching => 1 + u64::from(branch_points.min(versions)) + at_work,
            Paradigm::FromScratch => at_work,
            // The last version's.
            Paradigm::Continual => 1 + at_work,
        };
        let releases = u64::from(versions);
        let what = "bytes on the disk";
        let bytes = units::sum(
            what,
            units::product(what, &[checkpoint, checkpoints])?,
            units::product(what, &[release, releases])?,
        )?;
        Ok(Self { checkpoint, checkpoints, release, releases, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> Model {
        serde_json::from_value(serde_json::json!({
            "model_type": "llama", "vocab_size": 10, "hidden_size": 4, "intermediate_size": 8,
            "num_hidden_layers": 1, "num_attention_heads": 1,
        }))
        .unwrap()
    }

    #[test]
    fn checkpoints_are_those_that_something_can_begin_at_and_releases_stay() {
        let model = tiny();
        let disk = |paradigm, versions, kept| Disk::new(&model, paradigm, versions, kept).unwrap();
        let [switching, scratch, continual] = Paradigm::ALL.map(|paradigm| disk(paradigm, 4, 2));
        assert_eq!([switching.checkpoints, scratch.checkpoints, continual.checkpoints], [5, 2, 3]);
        assert_eq!(disk(Paradigm::PathSwitching, 1, 2).checkpoints, 4, "one version has one branch point");
        assert_eq!(
            (switching.checkpoint, switching.release),
            (12 * model.parameters(), 4 * model.parameters())
        );
        assert_eq!(switching.bytes, (5 * 12 + 4 * 4) * model.parameters());
        let endless = Disk::new(&model, Paradigm::FromScratch, u32::MAX, 0);
        assert!(endless.is_ok_and(|disk| disk.releases == u64::from(u32::MAX)));
    }
}
