//! What logits say: the probabilities of the next token, and what a token costs.

use anyhow::{Context, Result, ensure};
use engines::Token;
use kernels::{Isa, Kernels};

/// Partial sums that are kept side by side; their number and order are fixed, so the sum has the same bits everywhere.
const SUMS: usize = 8;

/// The distribution that a row of logits stands for. Made once, filled again and again.
///
/// The softmax kernel gives `p = e r`, where `e = exp(logit - top)` and `r` is its rounded `1 / Σ e`. As the largest `e` is
/// exactly 1, `r` can be read off at that place, and `Σ e = Σ p / r` with the sum taken in f64: what remains is the rounding
/// of single terms, some 1e-7 of each. Kernel and sum have the same bits on every ISA, hence so has everything here.
#[derive(Debug)]
pub struct Distribution {
    kernels: &'static Kernels,
    /// `p [V]`.
    terms: Vec<f32>,
    /// `Σ p`, near 1.
    total: f64,
    /// The likeliest token, the first of equals.
    top: usize,
    /// `ln Σ exp(logit)`.
    log_sum: f64,
}

impl Default for Distribution {
    fn default() -> Distribution {
        Distribution::new()
    }
}

impl Distribution {
    /// A place for distributions, of no logits yet.
    pub fn new() -> Distribution {
        // Any level gives the same bits; scalar is always there.
        let kernels = Kernels::for_isa(Isa::best()).or_else(|| Kernels::for_isa(Isa::Scalar));
        let kernels = kernels.expect("every CPU has the scalar level");
        Distribution { kernels, terms: Vec::new(), total: 0.0, top: 0, log_sum: 0.0 }
    }

    /// Takes up `logits` `[V]`, V >= 1.
    ///
    /// # Errors
    /// No logits, or such that no distribution belongs to: NaN, +infinity, or -infinity everywhere.
    pub fn read(&mut self, logits: &[f32]) -> Result<()> {
        ensure!(!logits.is_empty(), "there are no logits");
        self.terms.clear();
        self.terms.extend_from_slice(logits);
        self.kernels.softmax(&mut self.terms);
        let mut best = [0];
        self.kernels.top_k(logits, &mut best);
        self.top = best[0] as usize;
        let (top, scale) = (logits[self.top], self.terms[self.top]);
        ensure!(top.is_finite() && scale.is_finite(), "the model gives a logit that is not a finite number");
        self.total = sum(&self.terms);
        self.log_sum = f64::from(top) + libm::log(self.total / f64::from(scale));
        Ok(())
    }

    /// `ln Σ exp(logit)` of the logits that were read.
    pub fn log_sum(&self) -> f64 {
        self.log_sum
    }

    /// The likeliest token, the first of equals.
    pub fn likeliest(&self) -> Token {
        self.top as Token
    }

    /// The probability of a token; 0 outside the vocabulary.
    pub fn probability(&self, token: Token) -> f64 {
        self.terms.get(token as usize).map_or(0.0, |term| f64::from(*term) / self.total)
    }

    /// Reads `logits` `[V]` and gives the cost of `target`, `-ln p(target)`, in nats.
    ///
    /// # Errors
    /// As [`Distribution::read`]; a target outside the vocabulary, or one whose logit is -infinity.
    pub fn cost(&mut self, logits: &[f32], target: Token) -> Result<f32> {
        let wanted = *logits
            .get(target as usize)
            .with_context(|| format!("token {target} is outside the vocabulary of {}", logits.len()))?;
        self.read(logits)?;
        ensure!(wanted.is_finite(), "the model thinks token {target} impossible (its logit is {wanted})");
        // Rounding can leave a tiny negative cost.
        Ok((self.log_sum - f64::from(wanted)).max(0.0) as f32)
    }
}

/// The sum in f64, term i in partial sum i mod [`SUMS`].
fn sum(terms: &[f32]) -> f64 {
    let mut sums = [0.0f64; SUMS];
    let chunks = terms.chunks_exact(SUMS);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (sum, term) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(*term);
        }
    }
    for (sum, term) in sums.iter_mut().zip(rest) {
        *sum += f64::from(*term);
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use kernels::Rng;
    use proptest::prelude::*;

    use super::*;

    fn cost(logits: &[f32], target: Token) -> Result<f32> {
        Distribution::new().cost(logits, target)
    }

    #[test]
    fn uniform_logits_cost_the_logarithm_of_the_vocabulary() {
        assert!((cost(&[3.0; 512], 1).unwrap() - 512f32.ln()).abs() < 1e-6);
        // Far apart: neither overflow nor loss of the small cost.
        assert_eq!(cost(&[-1e4, 1e4], 1).unwrap(), 0.0);
        assert_eq!(cost(&[1e4, -1e4], 1).unwrap(), 2e4);
    }

    #[test]
    fn logits_that_are_no_numbers_are_an_error() {
        for bad in [f32::NAN, f32::INFINITY] {
            assert!(cost(&[0.0, bad], 0).is_err() && cost(&[bad, 0.0], 1).is_err(), "{bad}");
            assert!(cost(&[0.0, bad], 1).is_err(), "{bad}");
        }
        assert!(cost(&[0.0, f32::NEG_INFINITY], 1).is_err());
        assert!(cost(&[0.0, f32::NEG_INFINITY], 0).is_ok());
        assert!(cost(&[f32::NEG_INFINITY; 3], 0).is_err());
        assert!(cost(&[0.0], 1).is_err() && cost(&[], 0).is_err());
    }

    proptest! {
        #[test]
        fn costs_and_probabilities_are_those_of_f64(seed: u64, size in 1usize..3000, spread in 0.0f32..30.0) {
            let mut rng = Rng::new(seed);
            let logits: Vec<f32> = (0..size).map(|_| rng.normal() * spread).collect();
            let target = rng.below(size) as Token;
            let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let exact: f64 = logits.iter().map(|x| f64::from(x - top).exp()).sum::<f64>().ln() + f64::from(top);
            let mut distribution = Distribution::new();
            let cost = f64::from(distribution.cost(&logits, target).unwrap());
            let expected = exact - f64::from(logits[target as usize]);
            prop_assert!((cost - expected).abs() < 1e-6 * (1.0 + expected), "{cost} and {expected}");
            prop_assert!((distribution.probability(target) - (-expected).exp()).abs() < 1e-6);
            let total: f64 = (0..size).map(|token| distribution.probability(token as Token)).sum();
            prop_assert!((total - 1.0).abs() < 1e-12);
            prop_assert_eq!(logits[distribution.likeliest() as usize], top);
        }
    }
}
