//! The command line of Ryzanstein: everything it does is in the library of the same name.

use std::process::ExitCode;

use harness::guests::{self, Guests};

fn main() -> ExitCode {
    guests::run(&Guests::default())
}
