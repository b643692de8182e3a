//! What `lrpathd` can be asked for: here, so that its manual is made of the same words as its help.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::failure::EXIT_CODES;
use super::log::Form;

/// What the daemon calls its children that read shards.
pub const READ_SHARD: &str = "read-shard";
/// What it calls the child that looks at the tree's copy.
pub const PROBE: &str = "probe-tree";

/// What ends what a stopped service has left behind.
pub const SWEEP: &str = "sweep";

/// Watches a folder for data, trains the main path and its branches, publishes versions.
#[derive(Debug, Parser)]
#[command(name = "lrpathd", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    /// The state's folder, made by `lrpathctl init`.
    #[arg(long, env = "LRPATH_STATE", default_value = "/var/lib/lrpath")]
    pub state: PathBuf,
    /// The form of the log: auto is the journal under systemd, and text elsewhere; RUST_LOG says how much of it.
    #[arg(long, env = "LRPATH_LOG", value_enum, default_value_t = Form::Auto)]
    pub log: Form,
    #[command(subcommand)]
    /// What it is started as by itself.
    pub child: Option<Child>,
}

/// What the daemon starts of itself.
#[derive(Debug, Subcommand)]
pub enum Child {
    /// Reads shards.
    #[command(name = READ_SHARD, hide = true)]
    ReadShard,
    /// Looks whether the tree's copy can be opened.
    #[command(name = PROBE, hide = true)]
    Probe {
        /// The copy's folder.
        view: PathBuf,
    },
    /// Ends what a stopped service has left behind.
    #[command(name = SWEEP, hide = true)]
    Sweep,
}
