//! The subcommands: each file has its `Args` (what may be said) and its `run` (what is done).

pub mod dataset;
pub mod experiment;
pub mod report;
