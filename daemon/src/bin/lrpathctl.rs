//! `lrpathctl`: the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::ctl::main(std::env::args_os())
}
