//! The command line of Ryzanstein: everything it does is in the library of the same name.

use std::process::ExitCode;

use clap::Parser;
use harness::cli::{self, Cli};

fn main() -> ExitCode {
    let line = Cli::parse();
    let outcome = line.run();
    cli::exit_code(outcome)
}
