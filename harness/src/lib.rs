//! Experiments that write reports, and the command line around them.
//!
//! The only crate that prints, times, parses files of its own or listens. Standard output carries results, and nothing
//! else; progress and remarks go to standard error.
//!
//! * [`cli`] reads the command line; each subcommand is a file of [`commands`] with its `Args` and its `run`.
//! * [`root`] finds the repository's folders, [`dataset`] its texts, [`model`] its models; [`compute`] what they run on.
//! * [`score`] measures how well a model predicts ([`distribution`]: what a token costs; [`difference`]: from another model),
//!   [`speed`] how fast it runs.
//! * [`peers`] asks other programs how fast they are.
//! * [`contest`] times variants against each other, [`ceilings`] says what they are held to, [`stats`] how sure one is.
//! * [`machine`] and [`memory`] say what it ran on and what it took.
//! * [`record`] is the folder that a run leaves behind, [`report`] the paper made of it.

#![deny(clippy::print_stdout)]

pub mod ceilings;
pub mod checksum;
pub mod cli;
pub mod commands;
pub mod compute;
pub mod contest;
pub mod crew;
pub mod dataset;
pub mod difference;
pub mod distribution;
pub mod experiment;
pub mod experiments;
pub mod gate;
pub mod guests;
pub mod lab;
pub mod machine;
pub mod memory;
pub mod model;
pub mod noise;
pub mod output;
pub mod peers;
pub mod profile;
pub mod progress;
pub mod quantity;
pub mod record;
pub mod report;
pub mod root;
pub mod score;
pub mod speed;
pub mod stats;
pub mod table;
pub mod watch;
