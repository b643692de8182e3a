//! `lrpathd` and `lrpathctl`: shards in, versions out.
//!
//! Actors meet only in the ledger. The inbox, the scheduler, the jobs, the publisher and the retention never call each
//! other: each reads the version tree and commits transitions, and whoever cares is woken by the tree's new position. So a restart
//! is nothing special: replay, look, go on.

pub mod alias;
pub mod api;
pub mod checkpoints;
pub mod config;
pub mod ctl;
pub mod devices;
pub mod edge;
pub mod hooks;
pub mod inbox;
pub mod jobs;
pub mod ledger;
pub mod outlook;
pub mod publish;
pub mod retention;
pub mod run_stream;
pub mod scheduler;
pub mod service;
pub mod telemetry;
pub mod tensorboard;
pub mod tokenizer;
pub mod vocabulary;
pub mod withdrawal;
