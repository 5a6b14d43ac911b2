//! What a crate outside the workspace brings: it calls [`run`] from its `main` and has the whole command line, with its own
//! members in our lists. `examples/your-kernel` shows how.

use std::process::ExitCode;

use clap::Parser;
use kernels::probe::{OPS, Probe};

use crate::cli::{self, Cli};

/// Members that an outside crate adds to our lists.
#[derive(Clone, Debug, Default)]
pub struct Guests {
    /// Ops, or further variants of ours under names of their own: checked, timed and reported beside [`OPS`].
    pub ops: Vec<Probe>,
}

impl Guests {
    /// Our ops, then the guests'.
    ///
    /// # Panics
    /// If two ops have one name: rows could not be told apart.
    pub fn all_ops(&self) -> Vec<Probe> {
        let all: Vec<Probe> = OPS.iter().chain(&self.ops).copied().collect();
        for (i, op) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|earlier| earlier.name != op.name), "two ops are called {}", op.name);
        }
        all
    }
}

/// The command line with guests: the whole of an outside crate's `main`.
pub fn run(guests: &Guests) -> ExitCode {
    cli::exit_code(Cli::parse().run(guests))
}
