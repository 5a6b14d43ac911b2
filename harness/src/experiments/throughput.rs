//! Tokens a second of whole models: reading prompts and decoding, by ISA and threads, held to the machine's ceilings.

use anyhow::{Context, Result};
use engines::{CacheFormat, Facts, Loaded, Model};
use kernels::Isa;
use serde::{Deserialize, Serialize};

use crate::contest::Budget;
use crate::experiment::Experiment;
use crate::lab::{Lab, Threads};
use crate::quantity::{Determined, Timed, determined};
use crate::report::Section;
use crate::{compute, model, speed};

mod bench;
mod report;

/// The experiment.
pub struct Throughput;

/// How it is run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// For each test of a model.
    pub budget: Budget,
    /// For tests that name none.
    #[serde(default)]
    pub threads: Threads,
    /// How the key/value cache is kept: `f32` or `bf16`.
    pub cache: String,
    /// Models with more parameters are not run on scalar.
    pub scalar_parameters: u64,
    /// What to time.
    pub models: Vec<ModelTests>,
}

/// Tests of one model.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelTests {
    /// A name in `models/`, a folder, a file, or `synthetic:SHAPE[:SEED]`.
    pub model: String,
    /// The same model packed otherwise, timed in the same blocks on the highest level: options as a model's name may end
    /// in, for example `"layout=t5+head=q8"`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packings: Vec<String>,
    /// What to time of it.
    pub tests: Vec<Test>,
}

/// One thing to time: either `prefill` or `decode`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Test {
    /// Read a prompt of so many tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill: Option<usize>,
    /// Decode so many tokens, one after the other, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode: Option<usize>,
    /// ... after so many that were read before. Bounded by the model's context.
    #[serde(default)]
    pub depth: usize,
    /// Which ISA levels take part.
    #[serde(default)]
    pub levels: Levels,
    /// Whether the model's other packings stay out of it.
    #[serde(default)]
    pub only_plain: bool,
    /// Numbers of threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<Threads>,
}

/// Which ISA levels take part in a test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Levels {
    /// The highest.
    #[default]
    Best,
    /// Every one; scalar only for small models.
    All,
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Row {
    /// A model that was loaded.
    Model(Box<ModelRow>),
    /// The speed of a model in one setting.
    Speed(Box<SpeedRow>),
}

/// A model that was loaded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelRow {
    /// As in the configuration.
    pub model: String,
    /// The architecture.
    pub architecture: String,
    /// How the weights are stored.
    pub weights: String,
    /// Numbers in the weights.
    pub parameters: Determined<u64>,
    /// Positions that the model can tell apart; none where there is no limit.
    pub context: Option<usize>,
    /// Bytes that a token reads of the linear layers.
    pub linear_bytes: Determined<u64>,
    /// Bytes that a token reads of the head.
    pub head_bytes: Determined<u64>,
    /// Bytes that a token reads beside these and the cache.
    pub other_bytes: Determined<u64>,
    /// Bytes of cache that a token reads for each earlier position.
    pub cache_bytes_per_position: Determined<u64>,
    /// Bytes of recurrent memory, which every token reads and writes.
    #[serde(default)]
    pub state_bytes: Determined<u64>,
    /// Operations of a token in the linear layers.
    pub linear_operations: Determined<u64>,
    /// Operations of a token in the head.
    pub head_operations: Determined<u64>,
    /// How long loading or generating took; once.
    pub load_s: Timed,
    /// By how much the process grew in memory from before loading to after the first token; absent where the system does
    /// not tell.
    pub resident_bytes: Option<Timed>,
}

/// The speed of a model in one setting.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SpeedRow {
    /// As in the configuration.
    pub model: String,
    /// `prefill` or `decode`.
    pub test: String,
    /// Tokens of the prompt, or decoded in a sample.
    pub tokens: usize,
    /// Tokens that were read before.
    pub depth: usize,
    /// The level.
    pub isa: String,
    /// Threads.
    pub threads: usize,
    /// How the cache was kept.
    pub cache: String,
    /// Tokens a second.
    pub tokens_per_s: Timed,
    /// Prefill: time to the first token's logits, in milliseconds. Decode: time of a step.
    pub wait_ms: Timed,
    /// Bytes of the linear layers that a token (decode) or the whole prompt (prefill) must read.
    pub linear_bytes: u64,
    /// The same of the head.
    pub head_bytes: u64,
    /// The same of norms, biases and embedding.
    pub other_bytes: u64,
    /// The same of the cache, or of recurrent memory read and written.
    pub cache_bytes: u64,
    /// Operations of the linear layers for a token (decode) or the whole prompt (prefill).
    pub linear_operations: u64,
    /// The same of the head.
    pub head_operations: u64,
    /// Read bandwidth of so many threads on data of the same size, in the same blocks, 10^9 bytes a second.
    pub ceiling_gb_per_s: Timed,
    /// How it was measured.
    pub ceiling_by: String,
    /// Peak of the linear layers' arithmetic on so many threads, in the same blocks.
    pub ceiling_gops: Timed,
    /// Which arithmetic that is.
    pub arithmetic: String,
    /// Bytes that had to be read a second, over the bandwidth.
    pub share_of_bandwidth: Timed,
    /// Operations that had to be done a second, in units of what the peaks allow.
    pub share_of_peak: Timed,
    /// Decode on several threads: what handing over between them takes when there is nothing else to do, over the time of a
    /// step, within blocks.
    pub share_of_handover: Option<Timed>,
    /// How many times as fast as on one thread, within blocks.
    pub speedup_over_one_thread: Option<Timed>,
    /// The level below that took part.
    pub below: Option<String>,
    /// How many times as fast as that on as many threads, within blocks.
    pub speedup_over_below: Option<Timed>,
    /// The model that this one is another packing of.
    #[serde(default)]
    pub plain: Option<String>,
    /// How many times as fast as that on the same level and as many threads, within blocks.
    #[serde(default)]
    pub speedup_over_plain: Option<Timed>,
}

impl Config {
    fn cache(&self) -> Result<CacheFormat, String> {
        compute::cache(&self.cache).map_err(|error| format!("cache = '{}': {error}", self.cache))
    }
}

impl ModelTests {
    /// The model as it is named, then in its other packings.
    fn names(&self) -> Vec<String> {
        let others = self.packings.iter().map(|options| format!("{}+{options}", self.model));
        std::iter::once(self.model.clone()).chain(others).collect()
    }
}

impl Test {
    fn check(&self) -> Result<(), String> {
        self.threads.as_ref().map_or(Ok(()), Threads::check)?;
        match (self.prefill, self.decode) {
            (Some(1..), None) | (None, Some(1..)) => Ok(()),
            _ => Err("a test needs either prefill = TOKENS or decode = TOKENS, at least 1".to_string()),
        }
    }
}

impl Experiment for Throughput {
    const NAME: &'static str = "throughput";
    const QUESTION: &'static str = "How many tokens a second do whole models read and write on each ISA and number of \
                                    threads, and which share of the machine's bandwidth and arithmetic is that?";
    type Config = Config;
    type Row = Row;

    fn check(config: &Config, _lab: &Lab) -> Result<(), String> {
        config.budget.check().map_err(|error| format!("budget: {error}"))?;
        config.threads.check()?;
        config.cache()?;
        for entry in &config.models {
            for name in entry.names() {
                model::find(&name).map_err(|error| format!("models: {error:#}"))?;
            }
            entry.tests.iter().try_for_each(Test::check).map_err(|error| format!("{}: {error}", entry.model))?;
        }
        Ok(())
    }

    fn run(config: &Config, lab: &Lab, emit: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        let steps = config.models.iter().map(|entry| entry.tests.len() + 1 + entry.packings.len()).sum();
        let bar = lab.bar(steps, "throughput");
        for entry in &config.models {
            let mut packings = Vec::new();
            for name in entry.names() {
                bar.set_message(format!("loading {name}"));
                let (loaded, row) = load(config, &name, lab)?;
                emit(Row::Model(Box::new(row)))?;
                packings.push((name, loaded.model));
                bar.inc(1);
            }
            let facts = packings[0].1.facts();
            let mut done = Vec::new();
            for test in &entry.tests {
                bar.set_message(format!("{}, {}", entry.model, told(test)));
                let test = bounded(test, &facts);
                let name = (test.prefill, test.decode, test.depth, test.levels, test.only_plain);
                if !done.contains(&name) {
                    done.push(name);
                    let packings = if test.only_plain { &packings[..1] } else { &packings[..] };
                    let rows = bench::speeds(packings, &test, config, lab)
                        .with_context(|| format!("{}, {}", entry.model, told(&test)))?;
                    rows.into_iter().try_for_each(|row| emit(Row::Speed(Box::new(row))))?;
                }
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn report(config: &Config, rows: &[Row]) -> Section {
        report::section(config, rows)
    }
}

fn told(test: &Test) -> String {
    match (test.prefill, test.decode) {
        (Some(prompt), _) => format!("prefill {prompt}"),
        (_, Some(steps)) => format!("decode {steps} at depth {}", test.depth),
        _ => String::new(),
    }
}

/// The test within the model's context: a prompt is cut, and decoding starts earlier.
fn bounded(test: &Test, facts: &Facts) -> Test {
    let mut test = test.clone();
    let Some(context) = facts.context else { return test };
    test.prefill = test.prefill.map(|prompt| prompt.min(context));
    test.decode = test.decode.map(|steps| steps.min(context));
    test.depth = test.depth.min(context - test.decode.unwrap_or(0));
    test
}

/// Loads a model on the best level and all threads; others share its weights.
fn load(config: &Config, name: &str, lab: &Lab) -> Result<(Loaded, ModelRow)> {
    let settings = lab.settings(lab.isa, lab.threads, config.cache().map_err(anyhow::Error::msg)?)?;
    let before = speed::resident_bytes().ok();
    let clock = std::time::Instant::now();
    let loaded = lab.model(name, &settings)?;
    let seconds = clock.elapsed().as_secs_f64();
    speed::prefill(loaded.model.as_ref(), 1)?;
    let after = speed::resident_bytes().ok();
    let facts = loaded.model.facts();
    let row = ModelRow {
        model: name.to_string(),
        architecture: facts.architecture.to_string(),
        weights: facts.weights.clone(),
        parameters: determined(facts.parameters),
        context: facts.context,
        linear_bytes: determined(facts.linear_bytes),
        head_bytes: determined(facts.head_bytes),
        other_bytes: determined(facts.other_bytes),
        cache_bytes_per_position: determined(facts.cache_bytes_per_position),
        state_bytes: determined(facts.state_bytes),
        linear_operations: determined(facts.linear_operations),
        head_operations: determined(facts.head_operations),
        load_s: Timed::once(seconds),
        resident_bytes: before.zip(after).map(|(before, after)| Timed::once(after.saturating_sub(before) as f64)),
    };
    Ok((loaded, row))
}

/// The levels that take part in a test.
fn levels(test: &Test, model: &dyn Model, config: &Config, lab: &Lab) -> Vec<Isa> {
    let available: Vec<Isa> = lab.tables().iter().map(|table| table.isa()).collect();
    let small = model.facts().parameters <= config.scalar_parameters;
    match test.levels {
        Levels::Best => available.last().copied().into_iter().collect(),
        Levels::All => available.into_iter().filter(|isa| small || *isa != Isa::Scalar).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_reads_or_decodes_but_not_both() {
        let test = |text: &str| toml::from_str::<Test>(text).unwrap().check();
        assert!(test("prefill = 128").is_ok());
        assert!(test("decode = 8\ndepth = 100\nlevels = \"all\"").is_ok());
        assert!(test("decode = 8\nprefill = 3").is_err());
        assert!(test("depth = 8").is_err());
        assert!(test("prefill = 0").is_err());
        assert!(toml::from_str::<Test>("prefil = 1").unwrap_err().message().contains("unknown field `prefil`"));
    }
}
