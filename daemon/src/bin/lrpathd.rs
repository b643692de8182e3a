//! `lrpathd`: the daemon.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use daemon::edge::failure::{EXIT_CODES, Failure};
use daemon::edge::look::Look;
use daemon::{inbox, ledger, service};
use tracing_subscriber::EnvFilter;

/// Watches a folder for data, trains the main path and its branches, publishes versions.
#[derive(Parser)]
#[command(name = "lrpathd", version, after_help = EXIT_CODES)]
struct Cli {
    /// The state's folder, made by `lrpathctl init`.
    #[arg(long, env = "LRPATH_STATE", default_value = "/var/lib/lrpath")]
    state: PathBuf,
    #[command(subcommand)]
    child: Option<Child>,
}

/// What the daemon starts of itself.
#[derive(Subcommand)]
enum Child {
    #[command(name = service::READ_SHARD, hide = true)]
    ReadShard,
    #[command(name = service::PROBE, hide = true)]
    Probe { view: PathBuf },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.child {
        Some(Child::ReadShard) => return inbox::reader::child(),
        Some(Child::Probe { view }) => return ledger::probe::child(&view),
        None => {}
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,sled=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match service::run(&cli.state) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let failure = Failure::from(error);
            // What cannot be printed cannot be helped; the number says it too.
            let _ = io::stderr().write_all(failure.render(&Look::of_stderr()).as_bytes());
            failure.exit.into()
        }
    }
}
