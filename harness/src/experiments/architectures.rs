//! Architectures beside each other: models of like size, trained on the same text with the same tokenizer and budget,
//! by how well they predict, what a token must read, what a sequence must remember, and how fast they run.

use anyhow::Result;
use engines::{CacheFormat, Facts, Loaded, Model};
use serde::{Deserialize, Serialize};

use crate::cli::UserError;
use crate::contest::Budget;
use crate::dataset::{self, Text};
use crate::experiment::Experiment;
use crate::experiments::perplexity::ScoreRow;
use crate::lab::Lab;
use crate::quantity::{Determined, Timed, determined};
use crate::report::Section;
use crate::score::{Score, ScoreConfig, score};
use crate::{compute, difference, model};

mod report;
mod speeds;

/// The experiment.
pub struct Architectures;

/// How it is run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Names in `models/`, folders or files, all of one tokenizer; the first is what the others are compared with.
    pub models: Vec<String>,
    /// Texts that no model was trained on.
    pub datasets: Vec<String>,
    /// Positions to a window.
    pub context: usize,
    /// No more tokens of a text than these are scored.
    pub max_tokens: usize,
    /// How often blocks are drawn again for the interval of a difference.
    pub resamples: usize,
    /// How key/value caches are kept while speed is measured: `f32` or `bf16`.
    pub cache: String,
    /// Numbers of tokens for which it is said what a sequence holds in memory, ascending; those beyond a model's
    /// context are left out for it.
    pub depths: Vec<usize>,
    /// Decoding.
    pub decode: Decode,
    /// Tokens of the prompt whose reading is timed.
    pub prefill: usize,
    /// For the timing of all models together.
    pub budget: Budget,
}

/// How decoding is timed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decode {
    /// Tokens read before.
    pub depth: usize,
    /// Tokens that a sample decodes, one after the other.
    pub steps: usize,
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Row {
    /// A text that is not on this machine.
    Absent {
        /// The text.
        dataset: String,
        /// How to get it.
        remedy: String,
    },
    /// A model.
    Model(ModelRow),
    /// What a sequence of some length costs.
    Memory(MemoryRow),
    /// How well a model predicts a text.
    Score(Box<ScoreRow>),
    /// A model against the first.
    Difference(DifferenceRow),
    /// How fast a model runs.
    Speed(Box<SpeedRow>),
}

/// A model.
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
    /// Bytes of weights that a token reads.
    pub weight_bytes: Determined<u64>,
    /// Positions that the model can tell apart; none where there is no limit.
    pub context: Option<usize>,
    /// Tokens that it was trained on, where its card says so.
    pub trained_tokens: Option<Determined<u64>>,
}

/// What a sequence of some length costs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemoryRow {
    /// As in the configuration.
    pub model: String,
    /// Tokens of the sequence.
    pub depth: usize,
    /// Bytes that the sequence holds in memory.
    pub held_bytes: Determined<u64>,
    /// Bytes that its last token must move: weights, the whole cache, recurrent memory both read and written.
    pub moved_bytes: Determined<u64>,
}

/// A model against the first, token by token. The interval is 95 %, from blocks drawn again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DifferenceRow {
    /// The model in question.
    pub model: String,
    /// What it is compared with.
    pub reference: String,
    /// The text.
    pub dataset: String,
    /// Tokens compared.
    pub tokens: Determined<usize>,
    /// Bits a byte of the model less those of the reference.
    pub difference_bits_per_byte: Determined<f64>,
    /// Lower end of its interval.
    pub difference_low: Determined<f64>,
    /// Upper end of its interval.
    pub difference_high: Determined<f64>,
    /// The difference over the reference's bits a byte.
    pub relative_difference: Determined<f64>,
}

/// How fast a model runs. All models are timed in the same blocks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SpeedRow {
    /// As in the configuration.
    pub model: String,
    /// What it is compared with.
    pub reference: String,
    /// The level.
    pub isa: String,
    /// Threads.
    pub threads: usize,
    /// How the cache was kept.
    pub cache: String,
    /// Tokens read before decoding.
    pub depth: usize,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens a second, one after the other.
    pub decode_tokens_per_s: Timed,
    /// How many times as fast as the reference, within blocks.
    pub decode_over_reference: Timed,
    /// Tokens of a prompt a second.
    pub prefill_tokens_per_s: Timed,
    /// How many times as fast as the reference, within blocks.
    pub prefill_over_reference: Timed,
    /// Bytes that a decoded token must move.
    pub moved_bytes: u64,
    /// Read bandwidth of so many threads on as much data, in the same blocks, 10^9 bytes a second.
    pub ceiling_gb_per_s: Timed,
    /// How it was measured.
    pub ceiling_by: String,
    /// Bytes that decoding had to move a second, over the bandwidth.
    pub share_of_bandwidth: Timed,
}

impl Config {
    fn cache(&self) -> Result<CacheFormat, String> {
        compute::cache(&self.cache).map_err(|error| format!("cache = '{}': {error}", self.cache))
    }

    /// Whether a model's context holds what is to be read.
    fn fits(&self, name: &str, facts: &Facts) -> Result<()> {
        let decoded = self.decode.depth + self.decode.steps;
        for (field, positions) in [("context", self.context), ("decode", decoded), ("prefill", self.prefill)] {
            if let Some(most) = facts.context.filter(|_| !facts.holds(positions)) {
                return Err(UserError::new(format!(
                    "{field} asks for {positions} positions, but {name} has {most}: choose fewer, or leave the model \
                     out"
                )));
            }
        }
        Ok(())
    }
}

impl Experiment for Architectures {
    const NAME: &'static str = "architectures";
    const QUESTION: &'static str = "Of models of like size, trained on the same text with the same tokenizer and \
                                    budget: which architecture predicts best, which reads least for a token, and \
                                    which is fastest?";
    type Config = Config;
    type Row = Row;

    fn check(config: &Config, _lab: &Lab) -> Result<(), String> {
        config.budget.check().map_err(|error| format!("budget: {error}"))?;
        config.cache()?;
        for (name, value, least) in [
            ("context", config.context, 2),
            ("max_tokens", config.max_tokens, 1),
            ("resamples", config.resamples, 100),
            // The first step of a sample is not counted.
            ("decode.steps", config.decode.steps, 2),
            ("prefill", config.prefill, 1),
            ("models: their number", config.models.len(), 1),
            ("datasets: their number", config.datasets.len(), 1),
        ] {
            if value < least {
                return Err(format!("{name} = {value}: expected at least {least}"));
            }
        }
        if config.depths.first().is_none_or(|first| *first == 0) || !config.depths.is_sorted_by(|a, b| a < b) {
            return Err(format!("depths = {:?}: expected at least one, ascending, none of them 0", config.depths));
        }
        for (i, name) in config.models.iter().enumerate() {
            model::find(name).map_err(|error| format!("models: {error:#}"))?;
            if config.models[..i].contains(name) {
                return Err(format!("models: {name} stands there twice"));
            }
        }
        for name in &config.datasets {
            dataset::is_present(name).map_err(|error| format!("datasets: {error:#}"))?;
        }
        Ok(())
    }

    fn run(config: &Config, lab: &Lab, emit: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        let bar = lab.bar(config.models.len() * (config.datasets.len() + 1) + 1, "architectures");
        let settings = lab.settings(lab.isa, lab.threads, CacheFormat::F32)?;
        let mut models: Vec<(&str, Loaded)> = Vec::new();
        for name in &config.models {
            bar.set_message(format!("loading {name}"));
            let loaded = lab.model(name, &settings)?;
            config.fits(name, &loaded.model.facts())?;
            models.push((name, loaded));
            bar.inc(1);
        }
        difference::tokenizer(&models)?;
        // The same weights with the cache that speed is measured with.
        let settings = lab.settings(lab.isa, lab.threads, config.cache().map_err(anyhow::Error::msg)?)?;
        let timed: Vec<_> = models.iter().map(|(name, loaded)| (*name, loaded.model.with(&settings))).collect();
        for (name, model) in &timed {
            emit(Row::Model(model_row(name, &**model)?))?;
            memory(name, &**model, &config.depths).into_iter().try_for_each(|row| emit(Row::Memory(row)))?;
        }
        for name in &config.datasets {
            if !dataset::is_present(name)? {
                emit(Row::Absent { dataset: name.clone(), remedy: dataset::remedy(name)? })?;
                bar.inc(models.len() as u64);
                continue;
            }
            let text = lab.text(name)?;
            let mut first: Option<Score> = None;
            for (name, loaded) in &models {
                bar.set_message(format!("{name} reads {}", text.name));
                unseen(name, &text)?;
                let limit = ScoreConfig { context: config.context, max_tokens: Some(config.max_tokens) };
                let score = score(loaded, &text.text, &limit, &mut |_, _, _| {})?;
                emit(Row::Score(Box::new(ScoreRow::new(name, &text.name, config.context, &score))))?;
                if let Some(first) = &first {
                    emit(Row::Difference(compared(config, (name, &score), first, &text, lab.seed)?))?;
                }
                first.get_or_insert(score);
                bar.inc(1);
            }
        }
        bar.set_message("timing");
        speeds::rows(config, &timed, lab)?.into_iter().try_for_each(|row| emit(Row::Speed(Box::new(row))))?;
        bar.finish_and_clear();
        Ok(())
    }

    fn report(config: &Config, rows: &[Row]) -> Section {
        report::section(config, rows)
    }
}

fn model_row(name: &str, model: &dyn Model) -> Result<ModelRow> {
    let facts = model.facts();
    Ok(ModelRow {
        model: name.to_string(),
        architecture: facts.architecture.to_string(),
        weights: facts.weights.clone(),
        parameters: determined(facts.parameters),
        weight_bytes: determined(facts.linear_bytes + facts.head_bytes + facts.other_bytes),
        context: facts.context,
        trained_tokens: model::find(name)?.1.map(|card| determined(card.training.tokens)),
    })
}

/// Refuses a text that a model was trained on, even in part.
fn unseen(name: &str, text: &Text) -> Result<()> {
    match model::find(name)?.1.and_then(|card| card.held_out(&text.sha256)) {
        None => Ok(()),
        Some(_) => Err(UserError::new(format!(
            "datasets: {name} was trained on {} (see its card): name a text that no model has seen, such as almanac",
            text.name
        ))),
    }
}

/// What sequences cost whose lengths the model holds.
fn memory(name: &str, model: &dyn Model, depths: &[usize]) -> Vec<MemoryRow> {
    let facts = model.facts();
    let held = depths.iter().filter(|depth| facts.holds(**depth));
    let row = |&depth: &usize| MemoryRow {
        model: name.to_string(),
        depth,
        held_bytes: determined(facts.cache_bytes_per_position * depth as u64 + facts.state_bytes),
        moved_bytes: determined(moved_bytes(model, depth)),
    };
    held.map(row).collect()
}

/// Bytes that the last of so many tokens must move.
fn moved_bytes(model: &dyn Model, tokens: usize) -> u64 {
    model.step_costs(1, tokens - 1).iter().map(|cost| cost.bytes).sum()
}

fn compared(
    config: &Config,
    (name, score): (&str, &Score),
    reference: &Score,
    text: &Text,
    seed: u64,
) -> Result<DifferenceRow> {
    let nats = difference::in_nats(score, reference, config.resamples, seed)?;
    let bits = |nats| determined(difference::bits_per_byte(nats, score));
    Ok(DifferenceRow {
        model: name.to_string(),
        reference: config.models[0].clone(),
        dataset: text.name.clone(),
        tokens: determined(score.tokens),
        difference_bits_per_byte: bits(nats.mean),
        difference_low: bits(nats.low),
        difference_high: bits(nats.high),
        relative_difference: determined(nats.mean / reference.nats_per_token()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use kernels::Isa;

    fn config() -> Config {
        let text = r#"
            models = ["dense-5m", "dense-5m+dense=q8+head=q8"]
            datasets = ["almanac"]
            context = 16
            max_tokens = 64
            resamples = 100
            cache = "f32"
            depths = [16, 2048, 4096]
            decode = { depth = 4, steps = 2 }
            prefill = 8
            budget = { sample_ms = 0.1, min_blocks = 3, max_blocks = 3, seconds = 0.1, precision = 0.5 }
        "#;
        toml::from_str(text).unwrap()
    }

    fn lab() -> Lab {
        Lab::new(Machine::read(), 1, Isa::best(), 0, true)
    }

    #[test]
    fn values_that_make_no_sense_are_refused_with_their_field() {
        let says = |change: fn(&mut Config)| {
            let mut config = config();
            change(&mut config);
            Architectures::check(&config, &lab()).unwrap_err()
        };
        assert_eq!(Architectures::check(&config(), &lab()), Ok(()));
        assert!(says(|c| c.models = vec!["dense-6m".to_string()]).contains("did you mean 'dense-5m'"));
        assert_eq!(says(|c| c.models = Vec::new()), "models: their number = 0: expected at least 1");
        assert_eq!(says(|c| c.models[1] = "dense-5m".to_string()), "models: dense-5m stands there twice");
        assert!(says(|c| c.datasets = vec!["almanak".to_string()]).contains("did you mean 'almanac'"));
        assert!(says(|c| c.depths = vec![512, 16]).contains("depths = [512, 16]: expected at least one, ascending"));
        assert!(says(|c| c.depths = vec![0]).contains("none of them 0"));
        assert!(says(|c| c.decode.steps = 1).contains("decode.steps = 1: expected at least 2"));
        assert!(says(|c| c.cache = "f64".to_string()).contains("cache = 'f64'"));
        assert!(says(|c| c.budget.seconds = 0.0).contains("budget: seconds"));
    }

    #[test]
    fn every_model_is_described_scored_compared_and_timed() {
        let mut rows = Vec::new();
        Architectures::run(&config(), &lab(), &mut |row| {
            rows.push(row);
            Ok(())
        })
        .unwrap();
        let count = |is: fn(&Row) -> bool| rows.iter().filter(|row| is(row)).count();
        assert_eq!(count(|row| matches!(row, Row::Model(_))), 2);
        assert_eq!(count(|row| matches!(row, Row::Memory(_))), 4, "4096 tokens are beyond the context");
        assert_eq!(count(|row| matches!(row, Row::Score(_))), 2);
        assert_eq!(count(|row| matches!(row, Row::Difference(_))), 1);
        assert_eq!(count(|row| matches!(row, Row::Speed(_))), 2);
        let section = Architectures::report(&config(), &rows);
        assert!(section.findings[0].contains("`dense-5m+dense=q8+head=q8`"), "{:?}", section.findings);
    }

    #[test]
    fn texts_that_were_trained_on_and_positions_beyond_a_context_are_refused() {
        let sum = "bf5b273d9246268f96663c43c00a1055ae2e42c2262be32f7e43b48dd123451a";
        let text = |sha256: &str| Text { name: "novel".to_string(), text: "x".to_string(), sha256: sha256.to_string() };
        let told = unseen("dense-5m+head=q8", &text(sum)).unwrap_err().to_string();
        assert!(told.contains("dense-5m+head=q8 was trained on novel") && told.contains("almanac"), "{told}");
        assert!(unseen("dense-5m", &text("0")).is_ok());
        let mut config = config();
        config.decode.depth = 4000;
        let told = Architectures::run(&config, &lab(), &mut |_| panic!("nothing is measured")).unwrap_err().to_string();
        assert!(told.contains("decode asks for 4002 positions, but dense-5m has 2048"), "{told}");
    }
}
