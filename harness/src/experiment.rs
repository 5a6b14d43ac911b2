//! What an experiment is, how its file is read, and the list of all.
//!
//! An experiment is run from a file in `experiments/`: which one, its configuration, and what a quick run changes.
//!
//! ```toml
//! experiment = "kernels"
//!
//! [config]
//! threads = [1, "all"]
//!
//! [quick]            # merged over [config] by --quick
//! threads = [1]
//! ```
//!
//! With `only_by_name = true` before `[config]` it runs when it is named, and is left out where everything runs: it needs
//! something that the repository does not hold.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::UserError;
use crate::experiments::{
    architectures::Architectures, context::ContextCost, kernels::KernelSpeeds, long_context::LongContext,
    perplexity::Perplexity, predicted::Predicted, rivals::Rivals, synthetic_tasks::SyntheticTasks,
    throughput::Throughput,
};
use crate::lab::Lab;
use crate::report::Section;

/// A kind of experiment.
pub trait Experiment {
    /// As it is called in files and reports.
    const NAME: &'static str;
    /// What it answers: one sentence, printed under the section's title.
    const QUESTION: &'static str;
    /// How it is run. Must refuse fields that it does not know (`deny_unknown_fields`).
    type Config: Serialize + DeserializeOwned;
    /// One measurement. Units stand in the names of fields; determined and timed numbers are told apart by type
    /// ([`crate::quantity`]).
    type Row: Serialize + DeserializeOwned;

    /// Whether values that can be read also make sense.
    ///
    /// # Errors
    /// A sentence that names the field, what is expected and what was found.
    fn check(config: &Self::Config, lab: &Lab) -> Result<(), String>;

    /// Measures, and hands over each row as soon as it is known.
    ///
    /// # Errors
    /// Whatever keeps it from measuring, and what `emit` returns; also a result that cannot be true.
    fn run(config: &Self::Config, lab: &Lab, emit: &mut dyn FnMut(Self::Row) -> Result<()>) -> Result<()>;

    /// What the rows say. Pure: no clock, no files, no model; and some rows may be missing, since runs can be cut short.
    fn report(config: &Self::Config, rows: &[Self::Row]) -> Section;
}

/// Where rows go: each is written before the next is measured.
pub type Emit<'a> = dyn FnMut(Value) -> Result<()> + 'a;

/// An experiment with its types erased: a line of [`EXPERIMENTS`].
#[derive(Clone, Copy)]
pub struct Entry {
    /// See [`Experiment::NAME`].
    pub name: &'static str,
    /// See [`Experiment::QUESTION`].
    pub question: &'static str,
    read: fn(&str, bool) -> Result<Value, String>,
    check: fn(&Value, &Lab) -> Result<()>,
    run: fn(&Value, &Lab, &mut Emit<'_>) -> Result<()>,
    report: fn(&Value, &[Value]) -> Result<Section>,
}

/// Makes the line of an experiment.
pub const fn entry<E: Experiment>() -> Entry {
    Entry {
        name: E::NAME,
        question: E::QUESTION,
        read: read_config::<E>,
        check: |config, lab| E::check(&typed::<E>(config)?, lab).map_err(UserError::new),
        run: |config, lab, emit| {
            E::run(&typed::<E>(config)?, lab, &mut |row| {
                emit(serde_json::to_value(row).context("a row cannot be written as JSON")?)
            })
        },
        report: |config, rows| {
            let row = |(i, row): (usize, &Value)| {
                E::Row::deserialize(row).with_context(|| format!("row {} is not of the experiment {}", i + 1, E::NAME))
            };
            let rows: Vec<E::Row> = rows.iter().enumerate().map(row).collect::<Result<_>>()?;
            Ok(E::report(&typed::<E>(config)?, &rows))
        },
    }
}

/// Every experiment.
pub const EXPERIMENTS: &[Entry] = &[
    entry::<KernelSpeeds>(),
    entry::<Throughput>(),
    entry::<ContextCost>(),
    entry::<Perplexity>(),
    entry::<Architectures>(),
    entry::<LongContext>(),
    entry::<SyntheticTasks>(),
    entry::<Predicted>(),
    entry::<Rivals>(),
];

fn typed<E: Experiment>(config: &Value) -> Result<E::Config> {
    E::Config::deserialize(config).with_context(|| format!("not a configuration of the experiment {}", E::NAME))
}

impl Entry {
    /// The experiment of a name.
    pub fn find(name: &str) -> Option<&'static Entry> {
        EXPERIMENTS.iter().find(|entry| entry.name == name)
    }

    /// Runs it.
    ///
    /// # Errors
    /// See [`Experiment::run`].
    pub fn run(&self, config: &Value, lab: &Lab, emit: &mut Emit<'_>) -> Result<()> {
        (self.run)(config, lab, emit)
    }

    /// What rows say.
    ///
    /// # Errors
    /// The configuration or a row is not of this experiment.
    pub fn report(&self, config: &Value, rows: &[Value]) -> Result<Section> {
        (self.report)(config, rows)
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("name", &self.name).finish_non_exhaustive()
    }
}

/// An experiment's file, read and found in order.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The file's name without `.toml`.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Which experiment.
    pub entry: Entry,
    /// Its whole configuration: `[config]`, defaults, and `[quick]` in a quick run.
    pub config: Value,
    /// Whether it is left out where everything runs.
    pub only_by_name: bool,
}

impl Plan {
    /// Reads a file, with `[quick]` merged over `[config]` if `quick`.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, names no known experiment, or holds a key or value that its experiment does
    /// not know. All of these are the user's to mend.
    pub fn read(path: &Path, quick: bool) -> Result<Plan> {
        let wrong = |what: String| UserError::new(format!("{}: {what}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let table: toml::Table = text.parse().map_err(|error| wrong(told(&text, &error)))?;
        let named = match table.get("experiment") {
            Some(toml::Value::String(name)) => name.clone(),
            _ => return Err(wrong(format!("expected experiment = \"NAME\", one of {}", names()))),
        };
        let entry = *Entry::find(&named)
            .ok_or_else(|| wrong(format!("there is no experiment '{named}': expected one of {}", names())))?;
        // The quick form is read as well, so that a mistake in it is not found only by those in a hurry.
        let (full, short) = ((entry.read)(&text, false), (entry.read)(&text, true));
        let (full, short) = (full.map_err(wrong)?, short.map_err(wrong)?);
        let name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let only_by_name = table.get("only_by_name").and_then(toml::Value::as_bool).unwrap_or(false);
        Ok(Plan { name, path: path.to_path_buf(), entry, config: if quick { short } else { full }, only_by_name })
    }

    /// Whether its values make sense on this machine.
    ///
    /// # Errors
    /// A sentence that names file and field; the user's to mend.
    pub fn check(&self, lab: &Lab) -> Result<()> {
        (self.entry.check)(&self.config, lab)
            .map_err(|error| UserError::new(format!("{}: {error}", self.path.display())))
    }
}

fn names() -> String {
    EXPERIMENTS.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ")
}

/// An experiment's file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<C> {
    #[serde(rename = "experiment")]
    _experiment: String,
    #[serde(default, rename = "only_by_name")]
    _only_by_name: bool,
    config: C,
    #[serde(default)]
    quick: toml::Table,
}

/// The whole configuration of a file, as JSON.
fn read_config<E: Experiment>(text: &str, quick: bool) -> Result<Value, String> {
    let document: Document<E::Config> = toml::from_str(text).map_err(|error| told(text, &error))?;
    if !quick {
        return json(&document.config);
    }
    let whole: Document<toml::Table> = toml::from_str(text).map_err(|error| told(text, &error))?;
    let mut merged = whole.config;
    merge(&mut merged, document.quick);
    // Places in the text are lost by merging, hence the table's name.
    let config: E::Config =
        merged.try_into().map_err(|error: toml::de::Error| format!("[quick]: {}", one_line(&error)))?;
    json(&config)
}

fn json(config: &impl Serialize) -> Result<Value, String> {
    serde_json::to_value(config).map_err(|error| format!("the configuration cannot be recorded as JSON: {error}"))
}

/// Tables are merged field by field; anything else is replaced.
fn merge(under: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => merge(below, above),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

/// An error of TOML as one sentence with its line.
fn told(text: &str, error: &toml::de::Error) -> String {
    match error.span() {
        Some(span) => {
            let line = text.get(..span.start).unwrap_or(text).matches('\n').count() + 1;
            format!("line {line}: {}", one_line(error))
        }
        None => one_line(error),
    }
}

fn one_line(error: &toml::de::Error) -> String {
    error.message().split_whitespace().collect::<Vec<_>>().join(" ")
}
