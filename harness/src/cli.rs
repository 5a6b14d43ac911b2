//! The command line: what can be asked, and how a failure is told.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::guests::Guests;
use crate::{commands, output};

/// Ryzanstein: which kernel, layout, cache or model is better on this CPU, by how much, and how sure are we.
#[derive(Parser)]
#[command(name = "harness", version, arg_required_else_help = true, propagate_version = true)]
#[command(after_help = "\
Exit status: 0 done, 1 something failed, 2 the command line (or a file it names) asks for something that is not there. \
Standard output carries results only; progress and remarks go to standard error.")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run experiments and write a report
    Experiment(commands::experiment::Args),
    /// Write the report of a run again, without measuring
    Report(commands::report::Args),
    /// Show the machine, its kernels and its ceilings
    Info(commands::info::Args),
    /// List experiments, models, texts, ops and ISA levels
    List(commands::list::Args),
    /// Check and time ops side by side
    Kernels(commands::kernels::Args),
    /// Measure how well a model predicts a text
    Perplexity(commands::perplexity::Args),
    /// Measure tokens per second, in the manner of llama-bench
    Bench(commands::bench::Args),
    /// Let a model go on from a prompt
    Generate(commands::generate::Args),
    /// Write a model's logits and hidden states to a file
    Logits(commands::logits::Args),
    /// List, fetch and find evaluation data
    Dataset(commands::dataset::Args),
    /// Compare determined numbers and instruction counts with a committed baseline
    Gate(commands::gate::Args),
}

impl Cli {
    /// Does what the command line asks.
    ///
    /// # Errors
    /// What went wrong, as one sentence; [`UserError`] in its chain where the command line itself is at fault.
    pub fn run(self, guests: &Guests) -> Result<()> {
        match self.command {
            Command::Experiment(args) => commands::experiment::run(args, guests),
            Command::Report(args) => commands::report::run(args),
            Command::Info(args) => commands::info::run(args, guests),
            Command::List(args) => commands::list::run(args, guests),
            Command::Kernels(args) => commands::kernels::run(args, guests),
            Command::Perplexity(args) => commands::perplexity::run(args),
            Command::Bench(args) => commands::bench::run(args),
            Command::Generate(args) => commands::generate::run(args),
            Command::Logits(args) => commands::logits::run(args),
            Command::Dataset(args) => commands::dataset::run(args),
            Command::Gate(args) => commands::gate::run(args),
        }
    }
}

/// Marks an error as the user's to mend: an unknown name, a bad value, a misspelt key. Exit status 2.
#[derive(Debug)]
pub struct UserError(String);

impl UserError {
    /// An error of the user's whose sentence is `message`.
    #[expect(clippy::new_ret_no_self, reason = "errors are only ever passed on as anyhow::Error")]
    pub fn new(message: impl Into<String>) -> anyhow::Error {
        anyhow::Error::new(UserError(message.into()))
    }

    /// The sentence for a name that is not in a list: it says what there is, and what was probably meant.
    ///
    /// `what` is the kind of thing ("dataset"); `hint` is added as it stands when it is not empty.
    pub fn unknown<'a>(what: &str, name: &str, known: impl IntoIterator<Item = &'a str>, hint: &str) -> anyhow::Error {
        let known: Vec<&str> = known.into_iter().collect();
        let near = known.iter().map(|k| (distance(name, k), *k)).min().filter(|(d, k)| *d <= 1 + k.len() / 4);
        let meant = near.map(|(_, k)| format!(" (did you mean '{k}'?)")).unwrap_or_default();
        let list = if known.is_empty() { "none here".to_string() } else { known.join(", ") };
        let hint = if hint.is_empty() { String::new() } else { format!("; {hint}") };
        UserError::new(format!("there is no {what} '{name}'{meant}: there is {list}{hint}"))
    }
}

impl std::fmt::Display for UserError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UserError {}

/// Whether the error is the user's to mend.
pub fn is_user_error(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<UserError>() || cause.is::<kernels::IsaError>())
}

/// Tells the failure, if any, in one line on standard error and chooses the exit status.
pub fn exit_code(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if is_user_error(&error) { 2 } else { 1 })
        }
    }
}

/// Levenshtein's distance in characters between two short names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(x != *y)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_unknown_name_lists_what_there_is_and_guesses() {
        let message = UserError::unknown("dataset", "almanc", ["almanac", "wikitext2"], "").to_string();
        assert_eq!(message, "there is no dataset 'almanc' (did you mean 'almanac'?): there is almanac, wikitext2");
        let message = UserError::unknown("model", "zebra", ["almanac"], "try list").to_string();
        assert_eq!(message, "there is no model 'zebra': there is almanac; try list");
    }

    #[test]
    fn the_exit_status_survives_context() {
        use anyhow::Context;
        let error = Err::<(), _>(UserError::new("inner")).context("outer").unwrap_err();
        assert!(is_user_error(&error));
        assert!(!is_user_error(&anyhow::anyhow!("plain")));
        assert_eq!(format!("{error:#}"), "outer: inner");
    }

    #[test]
    fn distances_are_levenshteins() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }
}
