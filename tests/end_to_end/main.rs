//! From shards to versions, through the real programs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod backups;
mod client_names;
mod counters;
mod damage;
mod devices;
mod evaluations;
mod failing_trainers;
mod guards;
mod hooks;
mod increments;
mod long_run;
mod paradigms;
mod ranks;
mod refused_cuts;
mod refused_shards;
mod refused_starts;
mod reloads;
mod replay;
mod same_bits;
mod service_manager;
mod shapes;
mod upkeep;
mod watching;
mod withdrawals;
