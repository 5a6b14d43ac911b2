//! The subcommands: each file has its `Args` (what may be said) and its `run` (what is done).

pub mod bench;
pub mod dataset;
pub mod experiment;
pub mod gate;
pub mod generate;
pub mod info;
pub mod kernels;
pub mod list;
pub mod logits;
pub mod perplexity;
pub mod report;
