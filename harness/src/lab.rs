//! What an experiment is given: threads, ISA levels, seed, ops, models, texts, ceilings, progress.

use std::cell::{OnceCell, RefCell};
use std::path::Path;

use anyhow::{Context, Result};
use engines::{CacheFormat, Cpu, Loaded, Packing, Settings};
use indicatif::ProgressBar;
use kernels::probe::{OPS, Probe};
use kernels::{Isa, Kernels};
use serde::{Deserialize, Serialize};

use crate::ceilings::Ceilings;
use crate::contest::Budget;
use crate::dataset::Text;
use crate::machine::Machine;
use crate::record::Input;
use crate::{checksum, dataset, model, progress};

/// The surroundings of a run.
pub struct Lab {
    /// The most threads to use.
    pub threads: usize,
    /// The highest ISA level to use.
    pub isa: Isa,
    /// The seed of everything random.
    pub seed: u64,
    /// Whether this is a quick run.
    pub quick: bool,
    /// The machine.
    pub machine: Machine,
    ops: Vec<Probe>,
    ceilings: OnceCell<Ceilings>,
    inputs: RefCell<Vec<Input>>,
}

impl Lab {
    /// A lab with the ops of [`OPS`].
    pub fn new(machine: Machine, threads: usize, isa: Isa, seed: u64, quick: bool) -> Lab {
        Lab {
            threads,
            isa,
            seed,
            quick,
            machine,
            ops: OPS.to_vec(),
            ceilings: OnceCell::new(),
            inputs: RefCell::new(Vec::new()),
        }
    }

    /// The lab with ops of an outside crate beside our own: they are checked, timed and reported alike.
    #[must_use]
    pub fn with_ops(mut self, ops: &[Probe]) -> Lab {
        self.ops.extend_from_slice(ops);
        self
    }

    /// Every op.
    pub fn ops(&self) -> &[Probe] {
        &self.ops
    }

    /// The tables of the levels that this CPU has and that the run may use, lowest first.
    pub fn tables(&self) -> Vec<&'static Kernels> {
        Kernels::available().filter(|kernels| kernels.isa() <= self.isa).collect()
    }

    /// Settings of models for a level and a number of threads.
    ///
    /// # Errors
    /// A level that the CPU lacks, or threads that the system refuses.
    pub fn settings(&self, isa: Isa, threads: usize, cache: CacheFormat) -> Result<Settings> {
        Ok(Settings { cpu: Cpu::new(isa, threads)?, cache, packing: Packing::default() })
    }

    /// The ceilings of this machine, measured when they are first asked for and kept for the run.
    ///
    /// # Errors
    /// They cannot be measured.
    pub fn ceilings(&self) -> Result<&Ceilings> {
        if let Some(ceilings) = self.ceilings.get() {
            return Ok(ceilings);
        }
        let threads = Threads::default().resolve(self.threads);
        let seconds = if self.quick { 0.06 } else { 0.4 };
        let budget = Budget { sample_ms: 4.0, min_blocks: 5, max_blocks: 60, seconds, precision: 0.005 };
        let bar = progress::count(threads.len() as u64 * 5, "ceilings");
        let measured = Ceilings::measure(&self.machine, &threads, &budget, &mut |what| {
            bar.set_message(what.to_string());
            bar.inc(1);
        });
        bar.finish_and_clear();
        let measured = measured.context("the machine's ceilings cannot be measured")?;
        Ok(self.ceilings.get_or_init(|| measured))
    }

    /// What was measured of the ceilings so far.
    pub fn measured_ceilings(&self) -> Ceilings {
        self.ceilings.get().cloned().unwrap_or_default()
    }

    /// Loads a model and notes its checksum for the manifest.
    ///
    /// # Errors
    /// It does not exist or cannot be loaded.
    pub fn model(&self, spec: &str, settings: &Settings) -> Result<Loaded> {
        let loaded = model::load(spec, settings)?;
        self.note("model", spec, model::checksum(spec)?);
        Ok(loaded)
    }

    /// Reads a text and notes its checksum for the manifest.
    ///
    /// # Errors
    /// It does not exist, was not fetched or cannot be read.
    pub fn text(&self, name: &str) -> Result<Text> {
        let text = dataset::text(name)?;
        self.note("dataset", name, Some(text.sha256.clone()));
        Ok(text)
    }

    /// Notes a file of the user's own, and its checksum, for the manifest.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn file(&self, kind: &str, name: &str, path: &Path) -> Result<()> {
        self.note(kind, name, Some(checksum::of_file(path)?));
        Ok(())
    }

    fn note(&self, kind: &str, name: &str, sha256: Option<String>) {
        let input = Input { kind: kind.to_string(), name: name.to_string(), sha256 };
        let mut inputs = self.inputs.borrow_mut();
        if !inputs.contains(&input) {
            inputs.push(input);
        }
    }

    /// Texts and weights that were read so far.
    pub fn inputs(&self) -> Vec<Input> {
        self.inputs.borrow().clone()
    }

    /// A bar on standard error for `steps` steps of `what`.
    pub fn bar(&self, steps: usize, what: &str) -> ProgressBar {
        progress::count(steps as u64, what)
    }
}

/// Numbers of threads in a configuration: `[1, 2, "all"]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Threads(Vec<ThreadCount>);

/// A number of threads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected numbers of threads, such as [1, 2] or [1, \"all\"]")]
enum ThreadCount {
    Number(usize),
    All(All),
}

/// As many as the run may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum All {
    #[serde(rename = "all")]
    All,
}

impl Default for Threads {
    /// One, and all.
    fn default() -> Threads {
        Threads(vec![ThreadCount::Number(1), ThreadCount::All(All::All)])
    }
}

impl Threads {
    /// These numbers.
    pub fn counts(numbers: &[usize]) -> Threads {
        Threads(numbers.iter().copied().map(ThreadCount::Number).collect())
    }

    /// The numbers in rising order, without those above `most`; `most` itself where none is left.
    pub fn resolve(&self, most: usize) -> Vec<usize> {
        let number = |count: &ThreadCount| match count {
            ThreadCount::Number(number) => *number,
            ThreadCount::All(_) => most,
        };
        let mut numbers: Vec<usize> = self.0.iter().map(number).filter(|n| (1..=most).contains(n)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        if numbers.is_empty() { vec![most] } else { numbers }
    }

    /// # Errors
    /// No number at all, or 0.
    pub fn check(&self) -> Result<(), String> {
        if self.0.is_empty() || self.0.contains(&ThreadCount::Number(0)) {
            return Err("threads: expected at least one number, none of them 0, or \"all\"".to_string());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads(text: &str) -> Result<Threads, toml::de::Error> {
        #[derive(Deserialize)]
        struct Holder {
            threads: Threads,
        }
        toml::from_str::<Holder>(text).map(|holder| holder.threads)
    }

    #[test]
    fn numbers_of_threads_fit_the_machine() {
        let two = threads("threads = [\"all\", 1, 2, 64]").unwrap();
        assert_eq!(two.resolve(4), [1, 2, 4]);
        assert_eq!(two.resolve(1), [1]);
        assert_eq!(threads("threads = [8]").unwrap().resolve(2), [2]);
        assert_eq!(Threads::default().resolve(2), [1, 2]);
        assert!(threads("threads = [0]").unwrap().check().is_err());
        let error = threads("threads = [\"some\"]").unwrap_err();
        assert!(error.message().contains("[1, \"all\"]"), "{error}");
    }

    #[test]
    fn outside_ops_stand_beside_our_own() {
        let outside = Probe { name: "outside/op", ..OPS[0] };
        let lab = Lab::new(Machine::read(), 1, Isa::Scalar, 0, true).with_ops(&[outside]);
        assert_eq!(lab.ops().len(), OPS.len() + 1);
        assert_eq!(lab.tables().len(), 1);
    }
}
