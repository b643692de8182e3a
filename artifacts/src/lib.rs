//! What lies on disk, and what the daemon and a trainer say to each other.
//!
//! Daemon and trainer are separate programs that share nothing but files: whatever both must agree on to the last
//! byte is defined here and nowhere else. The crate knows neither tensors nor the version tree, so that a trainer of
//! somebody else's can keep the same contract.
#![deny(unsafe_code)]

pub mod checkpoint;
pub mod digest;
pub mod event;
pub mod job;
pub mod manifest;
pub mod release;
pub mod shard;
pub mod storage;
pub mod stream;
pub mod tokens;
pub mod versioned;

pub use digest::Digest;

/// Compares a schema with the file that is committed for trainers' authors, or writes that file where the variable
/// `UPDATE_SCHEMAS` is set.
#[cfg(test)]
fn committed_schema(name: &str, schema: &schemars::Schema) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/trainer-contract");
    let path = folder.join(format!("{name}.schema.json"));
    let current = serde_json::to_string_pretty(schema).unwrap() + "\n";
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(&path, &current).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == current, "{} is not current: run the tests with UPDATE_SCHEMAS=1", path.display());
}
