//! Perplexity: how well a model predicts a text.
//!
//! # Protocol
//! A text of tokens `x1 x2 … xn` is cut into windows of C targets that follow each other without overlap, so that every
//! token is predicted exactly once. A window sees nothing of the windows before it. Where the tokenizer has a token that
//! begins a text (`B`), each window is read after one; here C = 4 and n = 6:
//!
//! ```text
//! window 1   reads     B  x1 x2 x3          window 2   reads     B  x5
//!            predicts  x1 x2 x3 x4                     predicts  x5 x6
//! ```
//!
//! Where it has none, the token before the window takes its place, and the first token of the text is not scored:
//!
//! ```text
//! window 1   reads     x1 x2 x3 x4          window 2   reads     x5
//!            predicts  x2 x3 x4 x5                     predicts  x6
//! ```
//!
//! So a model never reads more than C positions, and the tokens at the start of a window have little to go by: results
//! are comparable only at the same C. Texts that consist of documents are cut at the documents first; each is stripped of
//! white space at both ends and scored as a text of its own.
//!
//! # Numbers
//! A token's cost is `ln Σ exp(logit) - logit[target]` ([`crate::distribution`]), kept as f32. Since logits have the same
//! bits on every ISA and for any number of threads, so has the score. Bits a byte divide by the bytes of the text that was
//! scored: all of it, or the bytes of the scored tokens' pieces where a limit or a missing `B` leaves some out. Standard
//! errors take runs of tokens as independent, not single tokens: see [`Score::blocks`].

use std::f64::consts::LN_2;
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use engines::{Loaded, Segment, State, Token, Want};

use crate::cli::UserError;
use crate::distribution::Distribution;
use crate::progress;
use crate::stats::{self, Mean};

/// What separates documents in texts such as TinyStories.
pub const SEPARATOR: &str = "<|endoftext|>";

/// The most bytes of logits that one call may give: longer windows are read in pieces, which changes no bit.
const LOGITS_BYTES: usize = 64 << 20;

/// About how many tokens are read in one call: short windows are read side by side, which changes no bit.
const BATCH_TOKENS: usize = 1024;

/// Errors come from at least so many blocks, unless the text is too short.
const MIN_BLOCKS: usize = 16;

/// How to score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScoreConfig {
    /// C, the positions that a window holds; at least 1 and at most the model's context.
    pub context: usize,
    /// Stop after so many scored tokens.
    pub max_tokens: Option<usize>,
}

/// What predicting a text cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// Cost of each scored token in nats, in order.
    pub nats: Vec<f32>,
    /// Bytes of the text that was scored.
    pub bytes: usize,
    /// Scored tokens; the length of `nats`.
    pub tokens: usize,
    /// The windows, as ranges of scored tokens.
    pub windows: Vec<Range<usize>>,
}

impl Score {
    /// Cost of all tokens, in nats.
    pub fn total_nats(&self) -> f64 {
        self.nats.iter().map(|nats| f64::from(*nats)).sum()
    }

    /// Mean cost of a token, in nats.
    pub fn nats_per_token(&self) -> f64 {
        self.total_nats() / self.tokens as f64
    }

    /// `exp` of the mean cost of a token. Depends on the tokenizer.
    pub fn perplexity(&self) -> f64 {
        libm::exp(self.nats_per_token())
    }

    /// Mean cost of a byte of the text, in bits. Comparable between tokenizers.
    pub fn bits_per_byte(&self) -> f64 {
        self.total_nats() / LN_2 / self.bytes as f64
    }

    /// The runs of tokens that count as independent of each other: the windows, or, where these are fewer than 16, runs
    /// of equal length (up to one token) within them that make up 16 or a few more.
    pub fn blocks(&self) -> Vec<Range<usize>> {
        let longest = (self.tokens / MIN_BLOCKS).max(1);
        if self.windows.len() >= MIN_BLOCKS {
            return self.windows.clone();
        }
        let cut = |window: &Range<usize>| {
            let (start, len) = (window.start, window.len());
            let parts = len.div_ceil(longest);
            (0..parts).map(move |part| start + len * part / parts..start + len * (part + 1) / parts).collect::<Vec<_>>()
        };
        self.windows.iter().flat_map(cut).collect()
    }

    /// Mean cost of a token in nats, with its standard error over [`Score::blocks`].
    pub fn mean(&self) -> Mean {
        let total = |block: &Range<usize>| self.nats[block.clone()].iter().map(|nats| f64::from(*nats)).sum();
        let blocks = self.blocks();
        let values: Vec<f64> = blocks.iter().map(total).collect();
        let weights: Vec<f64> = blocks.iter().map(|block| block.len() as f64).collect();
        let unknown = Mean { mean: self.nats_per_token(), error: 0.0, blocks: blocks.len() };
        stats::block_mean(&values, &weights).unwrap_or(unknown)
    }

    /// Standard error of the perplexity: perplexity times the error of the mean cost (to first order).
    pub fn perplexity_error(&self) -> f64 {
        self.perplexity() * self.mean().error
    }

    /// Standard error of the bits a byte, the number of bytes to a token taken as fixed.
    pub fn bits_per_byte_error(&self) -> f64 {
        self.mean().error * self.tokens as f64 / self.bytes as f64 / LN_2
    }
}

/// Scores `text` as one document. `each` hears of every scored token in order: its index among the scored ones, the
/// logits `[V]` that predicted it, and the token itself.
///
/// # Errors
/// [`UserError`] for a model without tokenizer, a context that the model does not have, or a text with nothing to score;
/// whatever the model finds wrong; logits from which no cost can be computed.
pub fn score(
    loaded: &Loaded,
    text: &str,
    config: &ScoreConfig,
    each: &mut dyn FnMut(usize, &[f32], Token),
) -> Result<Score> {
    score_documents(loaded, &[text], config, each)
}

/// Scores `documents` one after the other, each alone. For `each` and errors see [`score()`].
///
/// # Errors
/// As [`score()`].
pub fn score_documents(
    loaded: &Loaded,
    documents: &[&str],
    config: &ScoreConfig,
    each: &mut dyn FnMut(usize, &[f32], Token),
) -> Result<Score> {
    let plan = Plan::new(loaded, documents, config)?;
    let nats = score_windows(loaded, &plan.windows, each)?;
    let mut start = 0;
    let ranges = plan.windows.iter().map(|window| {
        start += window.targets.len();
        start - window.targets.len()..start
    });
    let windows = ranges.collect();
    Ok(Score { tokens: nats.len(), bytes: plan.bytes, nats, windows })
}

/// Reads windows, each from an empty state, and gives the cost of every target in nats. For `each` see [`score()`].
///
/// # Errors
/// Whatever the model finds wrong; logits from which no cost can be computed.
pub fn score_windows(
    loaded: &Loaded,
    windows: &[Window],
    each: &mut dyn FnMut(usize, &[f32], Token),
) -> Result<Vec<f32>> {
    let tokens = windows.iter().map(|window| window.targets.len()).sum();
    let bar = progress::count(tokens as u64, "scoring tokens of");
    let mut nats = Vec::with_capacity(tokens);
    let mut costs = Distribution::new();
    let piece = rows_at_once(loaded.model.vocab());
    let mut rest = windows;
    while !rest.is_empty() {
        let side_by_side = batch(rest, piece.min(BATCH_TOKENS));
        let (now, later) = rest.split_at(side_by_side);
        read(loaded, now, piece, &mut |row, target| {
            nats.push(costs.cost(row, target).with_context(|| format!("token {} of the text", nats.len()))?);
            each(nats.len() - 1, row, target);
            Ok(())
        })?;
        bar.set_position(nats.len() as u64);
        rest = later;
    }
    bar.finish_and_clear();
    Ok(nats)
}

/// For how many tokens logits may be asked in one call; at least one.
pub fn rows_at_once(vocab: usize) -> usize {
    (LOGITS_BYTES / (4 * vocab)).max(1)
}

/// The documents of a text whose documents are separated by `separator`, stripped of white space, empty ones left out.
pub fn documents<'a>(text: &'a str, separator: &str) -> Vec<&'a str> {
    text.split(separator).map(str::trim).filter(|document| !document.is_empty()).collect()
}

/// One window: what is read and what each position should predict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Read from an empty state.
    pub inputs: Vec<Token>,
    /// What should come after each input.
    pub targets: Vec<Token>,
}

impl Window {
    /// The same targets in windows of at most `context`: where there is a `bos`, each is read after one.
    ///
    /// # Panics
    /// If `context` is 0.
    pub fn cut(&self, bos: Option<Token>, context: usize) -> Vec<Window> {
        let parts = self.inputs.chunks(context).zip(self.targets.chunks(context));
        let window = |(inputs, targets): (&[Token], &[Token])| {
            let inputs = bos.into_iter().chain(inputs[usize::from(bos.is_some())..].iter().copied()).collect();
            Window { inputs, targets: targets.to_vec() }
        };
        parts.map(window).collect()
    }
}

/// All windows of a text.
struct Plan {
    windows: Vec<Window>,
    /// Bytes of the scored tokens.
    bytes: usize,
}

impl Plan {
    fn new(loaded: &Loaded, documents: &[&str], config: &ScoreConfig) -> Result<Plan> {
        let name = &loaded.name;
        let Some(tokenizer) = &loaded.tokenizer else {
            return Err(UserError::new(format!("model {name} has no tokenizer, so it cannot read text")));
        };
        let facts = loaded.model.facts();
        if config.context == 0 || !facts.holds(config.context) {
            let (context, most) = (config.context, facts.context.unwrap_or(usize::MAX));
            return Err(UserError::new(format!("context {context}: model {name} takes 1 to {most} positions")));
        }
        let (mut windows, mut bytes, mut tokens) = (Vec::new(), 0, 0);
        for document in documents {
            let left = config.max_tokens.map_or(usize::MAX, |most| most - tokens);
            if left == 0 {
                break;
            }
            let text = tokenizer.encode(document)?;
            let cut = cut(&text, tokenizer.bos(), config.context, left);
            let scored: usize = cut.iter().map(|window| window.targets.len()).sum();
            bytes += if scored == text.len() {
                document.len()
            } else {
                let targets = cut.iter().flat_map(|window| &window.targets);
                targets.map(|token| tokenizer.piece_bytes(*token).len()).sum()
            };
            tokens += scored;
            windows.extend(cut);
        }
        if tokens == 0 || bytes == 0 {
            let what = if tokenizer.bos().is_some() { "1 token" } else { "2 tokens" };
            return Err(UserError::new(format!("there is nothing to score: the text needs at least {what}")));
        }
        Ok(Plan { windows, bytes })
    }
}

/// The windows of a text of tokens, up to `most` targets.
pub fn cut(text: &[Token], bos: Option<Token>, context: usize, most: usize) -> Vec<Window> {
    let (first, targets) = match (bos, text.split_first()) {
        (Some(bos), _) => (bos, text),
        (None, Some((first, rest))) => (*first, rest),
        (None, None) => return Vec::new(),
    };
    let targets = &targets[..targets.len().min(most)];
    let mut before = first;
    let windows = targets.chunks(context).map(|targets| {
        let (last, read) = targets.split_last().expect("chunks are never empty");
        let inputs = std::iter::once(before).chain(read.iter().copied()).collect();
        before = bos.unwrap_or(*last);
        Window { inputs, targets: targets.to_vec() }
    });
    windows.collect()
}

/// How many of the first windows to read side by side: at least one, together about `most` tokens.
fn batch(windows: &[Window], most: usize) -> usize {
    let mut tokens = 0;
    let fitting = windows.iter().take_while(|window| {
        tokens += window.inputs.len();
        tokens <= most
    });
    fitting.count().max(1)
}

/// Reads windows side by side (a single one in pieces of at most `piece` tokens) and hands on every position's logits.
fn read(
    loaded: &Loaded,
    windows: &[Window],
    piece: usize,
    each: &mut dyn FnMut(&[f32], Token) -> Result<()>,
) -> Result<()> {
    let model = &loaded.model;
    if let [window] = windows {
        let mut state = model.start(0);
        for (inputs, targets) in window.inputs.chunks(piece).zip(window.targets.chunks(piece)) {
            let logits = model.forward(&mut [Segment { state: &mut state, tokens: inputs, want: Want::All }])?;
            ensure!(logits[0].rows() == targets.len(), "{} logits for {} tokens", logits[0].rows(), targets.len());
            for (i, target) in targets.iter().enumerate() {
                each(logits[0].row(i), *target)?;
            }
        }
        return Ok(());
    }
    let mut states: Vec<State> = windows.iter().map(|_| model.start(0)).collect();
    let segments = states.iter_mut().zip(windows);
    let mut segments: Vec<Segment> =
        segments.map(|(state, window)| Segment { state, tokens: &window.inputs, want: Want::All }).collect();
    let logits = model.forward(&mut segments)?;
    for (logits, window) in logits.iter().zip(windows) {
        for (i, target) in window.targets.iter().enumerate() {
            each(logits.row(i), *target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn window(inputs: &[Token], targets: &[Token]) -> Window {
        Window { inputs: inputs.to_vec(), targets: targets.to_vec() }
    }

    #[test]
    fn windows_are_those_of_the_drawing() {
        let text = [1, 2, 3, 4, 5, 6];
        assert_eq!(
            cut(&text, Some(0), 4, usize::MAX),
            [window(&[0, 1, 2, 3], &[1, 2, 3, 4]), window(&[0, 5], &[5, 6])]
        );
        assert_eq!(cut(&text, None, 4, usize::MAX), [window(&[1, 2, 3, 4], &[2, 3, 4, 5]), window(&[5], &[6])]);
        assert_eq!(cut(&text, Some(0), 4, 1), [window(&[0], &[1])]);
        assert_eq!(cut(&[7], None, 4, usize::MAX), []);
        assert_eq!(cut(&[], Some(0), 4, usize::MAX), []);
    }

    #[test]
    fn windows_can_be_cut_further_as_if_the_text_had_been() {
        let text: Vec<Token> = (1..40).collect();
        for bos in [None, Some(0)] {
            let long = cut(&text, bos, 16, usize::MAX);
            let cut_further: Vec<Window> = long.iter().flat_map(|window| window.cut(bos, 4)).collect();
            assert_eq!(cut_further, cut(&text, bos, 4, usize::MAX));
        }
    }

    proptest! {
        #[test]
        fn every_token_is_predicted_once_and_from_what_stands_before_it(
            text in proptest::collection::vec(1u32..9, 0..50), bos: bool, context in 1usize..9, most in 0usize..60,
        ) {
            let windows = cut(&text, bos.then_some(0), context, most);
            let targets: Vec<Token> = windows.iter().flat_map(|w| w.targets.clone()).collect();
            let scored = if bos { &text[..] } else { text.get(1..).unwrap_or(&[]) };
            prop_assert_eq!(&targets[..], &scored[..scored.len().min(most)]);
            for w in &windows {
                prop_assert!(w.inputs.len() == w.targets.len() && w.inputs.len() <= context);
                prop_assert_eq!(&w.inputs[1..], &w.targets[..w.targets.len() - 1]);
            }
        }

        #[test]
        fn blocks_cover_every_token_once(lengths in proptest::collection::vec(1usize..40, 1..30)) {
            let mut start = 0;
            let mut next = |len: &usize| { start += len; start - len..start };
            let windows: Vec<Range<usize>> = lengths.iter().map(&mut next).collect();
            let tokens: usize = lengths.iter().sum();
            let score = Score { nats: vec![1.0; tokens], bytes: tokens, tokens, windows };
            let blocks = score.blocks();
            let covered: Vec<usize> = blocks.iter().cloned().flatten().collect();
            prop_assert_eq!(covered, (0..tokens).collect::<Vec<_>>());
            prop_assert!(blocks.iter().all(|block| !block.is_empty()));
            prop_assert!(blocks.len() >= score.windows.len().max(MIN_BLOCKS.min(tokens)));
        }
    }

    #[test]
    fn documents_are_stripped_and_empty_ones_dropped() {
        assert_eq!(documents("a\n<|endoftext|>\n\n<|endoftext|> b c ", SEPARATOR), ["a", "b c"]);
    }
}
