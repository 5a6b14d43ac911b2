//! `harness gate`: stops regressions of what is the same on every machine.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Subcommand;
use kernels::Isa;
use serde_json::json;

use super::experiment;
use crate::cli::UserError;
use crate::gate::{self, Baseline, Comparison, Difference, counts};
use crate::machine::Compiler;
use crate::{compute, output, root, table};

/// What may be said after `harness gate`.
#[derive(clap::Args)]
#[command(after_help = "\
Runs the quick form of everything in experiments/ and compares its determined numbers (those that follow from seed, data \
and weights) exactly with a committed baseline; instruction counts of the kernels, by valgrind, may rise by 1 %. Times \
are not looked at. What could not be compared on this machine is said.

Examples:
  harness gate check                      run and compare; exit status 1 if anything differs
  harness gate check --rows runs/X        compare a quick run that was made before
  harness gate record                     make what is measured now the baseline, to be committed")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Run the quick experiments and write the baseline
    Record {
        #[command(flatten)]
        how: How,
    },
    /// Run the quick experiments and compare them with the baseline
    Check {
        #[command(flatten)]
        how: How,
        /// Compare the run in this folder instead of running
        #[arg(long, value_name = "DIR")]
        rows: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What both actions share.
#[derive(clap::Args)]
struct How {
    /// The baseline [default: experiments/gate.json in the repository]
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// The highest ISA level to run [default: the best that this CPU has]
    #[arg(long, value_name = "LEVEL", value_parser = compute::isa)]
    isa: Option<Isa>,
    /// Leave instruction counts out
    #[arg(long)]
    no_counts: bool,
}

impl How {
    fn path(&self) -> PathBuf {
        self.baseline.clone().unwrap_or_else(|| root::root().join("experiments/gate.json"))
    }

    fn numbers(&self) -> Result<gate::Numbers> {
        let folder = root::root().join("experiments");
        let files = experiment::files(&folder)?;
        if files.is_empty() {
            return Err(UserError::new(format!("there is no experiment in {}", folder.display())));
        }
        gate::run(&files, self.isa.unwrap_or_else(Isa::best))
    }

    /// Instruction counts, or why there are none.
    fn counts(&self) -> Result<Result<counts::Counts, String>> {
        let root = root::root();
        if self.no_counts {
            return Ok(Err("left out as asked".to_string()));
        }
        match counts::missing(&root) {
            Some(why) => Ok(Err(why)),
            None => counts::count(&root, &Compiler::read().version).map(Ok),
        }
    }
}

/// Does what `args` ask.
///
/// # Errors
/// Experiments that fail, a baseline that cannot be read or written, and numbers that differ.
pub fn run(args: Args) -> Result<()> {
    match args.action {
        Action::Record { how } => record(&how),
        Action::Check { how, rows, json } => check(&how, rows.as_deref(), json),
    }
}

fn record(how: &How) -> Result<()> {
    let path = how.path();
    let numbers = how.numbers()?;
    let counts = how.counts()?;
    if let Err(why) = &counts {
        eprintln!("instruction counts: {why}");
    }
    let rows: usize = numbers.values().map(|rows| rows.len()).sum();
    Baseline::new(numbers, counts.ok()).write(&path)?;
    eprintln!("recorded {rows} rows in {}", path.display());
    Ok(())
}

fn check(how: &How, rows: Option<&Path>, json: bool) -> Result<()> {
    let path = how.path();
    let baseline = Baseline::read(&path)?;
    let mut found = Comparison::default();
    let limit = how.isa.unwrap_or_else(Isa::best);
    let available = |isa: Isa| isa.is_available() && isa <= limit;
    match rows {
        Some(folder) => {
            found.numbers(&baseline.experiments, &gate::read_run(folder)?, &available);
            found.instructions(None, Err("not counted, since an earlier run is compared"));
        }
        None => {
            found.numbers(&baseline.experiments, &how.numbers()?, &available);
            let counts = how.counts()?;
            found.instructions(baseline.instructions.as_ref(), counts.as_ref().map_err(String::as_str));
        }
    }
    if json {
        output::json(&json!({ "baseline": path, "result": found }))?;
    } else {
        report(&found)?;
    }
    found.verdict(&path)
}

fn report(found: &Comparison) -> Result<()> {
    if !found.differences.is_empty() {
        let cells =
            |d: &Difference| [&d.experiment, &d.row, &d.field, &d.baseline, &d.now].map(|cell| cell.to_string());
        let header = ["experiment", "row", "field", "baseline", "now"];
        output::line(&table::plain(header, found.differences.iter().map(cells)))?;
    }
    for skipped in &found.skipped {
        output::line(&format!("not compared: {skipped}"))?;
    }
    output::line(&format!("{} numbers compared, {} differ", found.compared, found.differences.len()))
}
