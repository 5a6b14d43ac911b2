//! Two models token by token: both read the text at the same time, one in a thread that hands over its logits, so that no
//! more than a few windows of distributions are in memory at once.

use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::{Context, Result, anyhow, bail};
use engines::{CacheFormat, Loaded, Token};

use super::{Config, Pair, PairRow};
use crate::dataset::Text;
use crate::difference;
use crate::lab::Lab;
use crate::quantity::determined;
use crate::score::{Score, score};
use crate::stats;

/// Rows of logits that may wait for the other model.
const WAITING: usize = 64;

/// Both scores and what they show together.
pub(super) struct Found {
    pub(super) model: Score,
    pub(super) reference: Score,
    pub(super) row: PairRow,
}

/// What two distributions at the same place say of each other.
struct Divergence {
    /// Of the model from the reference, in nats.
    kld: f64,
    /// Whether both think the same token most likely.
    agree: bool,
}

/// Scores both models on a text, each with half of the threads, and compares them at every token. `find` gives a model's
/// place among `models`.
pub(super) fn pair(
    config: &Config,
    pair: &Pair,
    models: &mut [Loaded],
    find: impl Fn(&str) -> Option<usize>,
    text: &Text,
    lab: &Lab,
) -> Result<Found> {
    let (Some(model), Some(reference)) = (find(&pair.model), find(&pair.reference)) else {
        bail!("{} or {} was not loaded", pair.model, pair.reference);
    };
    let (v, w) = (models[model].model.vocab(), models[reference].model.vocab());
    if v != w {
        bail!(
            "{} has {v} tokens and {} has {w}: only models of one tokenizer can be compared",
            pair.model,
            pair.reference
        );
    }
    let threads = [(model, lab.threads.div_ceil(2)), (reference, (lab.threads / 2).max(1))];
    for (place, threads) in threads {
        let settings = lab.settings(lab.isa, threads, CacheFormat::F32)?;
        models[place].model = models[place].model.with(&settings);
    }
    let (model, reference) = (&models[model], &models[reference]);
    let (send, rows) = sync_channel::<(Token, Vec<f32>)>(WAITING);
    let limit = config.score(config.max_tokens);
    let (found, expected, divergences) = std::thread::scope(|scope| {
        let expected = scope.spawn(|| {
            // The other side stops listening only when it has failed, and then tells why itself.
            score(reference, &text.text, &limit, &mut |_, logits, target| drop(send.send((target, logits.to_vec()))))
        });
        let found = compare(model, text, &limit, rows);
        let expected = expected.join().map_err(|_| anyhow!("scoring {} stopped", pair.reference))?;
        let (found, divergences) = found?;
        Ok::<_, anyhow::Error>((found, expected?, divergences))
    })?;
    let row = row(config, pair, text, &found, &expected, &divergences, lab.seed)?;
    Ok(Found { model: found, reference: expected, row })
}

fn compare(
    model: &Loaded,
    text: &Text,
    limit: &crate::score::ScoreConfig,
    rows: Receiver<(Token, Vec<f32>)>,
) -> Result<(Score, Vec<Divergence>)> {
    let mut divergences = Vec::new();
    let mut apart = None;
    let found = score(model, &text.text, limit, &mut |place, logits, target| match rows.recv() {
        Ok((other, expected)) if other == target => divergences.push(divergence(&expected, logits)),
        Ok((other, _)) => apart = apart.or(Some((place, Some(other)))),
        Err(_) => apart = apart.or(Some((place, None))),
    })?;
    match apart {
        None => Ok((found, divergences)),
        Some((place, Some(other))) => {
            bail!("the models read different tokens: token {place} is {other} for the reference")
        }
        Some((place, None)) => bail!("the reference had no distribution for token {place}"),
    }
}

/// Kullback-Leibler divergence Σ p (ln p - ln q) of q (the model's softmax) from p (the reference's), in f64 with functions
/// that are the same on every machine; and whether the largest logits (the first of equals) stand at the same place.
fn divergence(reference: &[f32], model: &[f32]) -> Divergence {
    let (p, q) = (log_sum_exp(reference), log_sum_exp(model));
    let term = |(a, b): (&f32, &f32)| {
        let (ln_p, ln_q) = (f64::from(*a) - p, f64::from(*b) - q);
        let p = libm::exp(ln_p);
        if p > 0.0 { p * (ln_p - ln_q) } else { 0.0 }
    };
    // Rounding can leave a tiny negative sum.
    let kld = reference.iter().zip(model).map(term).sum::<f64>().max(0.0);
    Divergence { kld, agree: largest(reference) == largest(model) }
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let top = f64::from(logits[largest(logits)]);
    top + libm::log(logits.iter().map(|logit| libm::exp(f64::from(*logit) - top)).sum())
}

/// Where the largest of some logits stands, the first of equals. There is at least one.
fn largest(logits: &[f32]) -> usize {
    (1..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best })
}

fn row(
    config: &Config,
    pair: &Pair,
    text: &Text,
    model: &Score,
    reference: &Score,
    divergences: &[Divergence],
    seed: u64,
) -> Result<PairRow> {
    let summary = |value: &dyn Fn(usize) -> f64| {
        difference::over_blocks(model, value, config.resamples, seed)
            .with_context(|| format!("{} and {}", pair.model, pair.reference))
    };
    let nats = difference::in_nats(model, reference, config.resamples, seed)?;
    let kld = summary(&|i| divergences[i].kld)?;
    let agree = summary(&|i| f64::from(u8::from(divergences[i].agree)))?;
    let mut sorted: Vec<f64> = divergences.iter().map(|divergence| divergence.kld).collect();
    sorted.sort_by(f64::total_cmp);
    let bits = |nats: f64| determined(difference::bits_per_byte(nats, model));
    Ok(PairRow {
        model: pair.model.clone(),
        reference: pair.reference.clone(),
        dataset: text.name.clone(),
        tokens: determined(model.tokens),
        difference_bits_per_byte: bits(nats.mean),
        difference_low: bits(nats.low),
        difference_high: bits(nats.high),
        relative_difference: determined(nats.mean / reference.nats_per_token()),
        kld_nats: determined(kld.mean),
        kld_low: determined(kld.low),
        kld_high: determined(kld.high),
        kld_median_nats: determined(stats::quantile(&sorted, 0.5).unwrap_or(0.0)),
        kld_p99_nats: determined(stats::quantile(&sorted, 0.99).unwrap_or(0.0)),
        top1_agreement: determined(agree.mean),
        top1_low: determined(agree.low),
        top1_high: determined(agree.high),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_divergence_is_what_the_definition_says() {
        // p = (1/2, 1/2), q = (1/4, 3/4): 1/2 ln 2 + 1/2 ln 2/3.
        let found = divergence(&[0.0, 0.0], &[0.0, 3f32.ln()]);
        assert!((found.kld - 0.5 * (2.0f64.ln() + (2.0f64 / 3.0).ln())).abs() < 1e-7, "{}", found.kld);
        assert!(!found.agree);
        assert!(divergence(&[1.0, 2.0], &[5.0, 6.0]).kld < 1e-12, "softmax knows no offset");
        let certain = divergence(&[1000.0, 0.0], &[0.0, 0.0]);
        assert!((certain.kld - 2.0f64.ln()).abs() < 1e-12 && certain.agree);
    }

    proptest! {
        #[test]
        fn no_divergence_is_negative_and_none_is_zero_between_unlike(
            logits in prop::collection::vec((-20f32..20.0, -20f32..20.0), 1..50)
        ) {
            let (p, q): (Vec<f32>, Vec<f32>) = logits.into_iter().unzip();
            prop_assert!(divergence(&p, &q).kld >= 0.0);
            let itself = divergence(&p, &p);
            prop_assert!(itself.kld < 1e-12 && itself.agree);
        }
    }
}
