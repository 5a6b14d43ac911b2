//! The gate: determined numbers of the quick runs, and instruction counts, against what is committed.
//!
//! Determined numbers (perplexities, bytes, counts: see [`crate::quantity`]) are the same on every machine for a seed, so
//! they are compared exactly. Instruction counts repeat to the digit for one compiler and may rise by [`LIMIT`]. Times are
//! not looked at here.
//!
//! A row is known by everything in it that is plainly text, a truth value or a whole number. Rows of an ISA level that
//! this CPU lacks are not compared, and that is said; rows of a level that the baseline never saw must equal those of
//! scalar.

pub mod counts;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use kernels::Isa;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::UserError;
use crate::experiment::Plan;
use crate::lab::Lab;
use crate::machine::Machine;
use crate::record::{self, Folder, State};
use counts::Counts;

/// The version of the baseline's form.
const FORMAT: u32 = 1;

/// Threads of the quick runs, the same everywhere: rows that name a number of threads must find their counterpart.
const THREADS: usize = 2;

/// Seed of the quick runs.
const SEED: u64 = 0;

/// How much more instructions are let through.
pub const LIMIT: f64 = 0.01;

/// The largest baseline that is read, in bytes.
const MAX_BYTES: u64 = 64 << 20;

/// A field's path and its value.
type Fields = BTreeMap<String, Value>;

/// Determined numbers, by experiment's file, row and field.
pub type Numbers = BTreeMap<String, BTreeMap<String, Fields>>;

/// What is committed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// The version of the form.
    format: u32,
    /// Determined numbers of the quick runs.
    pub experiments: Numbers,
    /// Instruction counts, where they could be taken.
    pub instructions: Option<Counts>,
}

impl Baseline {
    /// A baseline of numbers taken now.
    pub fn new(experiments: Numbers, instructions: Option<Counts>) -> Baseline {
        Baseline { format: FORMAT, experiments, instructions }
    }

    /// Reads a baseline.
    ///
    /// # Errors
    /// [`UserError`] for a file that cannot be read or is none.
    pub fn read(path: &Path) -> Result<Baseline> {
        let wrong = |what: String| UserError::new(format!("baseline {}: {what}", path.display()));
        let bytes = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
        if bytes > MAX_BYTES {
            return Err(wrong(format!("{bytes} bytes: at most {MAX_BYTES} are read")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let baseline: Baseline = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if baseline.format != FORMAT {
            return Err(wrong(format!("format {} where {FORMAT} is expected", baseline.format)));
        }
        Ok(baseline)
    }

    /// Writes the baseline, whole or not at all.
    ///
    /// # Errors
    /// [`UserError`] where it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("the baseline cannot be written as JSON")?;
        let part = path.with_extension("json.part");
        std::fs::write(&part, text + "\n")
            .and_then(|()| std::fs::rename(&part, path))
            .map_err(|error| UserError::new(format!("cannot write {}: {error}", path.display())))
    }
}

/// Runs the quick form of every experiment in `files`, except those that run only by name, and gives its determined
/// numbers.
///
/// # Errors
/// An experiment's file that cannot be understood, or an experiment that failed.
pub fn run(files: &[std::path::PathBuf], isa: Isa) -> Result<Numbers> {
    let mut plans: Vec<Plan> = files.iter().map(|file| Plan::read(file, true)).collect::<Result<_>>()?;
    plans.retain(|plan| !plan.only_by_name);
    let lab = Lab::new(Machine::read(), THREADS, isa, SEED, true);
    for plan in &plans {
        plan.check(&lab)?;
    }
    let mut numbers = Numbers::new();
    for plan in &plans {
        let mut rows = Vec::new();
        let outcome = plan.entry.run(&plan.config, &lab, &mut |row| {
            rows.push(row);
            Ok(())
        });
        outcome.with_context(|| format!("experiment {}", plan.name))?;
        numbers.insert(plan.name.clone(), determined(&rows));
    }
    Ok(numbers)
}

/// The determined numbers of a run that was made before.
///
/// # Errors
/// A folder without a run; a run that is not quick, not complete, or was made with another seed or number of threads than
/// baselines are.
pub fn read_run(path: &Path) -> Result<Numbers> {
    let (folder, manifest) = Folder::open(path)?;
    let shown = path.display();
    if !manifest.quick || manifest.seed != SEED || manifest.threads != THREADS {
        let kind = if manifest.quick { "a quick run" } else { "a full run" };
        let (seed, threads) = (manifest.seed, manifest.threads);
        return Err(UserError::new(format!(
            "{shown} is {kind} with seed {seed} and {threads} threads: expected a quick run with seed {SEED} and \
             {THREADS} threads (`harness experiment --quick --threads {THREADS}`)"
        )));
    }
    let mut numbers = Numbers::new();
    for planned in &manifest.experiments {
        ensure!(planned.state == State::Complete, "{shown}: experiment {} is not complete", planned.name);
        numbers.insert(planned.name.clone(), determined(&folder.read_rows(&planned.name)?));
    }
    Ok(numbers)
}

/// The determined numbers of rows, by the row's identity; equal identities are counted.
fn determined(rows: &[Value]) -> BTreeMap<String, Fields> {
    let mut found: BTreeMap<String, Fields> = BTreeMap::new();
    for (identity, fields) in rows.iter().filter_map(record::determined) {
        let mut name = identity.clone();
        let mut number = 1;
        while found.contains_key(&name) {
            number += 1;
            name = format!("{identity} #{number}");
        }
        found.insert(name, fields);
    }
    found
}

/// One number that is not what it was.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The experiment's file, or `instructions`.
    pub experiment: String,
    /// The row, or the benchmark.
    pub row: String,
    /// The field.
    pub field: String,
    /// In the baseline; `missing` where it has none.
    pub baseline: String,
    /// Now; `missing` where there is none.
    pub now: String,
}

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// Numbers that were compared.
    pub compared: usize,
    /// Those that differ.
    pub differences: Vec<Difference>,
    /// What was not compared, and why.
    pub skipped: Vec<String>,
}

impl Comparison {
    /// Fails if anything differs.
    ///
    /// # Errors
    /// A sentence with the counts.
    pub fn verdict(&self, baseline: &Path) -> Result<()> {
        if self.compared == 0 && self.differences.is_empty() {
            bail!("nothing could be compared with {}", baseline.display());
        }
        let (bad, all) = (self.differences.len(), self.compared);
        ensure!(bad == 0, "{bad} differences from {} ({all} numbers compared)", baseline.display());
        Ok(())
    }

    fn differ(&mut self, experiment: &str, row: &str, field: &str, baseline: Option<String>, now: Option<String>) {
        let told = |value: Option<String>| value.unwrap_or_else(|| "missing".to_string());
        self.differences.push(Difference {
            experiment: experiment.to_string(),
            row: row.to_string(),
            field: field.to_string(),
            baseline: told(baseline),
            now: told(now),
        });
    }

    /// Compares determined numbers exactly. `available` says whether this CPU has an ISA level. Rows of a level that the
    /// machine of the baseline lacked must give the numbers of scalar.
    pub fn numbers(&mut self, baseline: &Numbers, now: &Numbers, available: &dyn Fn(Isa) -> bool) {
        let recorded: BTreeSet<Isa> =
            baseline.values().flat_map(BTreeMap::keys).filter_map(|row| isa_of(row)).collect();
        let mut lacking: BTreeMap<Isa, usize> = BTreeMap::new();
        let none = BTreeMap::new();
        for experiment in keys(baseline, now) {
            let (before, after) = (baseline.get(experiment).unwrap_or(&none), now.get(experiment).unwrap_or(&none));
            for row in keys(before, after) {
                if let Some(isa) = isa_of(row).filter(|isa| !available(*isa)) {
                    *lacking.entry(isa).or_default() += 1;
                    continue;
                }
                let scalar = isa_of(row).filter(|isa| !recorded.contains(isa)).map(|isa| row_of_scalar(row, isa));
                match (before.get(scalar.as_ref().unwrap_or(row)), after.get(row)) {
                    (Some(before), Some(after)) => self.fields(experiment, row, before, after),
                    (before, _) => {
                        let (old, new) = if before.is_some() { (Some("a row"), None) } else { (None, Some("a row")) };
                        self.differ(experiment, row, "-", old.map(str::to_string), new.map(str::to_string));
                    }
                }
            }
        }
        let told = lacking.iter().map(|(isa, rows)| format!("{rows} rows of {isa}, which was not run here"));
        self.skipped.extend(told);
    }

    fn fields(&mut self, experiment: &str, row: &str, before: &Fields, after: &Fields) {
        for field in keys(before, after) {
            let (old, new) = (before.get(field), after.get(field));
            self.compared += 1;
            if old != new {
                self.differ(experiment, row, field, old.map(Value::to_string), new.map(Value::to_string));
            }
        }
    }

    /// Compares instruction counts: none may rise by more than [`LIMIT`], none may vanish. `now` is what was counted, or
    /// why nothing was.
    pub fn instructions(&mut self, baseline: Option<&Counts>, now: Result<&Counts, &str>) {
        let (before, after) = match (baseline, now) {
            (_, Err(why)) => return self.skipped.push(format!("instruction counts: {why}")),
            (None, Ok(_)) => return self.skipped.push("instruction counts: the baseline has none".to_string()),
            (Some(before), Ok(after)) => (before, after),
        };
        if before.compiler != after.compiler {
            let (old, new) = (&before.compiler, &after.compiler);
            return self.skipped.push(format!("instruction counts: the baseline's are of {old}, this is {new}"));
        }
        for name in keys(&before.instructions, &after.instructions) {
            let (old, new) = (before.instructions.get(name), after.instructions.get(name));
            self.compared += 1;
            let risen = matches!((old, new), (Some(old), Some(new)) if *new as f64 > *old as f64 * (1.0 + LIMIT));
            if risen || old.is_none() || new.is_none() {
                self.differ("instructions", name, "Ir", old.map(u64::to_string), new.map(u64::to_string));
            }
        }
    }
}

/// The keys of both maps, in order.
fn keys<'a, A, B>(a: &'a BTreeMap<String, A>, b: &'a BTreeMap<String, B>) -> Vec<&'a String> {
    let mut all: Vec<&String> = a.keys().chain(b.keys()).collect();
    all.sort();
    all.dedup();
    all
}

/// The ISA level that a row's identity names.
fn isa_of(row: &str) -> Option<Isa> {
    row.split_whitespace().find_map(|word| word.strip_prefix("isa=")?.parse().ok())
}

/// The same identity for the scalar level.
fn row_of_scalar(row: &str, isa: Isa) -> String {
    row.replace(&format!("isa={isa}"), &format!("isa={}", Isa::Scalar))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn numbers(rows: &[Value]) -> Numbers {
        Numbers::from([("perplexity".to_string(), determined(rows))])
    }

    fn compared(before: &[Value], after: &[Value]) -> Comparison {
        let mut comparison = Comparison::default();
        comparison.numbers(&numbers(before), &numbers(after), &|isa| isa != Isa::Avx512);
        comparison
    }

    #[test]
    fn the_last_bit_of_a_determined_number_counts_and_times_do_not() {
        let row = |nats: f64, seconds: f64| {
            json!({ "model": "a", "isa": "avx2", "nats": { "exact": nats },
                "seconds": { "median": seconds, "low": seconds, "high": seconds, "n": 1 } })
        };
        let same = compared(&[row(1.25, 1.0)], &[row(1.25, 2.0)]);
        assert_eq!((same.compared, same.differences.len()), (1, 0));
        assert!(same.verdict(Path::new("gate.json")).is_ok());
        let next = f64::from_bits(1.25f64.to_bits() + 1);
        let other = compared(&[row(1.25, 1.0)], &[row(next, 1.0)]);
        assert_eq!(other.differences.len(), 1);
        assert_eq!((other.differences[0].baseline.as_str(), other.differences[0].field.as_str()), ("1.25", "nats"));
        assert!(other.verdict(Path::new("gate.json")).is_err());
    }

    #[test]
    fn rows_that_vanish_or_appear_are_differences_unless_the_cpu_lacks_their_level() {
        let row = |isa: &str| json!({ "isa": isa, "bytes": { "exact": 1 } });
        assert_eq!(compared(&[row("scalar"), row("avx2")], &[row("scalar")]).differences.len(), 1);
        let both = [row("scalar"), row("avx2")];
        let more = json!({ "isa": "avx2", "op": "more", "bytes": { "exact": 1 } });
        assert_eq!(compared(&both, &[row("scalar"), row("avx2"), more]).differences.len(), 1);
        let lacking = compared(&[row("scalar"), row("avx512")], &[row("scalar")]);
        assert!(lacking.differences.is_empty() && lacking.skipped == ["1 rows of avx512, which was not run here"]);
    }

    #[test]
    fn rows_of_a_level_that_the_baseline_never_saw_must_equal_those_of_scalar() {
        let row = |isa: &str, digest: u32| json!({ "isa": isa, "op": "a", "digest": { "exact": digest } });
        let before = [row("scalar", 1)];
        let same = compared(&before, &[row("scalar", 1), row("avx2", 1)]);
        assert_eq!((same.compared, same.differences.len()), (2, 0));
        let other = compared(&before, &[row("scalar", 1), row("avx2", 2)]);
        assert_eq!(other.differences.len(), 1);
        assert!(other.differences[0].row.contains("avx2"));
        let unknown = json!({ "isa": "avx2", "op": "b", "digest": { "exact": 1 } });
        assert_eq!(compared(&before, &[row("scalar", 1), unknown]).differences.len(), 1);
    }

    #[test]
    fn comparing_nothing_is_a_failure() {
        assert!(compared(&[], &[]).verdict(Path::new("gate.json")).is_err());
    }

    #[test]
    fn equal_rows_are_told_apart_by_their_order() {
        let row = |value: u32| json!({ "case": "a", "x": { "exact": value } });
        assert!(compared(&[row(1), row(2)], &[row(1), row(2)]).differences.is_empty());
        assert_eq!(compared(&[row(1), row(2)], &[row(2), row(1)]).differences.len(), 2);
    }

    #[test]
    fn instructions_may_rise_by_one_percent_and_fall_freely() {
        let counts = |n: u64| Counts {
            compiler: "rustc 1".to_string(),
            instructions: BTreeMap::from([("scalar ternary_i2".to_string(), n)]),
        };
        let found = |now: Result<&Counts, &str>| {
            let mut comparison = Comparison::default();
            comparison.instructions(Some(&counts(10_000)), now);
            (comparison.differences.len(), comparison.skipped.len())
        };
        assert_eq!(found(Ok(&counts(10_100))), (0, 0));
        assert_eq!(found(Ok(&counts(10_101))), (1, 0));
        assert_eq!(found(Ok(&counts(5_000))), (0, 0));
        assert_eq!(found(Err("valgrind is not installed")), (0, 1));
        let newer = Counts { compiler: "rustc 2".to_string(), ..counts(20_000) };
        assert_eq!(found(Ok(&newer)), (0, 1));
    }

    #[test]
    fn a_baseline_survives_its_file_and_a_wrong_one_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate.json");
        let row = json!({ "case": "a", "x": { "exact": 0.1 + 0.2 } });
        let baseline = Baseline::new(numbers(&[row]), None);
        baseline.write(&path).unwrap();
        assert_eq!(Baseline::read(&path).unwrap(), baseline);
        for (text, part) in [
            ("{", "EOF"),
            ("{\"format\":1,\"extra\":2}", "extra"),
            ("{\"format\":9,\"experiments\":{},\"instructions\":null}", "format 9"),
        ] {
            std::fs::write(&path, text).unwrap();
            let message = Baseline::read(&path).unwrap_err().to_string();
            assert!(message.contains(part) && message.contains("gate.json"), "{message}");
        }
        assert!(Baseline::read(&folder.path().join("none.json")).is_err());
    }
}
