//! Choosing a token from logits.
//!
//! The order is Hugging Face's: repetition penalty, temperature, top-k, top-p, min-p, then a draw from what is left. The
//! draw adds Gumbel noise to each log-probability and takes the largest (Gumbel 1954; "Gumbel-max"), and the noise is a pure
//! function of (seed, position, token). So the text is a function of the seed, whatever proposed its tokens
//! (drafter-invariant speculation, arXiv 2408.07978), and the same on every machine.

use crate::{Error, Result, Token, nucleus};
use kernels::{Kernels, Rng};

/// Settings of the choice. All of them at their neutral values is plain sampling; [`Sampler::greedy`] takes the largest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// Logits are divided by it; 0 takes the largest logit (the lowest token among equals).
    pub temperature: f32,
    /// Keep only so many of the most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the fewest most likely tokens whose probabilities reach this sum; 1 keeps all (Holtzman et al.,
    /// arXiv 1904.09751).
    pub top_p: f32,
    /// Keep tokens at least so likely relative to the likeliest; 0 keeps all (arXiv 2407.01082).
    pub min_p: f32,
    /// Positive logits of tokens in the context are divided by it, negative ones multiplied; 1 is neutral (Keskar et al.,
    /// arXiv 1909.05858).
    pub repetition_penalty: f32,
    /// What the noise is a function of, beside position and token.
    pub seed: u64,
}

impl Default for Sampler {
    /// Plain sampling: temperature 1, nothing filtered, seed 0.
    fn default() -> Sampler {
        Sampler { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

/// 2^64 over the golden ratio: spreads small numbers over 64-bit words.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// A uniform draw in units of 2^-53, from 0 to 2^53 - 1, for (seed, position, token).
fn draw(key: u64, token: Token) -> u64 {
    Rng::mix(key.wrapping_add((u64::from(token) + 1).wrapping_mul(GOLDEN))) >> 11
}

/// What all tokens of a position share.
fn key(seed: u64, position: usize) -> u64 {
    Rng::mix(seed ^ Rng::mix((position as u64 + 1).wrapping_mul(GOLDEN)))
}

fn gumbel(draw: u64) -> f64 {
    let u = (draw as f64 + 0.5) / (1u64 << 53) as f64;
    -libm::log(-libm::log(u))
}

/// The Gumbel noise of a token at a position.
pub fn noise(seed: u64, position: usize, token: Token) -> f64 {
    gumbel(draw(key(seed, position), token))
}

/// What a probability is multiplied by to give the draws that can win: token i can score `score` or more only if the units
/// of 2^-53 by which its draw falls short of 1 are at most p_i times the result.
///
/// p is e^scaled times `sure`, the probability of the likeliest token, whose `scaled` is 0. The noise is -ln(-ln u), at most
/// -ln(1 - u), so that a score of `score` needs 1 - u <= e^(scaled - score). The margin outweighs the errors of p (below
/// 3e-7 unless it is no normal number, and then nothing but u = 1 can win) and of the logarithms.
fn reach(score: f64, sure: f32) -> f64 {
    libm::exp(-score) / f64::from(sure) * (1u64 << 53) as f64 * (1.0 + 1e-5)
}

impl Sampler {
    /// Always the largest logit.
    pub fn greedy() -> Sampler {
        Sampler { temperature: 0.0, ..Sampler::default() }
    }

    /// Whether the settings make sense.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub fn check(&self) -> Result<()> {
        let wrong = |name: &str, value: f32, expected: &str| {
            Err(Error::Sample(format!("{name} is {value}: expected {expected}")))
        };
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return wrong("temperature", self.temperature, "a number from 0");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return wrong("top_p", self.top_p, "above 0 and at most 1");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return wrong("min_p", self.min_p, "from 0 to 1");
        }
        if !(self.repetition_penalty.is_finite() && self.repetition_penalty > 0.0) {
            return wrong("repetition_penalty", self.repetition_penalty, "a number above 0");
        }
        Ok(())
    }

    /// The token after `context`, given its logits `[V]`, where the token will stand at `position`.
    ///
    /// # Errors
    /// Settings that make no sense; logits that are NaN or infinite upwards; none that is finite.
    pub fn choose(&self, kernels: &Kernels, logits: &[f32], context: &[Token], position: usize) -> Result<Token> {
        self.check()?;
        // Whole runs first, which vectors tell.
        let bad = |x: &f32| x.is_nan() || *x == f32::INFINITY;
        if logits.chunks(1024).any(|run| run.iter().fold(false, |any, x| any | bad(x)))
            && let Some(bad) = logits.iter().position(bad)
        {
            return Err(Error::Sample(format!("the logit of token {bad} is {}", logits[bad])));
        }
        let penalised;
        let logits = if self.repetition_penalty == 1.0 {
            logits
        } else {
            penalised = self.penalise(logits, context);
            &penalised[..]
        };
        let mut best = [0];
        if logits.is_empty() {
            return Err(Error::Sample("there are no logits to choose from".to_string()));
        }
        kernels.top_k(logits, &mut best);
        if logits[best[0] as usize] == f32::NEG_INFINITY {
            return Err(Error::Sample("every logit is -inf: no token can be chosen".to_string()));
        }
        if self.temperature == 0.0 {
            return Ok(best[0]);
        }
        let top = logits[best[0] as usize];
        // Relative to the largest, so that a tiny temperature cannot overflow.
        let scaled = |x: f32| (x - top) / self.temperature;
        let mut p: Vec<f32> = logits.iter().map(|x| scaled(*x)).collect();
        let score = |token: Token, noise: f64| f64::from(scaled(logits[token as usize])) + noise;
        let draws = Draws { key: key(self.seed, position), likeliest: best[0], score };
        if self.top_k == 0 || self.top_k >= p.len() {
            kernels.softmax(&mut p);
            let sure = p[best[0] as usize];
            let last = self.cutoff(&p, sure, |i| i as Token);
            return Ok(draws.best(&p, sure, last, |i| i as Token));
        }
        let tokens = most_likely(kernels, &p, self.top_k);
        let mut p: Vec<f32> = tokens.iter().map(|token| p[*token as usize]).collect();
        kernels.softmax(&mut p);
        let sure = p.iter().fold(0.0, |most: f32, p| most.max(*p));
        let last = self.cutoff(&p, sure, |i| tokens[i]);
        Ok(draws.best(&p, sure, last, |i| tokens[i]))
    }

    /// The last token that top-p and min-p leave, of tokens with probabilities `p`, the largest of which is `sure`.
    fn cutoff(&self, p: &[f32], sure: f32, token: impl Fn(usize) -> Token) -> (f32, Token) {
        // Of several tokens as likely as the floor min-p keeps all.
        let floor = self.min_p * sure;
        let last = if self.top_p < 1.0 { nucleus::last(p, token, self.top_p) } else { None };
        last.filter(|(least, _)| *least >= floor).unwrap_or((floor, Token::MAX))
    }

    fn penalise(&self, logits: &[f32], context: &[Token]) -> Vec<f32> {
        let mut seen = context.to_vec();
        seen.sort_unstable();
        seen.dedup();
        let mut logits = logits.to_vec();
        for token in seen {
            if let Some(x) = logits.get_mut(token as usize) {
                *x = if *x > 0.0 { *x / self.repetition_penalty } else { *x * self.repetition_penalty };
            }
        }
        logits
    }
}

/// The k largest, by the kernel while it inserts into a short list, else by selection.
fn most_likely(kernels: &Kernels, scaled: &[f32], k: usize) -> Vec<Token> {
    if k <= 256 {
        let mut tokens = vec![0; k];
        kernels.top_k(scaled, &mut tokens);
        return tokens;
    }
    let mut tokens: Vec<Token> = (0..scaled.len() as Token).collect();
    tokens.select_nth_unstable_by(k - 1, |a, b| scaled[*b as usize].total_cmp(&scaled[*a as usize]).then(a.cmp(b)));
    tokens.truncate(k);
    tokens
}

/// The draws of one position.
struct Draws<S> {
    key: u64,
    /// No filter drops it.
    likeliest: Token,
    /// Of a token and its noise.
    score: S,
}

impl<S: Fn(Token, f64) -> f64> Draws<S> {
    /// The token with the largest score, the lowest among equals, of those with probabilities `p`, the largest of which is
    /// `sure`, that are not beyond the last one kept.
    ///
    /// Beginning with the likeliest, few others need their logarithms, and of runs that are all below the last none needs
    /// its draw.
    fn best(&self, p: &[f32], sure: f32, last: (f32, Token), token: impl Fn(usize) -> Token) -> Token {
        let scored = |token: Token, draw: u64| ((self.score)(token, gumbel(draw)), token);
        let mut best = scored(self.likeliest, draw(self.key, self.likeliest));
        let mut reached = reach(best.0, sure);
        for (start, run) in (0..).step_by(nucleus::RUN).zip(p.chunks(nucleus::RUN)) {
            if !run.iter().fold(false, |any, p| any | (*p >= last.0)) {
                continue;
            }
            for (i, p) in (start..).zip(run) {
                let token = token(i);
                let draw = draw(self.key, token);
                // Rarely true, so that this comes before the question whether the token is kept.
                if ((1u64 << 53) - 1 - draw) as f64 > f64::from(*p) * reached || !nucleus::keeps(last, *p, token) {
                    continue;
                }
                let next = scored(token, draw);
                if next.0 > best.0 || (next.0 == best.0 && next.1 < best.1) {
                    best = next;
                    reached = reach(best.0, sure);
                }
            }
        }
        best.1
    }
}
