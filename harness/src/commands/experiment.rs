//! `harness experiment`: runs experiments and writes the report.

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, bail};
use kernels::Isa;

use crate::cli::UserError;
use crate::contest::Budget;
use crate::experiment::Plan;
use crate::guests::Guests;
use crate::lab::{Lab, Threads};
use crate::machine::{Compiler, Machine};
use crate::memory::MemoryStats;
use crate::record::{self, FORMAT, Folder, Manifest, Planned, State};
use crate::{compute, noise, output, report, root};

/// What `experiment` may be told.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Names in experiments/ or files [default: everything in experiments/ but what runs only by name]
    #[arg(value_name = "NAME|FILE")]
    names: Vec<String>,
    /// Small sizes and few repetitions: shows in two minutes that everything works
    #[arg(long)]
    quick: bool,
    /// Where the run is written [default: runs/DATE-TIME-COMMIT in the repository]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The most threads to use [default: one for each physical core]
    #[arg(long, short = 't', value_name = "N", value_parser = compute::threads)]
    threads: Option<usize>,
    /// The highest ISA level to use: scalar, avx2 or avx512 [default: the best of this CPU]
    #[arg(long, value_name = "LEVEL", value_parser = compute::isa)]
    isa: Option<Isa>,
    /// The seed of everything random
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

/// Runs the experiments.
///
/// # Errors
/// A file that cannot be understood (before anything is measured), an output that cannot be written, or an experiment that
/// failed (after the others have run and the report is written).
pub fn run(args: Args, guests: &Guests) -> Result<()> {
    let plans = plans(&args.names, args.quick)?;
    let machine = Machine::read();
    let threads = args.threads.unwrap_or_else(compute::default_threads);
    let isa = args.isa.map_or_else(Isa::from_environment, Ok)?;
    let lab = Lab::new(machine, threads, isa, args.seed, args.quick).with_ops(&guests.ops);
    for plan in &plans {
        plan.check(&lab)?;
    }
    let started = SystemTime::now();
    let commit = record::commit(&root::root());
    let path = args.out.unwrap_or_else(|| default_folder(started, commit.as_ref().map(|(commit, _)| commit)));
    let folder = Folder::create(&path)?;
    let manifest = manifest(&plans, &lab, started, commit);
    let failed = Run { folder: &folder, manifest, lab: &lab }.all(&plans)?;
    let rendered = report::render(&folder);
    if rendered.is_ok() {
        output::line(&format!("report: {}", folder.path().join("report.html").display()))?;
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    rendered
}

/// The experiments' files, read: those named, or all in `experiments/` but those that run only by name.
fn plans(names: &[String], quick: bool) -> Result<Vec<Plan>> {
    let folder = root::root().join("experiments");
    let known = files(&folder)?;
    let mut plans: Vec<Plan> = Vec::new();
    for path in if names.is_empty() { known.clone() } else { chosen(names, &known)? } {
        let plan = Plan::read(&path, quick)?;
        if plan.only_by_name && names.is_empty() {
            eprintln!(
                "{name}: left out; to run it, read {} and say: experiment {name}",
                path.display(),
                name = plan.name
            );
            continue;
        }
        if plans.iter().any(|other| other.name == plan.name) {
            return Err(UserError::new(format!("two experiments are called {}: run them one by one", plan.name)));
        }
        plans.push(plan);
    }
    if plans.is_empty() {
        return Err(UserError::new(format!("there is no experiment to run in {}", folder.display())));
    }
    Ok(plans)
}

/// The TOML files of a folder, by name; none if there is no such folder.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read the folder {}", folder.display())),
    };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    files.sort();
    Ok(files)
}

fn chosen(names: &[String], known: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let stem = |path: &PathBuf| path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let find = |name: &String| {
        if let Some(path) = known.iter().find(|path| stem(path) == *name) {
            return Ok(path.clone());
        }
        let path = PathBuf::from(name);
        if name.ends_with(".toml") || name.contains(std::path::MAIN_SEPARATOR) {
            return Ok(path); // reading it tells what is wrong with it
        }
        let stems: Vec<String> = known.iter().map(stem).collect();
        Err(UserError::unknown("experiment", name, stems.iter().map(String::as_str), "a file is named by its path"))
    };
    names.iter().map(find).collect()
}

/// `runs/2026-11-21-0205-0123abcd`.
fn default_folder(started: SystemTime, commit: Option<&String>) -> PathBuf {
    let moment = record::timestamp(started);
    let (date, time) = (&moment[..10], moment[11..19].replace(':', ""));
    let commit = commit.and_then(|commit| commit.get(..8)).unwrap_or("no-commit");
    root::root().join("runs").join(format!("{date}-{time}-{commit}"))
}

fn manifest(plans: &[Plan], lab: &Lab, started: SystemTime, commit: Option<(String, bool)>) -> Manifest {
    let planned = |plan: &Plan| Planned {
        name: plan.name.clone(),
        experiment: plan.entry.name.to_string(),
        config: plan.config.clone(),
        state: State::Pending,
        failure: None,
        duration_s: None,
        rows: 0,
    };
    let (commit, tree_clean) = commit.map_or((None, None), |(commit, clean)| (Some(commit), Some(clean)));
    Manifest {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_string(),
        commit,
        tree_clean,
        quick: lab.quick,
        seed: lab.seed,
        threads: lab.threads,
        isa: lab.isa.name().to_string(),
        started: record::timestamp(started),
        duration_s: None,
        machine: lab.machine.clone(),
        compiler: Compiler::read(),
        ceilings: lab.measured_ceilings(),
        noise: Vec::new(),
        memory: None,
        inputs: Vec::new(),
        experiments: plans.iter().map(planned).collect(),
    }
}

/// A run under way.
struct Run<'a> {
    folder: &'a Folder,
    manifest: Manifest,
    lab: &'a Lab,
}

impl Run<'_> {
    /// Runs every experiment; returns the failures, each a sentence.
    fn all(mut self, plans: &[Plan]) -> Result<Vec<String>> {
        let clock = Instant::now();
        self.folder.write_manifest(&self.manifest)?;
        self.lab.ceilings()?;
        let seconds = if self.lab.quick { 0.3 } else { 2.0 };
        let budget = Budget { sample_ms: 1.0, min_blocks: 25, max_blocks: 2000, seconds, precision: 1e-4 };
        self.manifest.noise = noise::measure(self.lab, &Threads::default().resolve(self.lab.threads), &budget)?;
        self.write()?;
        let mut failures = Vec::new();
        for (index, plan) in plans.iter().enumerate() {
            if let Some(failure) = self.one(index, plan)? {
                failures.push(format!("{}: {failure}", plan.name));
            }
        }
        self.manifest.duration_s = Some(clock.elapsed().as_secs_f64());
        self.write()?;
        Ok(failures)
    }

    /// Runs one experiment; returns why it failed, if it did.
    fn one(&mut self, index: usize, plan: &Plan) -> Result<Option<String>> {
        let clock = Instant::now();
        self.manifest.experiments[index].state = State::Running;
        self.write()?;
        let mut file = self.folder.row_file(&plan.name)?;
        let outcome = plan.entry.run(&plan.config, self.lab, &mut |row| file.append(&row));
        let planned = &mut self.manifest.experiments[index];
        planned.rows = file.rows();
        planned.duration_s = Some(clock.elapsed().as_secs_f64());
        planned.failure = outcome.err().map(|error| format!("{error:#}"));
        planned.state = if planned.failure.is_some() { State::Failed } else { State::Complete };
        let failure = planned.failure.clone();
        eprintln!(
            "{}: {} rows in {}",
            plan.name,
            planned.rows,
            report::format::duration(clock.elapsed().as_secs_f64())
        );
        self.write()?;
        if failure.is_none() {
            self.folder.write_columns(&plan.name)?;
        }
        Ok(failure)
    }

    fn write(&mut self) -> Result<()> {
        self.manifest.ceilings = self.lab.measured_ceilings();
        self.manifest.inputs = self.lab.inputs();
        self.manifest.memory = Some(MemoryStats::now());
        self.folder.write_manifest(&self.manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_experiment_is_told_with_those_there_are() {
        let known = [PathBuf::from("experiments/kernels.toml")];
        assert_eq!(chosen(&["kernels".to_string()], &known).unwrap(), known);
        let error = chosen(&["kernel".to_string()], &known).unwrap_err().to_string();
        assert!(error.contains("'kernel' (did you mean 'kernels'?)"), "{error}");
        assert_eq!(chosen(&["./x.toml".to_string()], &known).unwrap(), [PathBuf::from("./x.toml")]);
    }

    #[test]
    fn runs_lie_in_folders_that_sort_by_time() {
        let started = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_795_226_718);
        let folder = default_folder(started, Some(&"0123456789abcdef".to_string()));
        assert!(folder.ends_with("runs/2026-11-21-020518-01234567"), "{}", folder.display());
        assert!(default_folder(started, None).ends_with("runs/2026-11-21-020518-no-commit"));
    }
}
