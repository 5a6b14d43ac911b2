//! What a longer text costs: time of a token and bytes remembered, from a short text to a long one. Attention reads a cache
//! that grows; recurrent models read a memory of one size.

use anyhow::{Context as _, Result};
use engines::{CacheFormat, Model, State};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use crate::contest::{Budget, contest};
use crate::experiment::Experiment;
use crate::lab::Lab;
use crate::quantity::{Determined, Timed, determined};
use crate::report::Section;
use crate::{compute, model, speed};

mod report;

/// The experiment.
pub struct ContextCost;

/// How it is run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// For all models and depths together.
    pub budget: Budget,
    /// How key/value caches are kept: `f32` or `bf16`.
    pub cache: String,
    /// Names in `models/`, folders, files, or `synthetic:SHAPE[:SEED]`.
    pub models: Vec<String>,
    /// Tokens read before the one that is timed, ascending; those beyond a model's context are left out for it.
    pub depths: Vec<usize>,
    /// Tokens that a sample decodes.
    pub steps: usize,
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Row {
    /// What a model remembers.
    Memory(MemoryRow),
    /// A step at a depth.
    Step(StepRow),
}

/// What a model remembers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemoryRow {
    /// As in the configuration.
    pub model: String,
    /// The architecture.
    pub architecture: String,
    /// Numbers in the weights.
    pub parameters: Determined<u64>,
    /// Bytes of weights that a token reads.
    pub weight_bytes: Determined<u64>,
    /// Bytes of cache for each position.
    pub cache_bytes_per_position: Determined<u64>,
    /// Bytes of memory that do not grow.
    pub state_bytes: Determined<u64>,
    /// Positions that the model can tell apart; none where there is no limit.
    pub context: Option<usize>,
}

/// A step at a depth.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StepRow {
    /// As in the configuration.
    pub model: String,
    /// Tokens read before.
    pub depth: usize,
    /// Bytes that the sequence's state holds in memory at this depth.
    pub held_bytes: Determined<u64>,
    /// The time of a step.
    pub step_ms: Timed,
    /// That over the time at the model's least depth, within blocks.
    pub over_shortest: Timed,
}

impl Config {
    fn cache(&self) -> Result<CacheFormat, String> {
        compute::cache(&self.cache).map_err(|error| format!("cache = '{}': {error}", self.cache))
    }
}

impl Experiment for ContextCost {
    const NAME: &'static str = "context";
    const QUESTION: &'static str = "What does a token cost after a short text and after a long one, and from which length on is a memory of one \
         size smaller than a cache?";
    type Config = Config;
    type Row = Row;

    fn check(config: &Config, _lab: &Lab) -> Result<(), String> {
        config.budget.check().map_err(|error| format!("budget: {error}"))?;
        config.cache()?;
        for name in &config.models {
            model::find(name).map_err(|error| format!("models: {error:#}"))?;
        }
        if config.depths.is_empty() || !config.depths.is_sorted_by(|a, b| a < b) {
            return Err(format!("depths = {:?}: expected at least one, ascending", config.depths));
        }
        match config.steps {
            0 => Err("steps = 0: expected at least 1".to_string()),
            _ => Ok(()),
        }
    }

    fn run(config: &Config, lab: &Lab, emit: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        let bar = lab.bar(config.models.len() * (config.depths.len() + 1) + 1, "context");
        let settings = lab.settings(lab.isa, lab.threads, config.cache().map_err(anyhow::Error::msg)?)?;
        let mut contestants = Vec::new();
        for name in &config.models {
            bar.set_message(format!("loading {name}"));
            let model = lab.model(name, &settings)?.model;
            emit(Row::Memory(memory(name, &*model)))?;
            bar.inc(1);
            let mut state = model.start(0);
            for depth in &config.depths {
                if model.facts().holds(depth + config.steps) {
                    bar.set_message(format!("{name}: reading {depth} tokens"));
                    let more = depth - state.len();
                    speed::read_on(&*model, &mut state, more)?;
                    contestants.push(Contestant { name, model: model.clone(), state: state.clone() });
                }
                bar.inc(1);
            }
        }
        bar.set_message("timing steps");
        for step in steps(&mut contestants, config)? {
            emit(Row::Step(step))?;
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn report(config: &Config, rows: &[Row]) -> Section {
        report::section(config, rows)
    }
}

/// A model after a text of some length.
struct Contestant<'c> {
    name: &'c str,
    model: Arc<dyn Model>,
    state: State,
}

fn memory(name: &str, model: &dyn Model) -> MemoryRow {
    let facts = model.facts();
    MemoryRow {
        model: name.to_string(),
        architecture: facts.architecture.to_string(),
        parameters: determined(facts.parameters),
        weight_bytes: determined(facts.linear_bytes + facts.head_bytes + facts.other_bytes),
        cache_bytes_per_position: determined(facts.cache_bytes_per_position),
        state_bytes: determined(facts.state_bytes),
        context: facts.context,
    }
}

/// Times steps of all contestants in the same blocks.
fn steps(contestants: &mut [Contestant<'_>], config: &Config) -> Result<Vec<StepRow>> {
    // What each holds is asked before clones that read on share its memory.
    let facts: Vec<(usize, u64)> = contestants
        .iter()
        .map(|Contestant { model, state, .. }| {
            let facts = model.facts();
            (state.len(), facts.cache_bytes_per_position * state.len() as u64 + facts.state_bytes)
        })
        .collect();
    let samples = contest(contestants.len(), &config.budget, |i| {
        let Contestant { model, state, .. } = &mut contestants[i];
        let depth = state.len();
        let times = speed::decode_from(&**model, state, config.steps)?;
        // A recurrent memory costs the same at any depth, and is read on.
        if model.facts().state_bytes == 0 {
            state.rewind(depth)?;
        }
        // The first step brings the weights of this model back into the caches.
        let counted = &times[usize::from(times.len() > 1)..];
        Ok(counted.iter().sum::<f64>() / counted.len() as f64)
    })?;
    let row = |(i, contestant): (usize, &Contestant<'_>)| {
        let shortest = contestants.iter().position(|other| other.name == contestant.name).context("no such model")?;
        Ok(StepRow {
            model: contestant.name.to_string(),
            depth: facts[i].0,
            held_bytes: determined(facts[i].1),
            step_ms: samples.seconds(i).map(|seconds| seconds * 1e3),
            over_shortest: samples.derived(|time| time(i) / time(shortest)),
        })
    };
    contestants.iter().enumerate().map(row).collect()
}
