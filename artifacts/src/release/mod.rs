//! The folder of a published model.
//!
//! It is what other programs load: the names are those of HF transformers, and all that is ours is `lrpath.json`, which
//! says where the model comes from. A release is made under a temporary name and published with
//! [`storage::publish_folder`], like everything else.

mod finite;
mod provenance;
mod weights;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::storage::{self, Disk, Storage};

pub use finite::first_not_finite;
pub use provenance::{
    Evaluated, FORMAT, Parent, Plan, Provenance, Rates, ShardSeen, StepsSpent, StreamShape, read_provenance,
};
pub use weights::{Error, SPLIT_ABOVE, write_weights};

/// The model's shape.
pub const CONFIG: &str = "config.json";
/// The weights, where they are one file.
pub const WEIGHTS: &str = "model.safetensors";
/// Which file holds which weight, where they are several.
pub const INDEX: &str = "model.safetensors.index.json";
/// The tokenizer.
pub const TOKENIZER: &str = "tokenizer.json";
/// The tokenizer's settings.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// The settings of generation.
pub const GENERATION_CONFIG: &str = "generation_config.json";
/// The model card.
pub const CARD: &str = "README.md";
/// Where the model comes from.
pub const PROVENANCE: &str = "lrpath.json";
/// The alias of the newest version.
pub const LATEST: &str = "latest";

/// A version's folder, relative to the folder of releases: `v<k>`, or `<paradigm>/v<k>` for any paradigm but the first.
pub fn folder(paradigm: Option<&str>, version: u32) -> PathBuf {
    paradigm.map(PathBuf::from).unwrap_or_default().join(format!("v{version}"))
}

/// Lets an alias, such as `latest`, point to the version with this name beside it. Whoever opens the alias finds the
/// old version or the new one, and never nothing.
pub fn point(releases: &Path, alias: &str, version: &str) -> storage::Result<()> {
    let alias = releases.join(alias);
    let link = |name: &Path| symlink(version, name).map_err(storage::Error::at("create the link", name));
    let (temporary, ()) = storage::create_temporary(&alias, link)?;
    if let Err(error) = Disk.rename(&temporary, &alias) {
        // What stays behind has a temporary name: harmless, and swept at the next start.
        let _ = Disk.remove_file(&temporary);
        return Err(error);
    }
    Disk.sync_folder(releases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_paradigm_has_the_short_names() {
        assert_eq!(folder(None, 3), Path::new("v3"));
        assert_eq!(folder(Some("continual"), 3), Path::new("continual/v3"));
    }

    #[test]
    fn an_alias_moves_and_leaves_nothing_else() {
        let releases = tempfile::tempdir().unwrap();
        let read = || std::fs::read_to_string(releases.path().join("latest/name")).unwrap();
        for version in ["v1", "v2"] {
            std::fs::create_dir(releases.path().join(version)).unwrap();
            std::fs::write(releases.path().join(version).join("name"), version).unwrap();
            point(releases.path(), LATEST, version).unwrap();
            assert_eq!(read(), version);
        }
        point(releases.path(), LATEST, "v1").unwrap();
        assert_eq!(read(), "v1");
        assert_eq!(Disk.list(releases.path()).unwrap().len(), 3);
    }
}
