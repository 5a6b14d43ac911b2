//! How well models predict texts, how far a BitNet is from its full-precision twin, and whether every ISA agrees.

use anyhow::{Result, bail};
use engines::{CacheFormat, Loaded, Token};
use serde::{Deserialize, Serialize};

use crate::checksum::Checksum;
use crate::dataset::{self, Text};
use crate::experiment::Experiment;
use crate::lab::Lab;
use crate::model;
use crate::quantity::{Determined, determined};
use crate::report::Section;
use crate::score::{Score, ScoreConfig, score};
use crate::stats::{self, Mean};

mod compare;
mod report;

/// The experiment.
pub struct Perplexity;

/// How it is run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Positions to a window.
    pub context: usize,
    /// No more tokens of a text than these are scored.
    pub max_tokens: usize,
    /// Tokens on which every ISA level must give the same bits.
    pub bits_tokens: usize,
    /// How often blocks are drawn again for the interval of a difference.
    pub resamples: usize,
    /// Texts.
    pub datasets: Vec<String>,
    /// Models that are compared with another of the same tokenizer.
    #[serde(default)]
    pub pairs: Vec<Pair>,
    /// Further models.
    #[serde(default)]
    pub models: Vec<String>,
}

/// Two models of the same tokenizer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// The model in question.
    pub model: String,
    /// What it is compared with.
    pub reference: String,
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
    /// How well a model predicts a text.
    Score(Box<ScoreRow>),
    /// The same by place in the window.
    Position(PositionRow),
    /// A model against another.
    Pair(Box<PairRow>),
    /// A digest of logits on an ISA.
    Bits(BitsRow),
}

/// How well a model predicts a text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ScoreRow {
    /// The model.
    pub model: String,
    /// The text.
    pub dataset: String,
    /// Positions to a window.
    pub context: usize,
    /// Scored tokens.
    pub tokens: Determined<usize>,
    /// Bytes of text that they stand for.
    pub bytes: Determined<usize>,
    /// Windows.
    pub windows: Determined<usize>,
    /// Mean cost of a token.
    pub nats_per_token: Determined<f64>,
    /// Its standard error.
    pub nats_per_token_error: Determined<f64>,
    /// Mean cost of a byte, in bits.
    pub bits_per_byte: Determined<f64>,
    /// Its standard error.
    pub bits_per_byte_error: Determined<f64>,
    /// `exp` of the mean cost of a token.
    pub perplexity: Determined<f64>,
    /// Its standard error.
    pub perplexity_error: Determined<f64>,
}

impl ScoreRow {
    /// What a score says.
    pub(crate) fn new(model: &str, dataset: &str, context: usize, score: &Score) -> ScoreRow {
        let mean = score.mean();
        ScoreRow {
            model: model.to_string(),
            dataset: dataset.to_string(),
            context,
            tokens: determined(score.tokens),
            bytes: determined(score.bytes),
            windows: determined(score.windows.len()),
            nats_per_token: determined(mean.mean),
            nats_per_token_error: determined(mean.error),
            bits_per_byte: determined(score.bits_per_byte()),
            bits_per_byte_error: determined(score.bits_per_byte_error()),
            perplexity: determined(score.perplexity()),
            perplexity_error: determined(score.perplexity_error()),
        }
    }
}

/// Mean cost of the tokens at some places in their windows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PositionRow {
    /// The model.
    pub model: String,
    /// The text.
    pub dataset: String,
    /// The first place, counted from 1.
    pub from: usize,
    /// The last place.
    pub to: usize,
    /// Tokens at these places.
    pub tokens: Determined<usize>,
    /// Their mean cost.
    pub nats_per_token: Determined<f64>,
    /// Its standard error over windows.
    pub nats_per_token_error: Determined<f64>,
}

/// A model against another, token by token. Intervals are 95 %, from blocks drawn again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PairRow {
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
    /// Mean Kullback-Leibler divergence of the model's next-token distribution from the reference's, in nats.
    pub kld_nats: Determined<f64>,
    /// Lower end of its interval.
    pub kld_low: Determined<f64>,
    /// Upper end of its interval.
    pub kld_high: Determined<f64>,
    /// Median over tokens.
    pub kld_median_nats: Determined<f64>,
    /// 99th percentile over tokens.
    pub kld_p99_nats: Determined<f64>,
    /// Share of tokens at which both think the same token most likely.
    pub top1_agreement: Determined<f64>,
    /// Lower end of its interval.
    pub top1_low: Determined<f64>,
    /// Upper end of its interval.
    pub top1_high: Determined<f64>,
}

/// A digest of a model's logits on an ISA.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BitsRow {
    /// The model.
    pub model: String,
    /// The text.
    pub dataset: String,
    /// The level.
    pub isa: String,
    /// Threads.
    pub threads: usize,
    /// Tokens.
    pub tokens: Determined<usize>,
    /// The beginning of the SHA-256 of the logits' bits.
    pub digest: Determined<String>,
}

impl Config {
    /// All models, each once, in order.
    fn all_models(&self) -> Vec<&str> {
        let paired = self.pairs.iter().flat_map(|pair| [pair.model.as_str(), pair.reference.as_str()]);
        let mut models: Vec<&str> = Vec::new();
        for model in paired.chain(self.models.iter().map(String::as_str)) {
            if !models.contains(&model) {
                models.push(model);
            }
        }
        models
    }

    fn score(&self, max_tokens: usize) -> ScoreConfig {
        ScoreConfig { context: self.context, max_tokens: Some(max_tokens) }
    }
}

impl Experiment for Perplexity {
    const NAME: &'static str = "perplexity";
    const QUESTION: &'static str = "How well do the trained models predict text, what does ternary quantisation cost \
                                    against a full-precision twin, and is the answer the same on every ISA?";
    type Config = Config;
    type Row = Row;

    fn check(config: &Config, _lab: &Lab) -> Result<(), String> {
        for (name, value, least) in [
            ("context", config.context, 2),
            ("max_tokens", config.max_tokens, 1),
            ("bits_tokens", config.bits_tokens, 1),
            ("resamples", config.resamples, 100),
        ] {
            if value < least {
                return Err(format!("{name} = {value}: expected at least {least}"));
            }
        }
        for name in config.all_models() {
            model::find(name).map_err(|error| format!("{error:#}"))?;
        }
        for name in &config.datasets {
            dataset::is_present(name).map_err(|error| format!("{error:#}"))?;
        }
        Ok(())
    }

    fn run(config: &Config, lab: &Lab, emit: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        let settings = lab.settings(lab.isa, lab.threads, CacheFormat::F32)?;
        let names = config.all_models();
        let mut models: Vec<Loaded> = names.iter().map(|name| lab.model(name, &settings)).collect::<Result<_>>()?;
        let find = |name: &str| names.iter().position(|known| *known == name);
        let mut bits_are_checked = false;
        for name in &config.datasets {
            if !dataset::is_present(name)? {
                emit(Row::Absent { dataset: name.clone(), remedy: dataset::remedy(name)? })?;
                continue;
            }
            let text = lab.text(name)?;
            if !bits_are_checked {
                bits_are_checked = true;
                for (name, model) in names.iter().zip(&mut models) {
                    bits(config, name, model, &text, lab)?.into_iter().try_for_each(|row| emit(Row::Bits(row)))?;
                }
            }
            let mut scored: Vec<&str> = Vec::new();
            for pair in &config.pairs {
                let found = compare::pair(config, pair, &mut models, find, &text, lab)?;
                for (name, score) in [(&pair.reference, found.reference), (&pair.model, found.model)] {
                    if !scored.contains(&name.as_str()) {
                        scored.push(name);
                        scores(config, name, &text, &score).into_iter().try_for_each(&mut *emit)?;
                    }
                }
                emit(Row::Pair(Box::new(found.row)))?;
            }
            for name in &config.models {
                if let Some(model) = find(name).filter(|_| !scored.contains(&name.as_str())) {
                    let score = score(&models[model], &text.text, &config.score(config.max_tokens), &mut |_, _, _| {})?;
                    scores(config, name, &text, &score).into_iter().try_for_each(&mut *emit)?;
                }
            }
        }
        Ok(())
    }

    fn report(config: &Config, rows: &[Row]) -> Section {
        report::section(config, rows)
    }
}

/// The rows of a score: the whole text, then by place in the window.
fn scores(config: &Config, model: &str, text: &Text, score: &Score) -> Vec<Row> {
    let row = ScoreRow::new(model, &text.name, config.context, score);
    std::iter::once(Row::Score(Box::new(row))).chain(positions(model, text, score)).collect()
}

/// Mean cost by place: first, second, third and fourth, fifth to eighth, and so on.
fn positions(model: &str, text: &Text, score: &Score) -> Vec<Row> {
    let longest = score.windows.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
    let mut rows = Vec::new();
    let (mut from, mut to) = (1, 1);
    while from <= longest {
        let to_here = to.min(longest);
        let (mut nats, mut counts) = (Vec::new(), Vec::new());
        for window in score.windows.iter().filter(|window| window.len() >= from) {
            let places = window.start + from - 1..(window.start + to_here).min(window.end);
            counts.push(places.len() as f64);
            nats.push(score.nats[places].iter().map(|nats| f64::from(*nats)).sum());
        }
        if let Some(Mean { mean, error, .. }) = stats::block_mean(&nats, &counts) {
            rows.push(Row::Position(PositionRow {
                model: model.to_string(),
                dataset: text.name.clone(),
                from,
                to: to_here,
                tokens: determined(counts.iter().sum::<f64>() as usize),
                nats_per_token: determined(mean),
                nats_per_token_error: determined(error),
            }));
        }
        (from, to) = (to + 1, to * 2);
    }
    rows
}

/// Scores the beginning of a text on every level and on one and all threads; all must give the same logits.
fn bits(config: &Config, name: &str, loaded: &mut Loaded, text: &Text, lab: &Lab) -> Result<Vec<BitsRow>> {
    let mut rows: Vec<BitsRow> = Vec::new();
    let mut counts = vec![1, lab.threads];
    counts.dedup();
    for table in lab.tables() {
        for &threads in &counts {
            let settings = lab.settings(table.isa(), threads, CacheFormat::F32)?;
            loaded.model = loaded.model.with(&settings);
            let mut sum = Checksum::default();
            let mut hash = |_: usize, logits: &[f32], _: Token| {
                let bits: Vec<u8> = logits.iter().flat_map(|logit| logit.to_bits().to_le_bytes()).collect();
                // A checksum takes all that it is given.
                let _ = std::io::Write::write_all(&mut sum, &bits);
            };
            let found = score(loaded, &text.text, &config.score(config.bits_tokens), &mut hash)?;
            let mut digest = sum.digits();
            digest.truncate(16);
            let row = BitsRow {
                model: name.to_string(),
                dataset: text.name.clone(),
                isa: table.isa().name().to_string(),
                threads,
                tokens: determined(found.tokens),
                digest: determined(digest),
            };
            if let Some(first) = rows.first().filter(|first| first.digest != row.digest) {
                bail!(
                    "{name} gives other logits on {} with {} threads (digest {}) than on {} with {} threads (digest {}): \
                     a kernel is wrong",
                    row.isa,
                    row.threads,
                    row.digest.exact,
                    first.isa,
                    first.threads,
                    first.digest.exact
                );
            }
            rows.push(row);
        }
    }
    loaded.model = loaded.model.with(&lab.settings(lab.isa, lab.threads, CacheFormat::F32)?);
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score() -> Score {
        Score { nats: vec![3.0, 2.0, 1.0, 1.0, 5.0, 2.0], bytes: 12, tokens: 6, windows: vec![0..4, 4..6] }
    }

    #[test]
    fn places_in_the_window_cover_every_token_once() {
        let text = Text { name: "t".to_string(), text: String::new(), sha256: String::new() };
        let rows: Vec<(usize, usize, usize, f64)> = positions("m", &text, &score())
            .into_iter()
            .filter_map(|row| match row {
                Row::Position(row) => Some((row.from, row.to, row.tokens.exact, row.nats_per_token.exact)),
                _ => None,
            })
            .collect();
        assert_eq!(rows, [(1, 1, 2, 4.0), (2, 2, 2, 2.0), (3, 4, 2, 1.0)]);
    }

    #[test]
    fn models_are_loaded_once_each() {
        let pair = |model: &str, reference: &str| Pair { model: model.into(), reference: reference.into() };
        let config = Config {
            context: 256,
            max_tokens: 1,
            bits_tokens: 1,
            resamples: 100,
            datasets: Vec::new(),
            pairs: vec![pair("a", "b"), pair("c", "b")],
            models: vec!["a".to_string(), "d".to_string()],
        };
        assert_eq!(config.all_models(), ["a", "b", "c", "d"]);
    }
}
