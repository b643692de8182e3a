//! `lrpathd` and `lrpathctl`: shards in, versions out.
pub mod config;
pub mod ledger;
pub mod scheduler;
