//! Experiments that write reports, and the command line around them.
//!
//! The only crate that prints, times, parses files of its own or listens. Standard output carries results, and nothing
//! else; progress and remarks go to standard error.
//!
//! * [`cli`] reads the command line; each subcommand is a file of [`commands`] with its `Args` and its `run`.
//! * [`root`] finds the repository's folders, [`dataset`] its texts.

#![deny(clippy::print_stdout)]

pub mod checksum;
pub mod cli;
pub mod commands;
pub mod dataset;
pub mod output;
pub mod progress;
pub mod root;
pub mod table;
