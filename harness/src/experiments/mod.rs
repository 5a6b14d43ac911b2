//! The experiments: one file each; [`EXPERIMENTS`](crate::experiment::EXPERIMENTS) lists them.

pub mod architectures;
pub mod context;
pub mod kernels;
pub mod long_context;
pub mod perplexity;
pub mod predicted;
pub mod rivals;
pub mod synthetic_tasks;
pub mod throughput;
