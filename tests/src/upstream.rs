//! Holds an engine or a reference to what upstream computed from a golden model's files. Pass marks are in [`parity`];
//! every function gives the differences that it found, or a sentence that says which one is above its mark.

use crate::golden::{Golden, largest_difference, rows};
use crate::parity::{self, CLEAN};
use crate::reference::Oracle;
use crate::running::{logits, logits_stepwise, plain, wide};
use engines::decode::{Request, generate};
use engines::{Inspect, Model, Segment, Token, Want, sample::Sampler};
use ndarray::{Array2, s};
use std::ops::ControlFlow;

/// What can be held to a golden model.
pub trait Subject {
    /// Hidden states, from the embedding output on, and logits of every token, all read in one call.
    fn trace(&self, tokens: &[Token]) -> (Vec<Array2<f64>>, Array2<f64>);

    /// One block alone on golden inputs x `[T, D]`, at the beginning of a sequence.
    fn block(&self, index: usize, x: &Array2<f64>) -> Array2<f64>;

    /// Logits of every token, all read in one call.
    fn whole(&self, tokens: &[Token]) -> Array2<f64>;

    /// Logits of every token, read one by one.
    fn steps(&self, tokens: &[Token]) -> Array2<f64>;

    /// The most likely continuation.
    fn greedy(&self, prompt: &[Token], count: usize) -> Vec<Token>;
}

impl Subject for dyn Model {
    fn trace(&self, tokens: &[Token]) -> (Vec<Array2<f64>>, Array2<f64>) {
        let trace = Inspect::trace(self, &mut self.start(0), tokens).expect("a pass");
        let width = self.facts().width;
        (trace.hidden.iter().map(|x| rows(x, width)).collect(), wide(&trace.logits))
    }

    fn block(&self, index: usize, x: &Array2<f64>) -> Array2<f64> {
        let narrow: Vec<f32> = x.iter().map(|x| *x as f32).collect();
        rows(&Inspect::block(self, index, &narrow).expect("a block of the model"), x.ncols())
    }

    fn whole(&self, tokens: &[Token]) -> Array2<f64> {
        wide(&logits(self, tokens))
    }

    fn steps(&self, tokens: &[Token]) -> Array2<f64> {
        wide(&logits_stepwise(self, tokens))
    }

    fn greedy(&self, prompt: &[Token], count: usize) -> Vec<Token> {
        let sampler = Sampler::greedy();
        let request = Request {
            prompt,
            max_tokens: count,
            sampler: &sampler,
            kernels: plain().cpu.kernels(),
            stop_tokens: &[],
            stop_texts: &[],
            tokenizer: None,
        };
        let mut found = Vec::new();
        let mut take = |token| {
            found.push(token);
            ControlFlow::Continue(())
        };
        generate(self, &mut self.start(0), &request, &mut take).expect("a continuation");
        found
    }
}

impl Subject for dyn Oracle {
    fn trace(&self, tokens: &[Token]) -> (Vec<Array2<f64>>, Array2<f64>) {
        let pass = self.run(tokens).pass;
        (pass.hidden, pass.logits)
    }

    fn block(&self, index: usize, x: &Array2<f64>) -> Array2<f64> {
        Oracle::block(self, index, x)
    }

    fn whole(&self, tokens: &[Token]) -> Array2<f64> {
        self.run(tokens).pass.logits
    }

    fn steps(&self, tokens: &[Token]) -> Array2<f64> {
        self.run(tokens).pass.logits
    }

    fn greedy(&self, prompt: &[Token], count: usize) -> Vec<Token> {
        Oracle::greedy(self, prompt, count).0
    }
}

/// The pass mark of logits, by whether the model is a continuous function.
fn compare(golden: &Golden, found: &Array2<f64>, expected: &Array2<f64>) -> Result<f64, String> {
    let rule = if golden.is_float() { parity::float_logits } else { parity::quantised_logits };
    rule(found, expected)
}

/// Each block alone on golden inputs: the share of positions with a changed code, and the largest difference in units of
/// what the block adds.
///
/// # Errors
/// A block above its mark.
pub fn blocks<S: Subject + ?Sized>(golden: &Golden, subject: &S) -> Result<Vec<(f64, f64)>, String> {
    let rule = if golden.is_float() { parity::float_block } else { parity::quantised_block };
    let hidden = golden.hidden();
    let block = |index: usize| {
        let (input, expected) = (&hidden[index], &hidden[index + 1]);
        rule(input, &subject.block(index, input), expected).map_err(|e| format!("block {index}: {e}"))
    };
    (0..golden.blocks_alone()).map(block).collect()
}

/// A recurrent model against its oracle where no golden file exists: each of the first `alone` blocks on the oracle's inputs,
/// hidden states, and logits of all tokens in one call and one by one. Gives the largest difference of blocks and of logits.
///
/// # Errors
/// The first that is above its mark.
pub fn oracle<S: Subject + ?Sized>(
    oracle: &dyn Oracle,
    subject: &S,
    tokens: &[Token],
    alone: usize,
) -> Result<(f64, f64), String> {
    let pass = oracle.run(tokens).pass;
    let mut block = 0.0f64;
    for index in 0..alone {
        // Both read the very same f32 numbers.
        let input = pass.hidden[index].mapv(|x| f64::from(x as f32));
        let expected = oracle.block(index, &input);
        let (_, worst) = parity::block_distance(&input, &subject.block(index, &input), &expected);
        if worst > parity::RECURRENT_BLOCK {
            return Err(format!("block {index}: a difference of {worst:.2e} of the block's change"));
        }
        block = block.max(worst);
    }
    let (hidden, logits) = subject.trace(tokens);
    if hidden.len() != pass.hidden.len() {
        return Err(format!("{} hidden states, not {}", hidden.len(), pass.hidden.len()));
    }
    for (index, (found, expected)) in hidden.iter().zip(&pass.hidden).enumerate() {
        let difference = largest_difference(found, expected);
        if difference > parity::FLOAT * parity::deviation(expected).max(1.0) {
            return Err(format!("hidden state {index} differs by {difference:.2e}"));
        }
    }
    let mut logit = parity::float_logits(&logits, &pass.logits)?;
    for (form, found) in [("in one call", subject.whole(tokens)), ("one by one", subject.steps(tokens))] {
        logit = logit.max(parity::float_logits(&found, &pass.logits).map_err(|e| format!("{form}: {e}"))?);
    }
    Ok((block, logit))
}

/// Logits and hidden states of the golden prompt: the largest difference of each.
///
/// # Errors
/// Logits above their mark; hidden states above it although no activation code changed.
pub fn trace<S: Subject + ?Sized>(golden: &Golden, subject: &S) -> Result<(f64, f64), String> {
    let (hidden, logits) = subject.trace(&golden.tokens("main.input_ids"));
    let difference = compare(golden, &logits, &golden.matrix("main.logits"))?;
    let expected = golden.hidden();
    if hidden.len() != expected.len() {
        return Err(format!("{} hidden states, not {}", hidden.len(), expected.len()));
    }
    let embedding = largest_difference(&hidden[0], &expected[0]);
    if embedding > golden.embedding_mark() {
        return Err(format!("the embedding output differs by {embedding:.2e}"));
    }
    let worst = hidden.iter().zip(&expected).map(|(a, b)| largest_difference(a, b)).fold(0.0, f64::max);
    if difference < CLEAN && worst >= CLEAN {
        return Err(format!("hidden states differ by {worst:.2e}"));
    }
    Ok((difference, worst))
}

/// What a recurrent model remembers after the golden prompt: the largest difference, in units of the number itself where
/// that is above 1. A convolution's golden state holds one input more than the next token needs, the oldest.
///
/// # Errors
/// A part that only one of both has, one of another shape, or a number above the mark of states.
pub fn states(golden: &Golden, model: &dyn Model) -> Result<f64, String> {
    let mut state = model.start(0);
    let segment = Segment { state: &mut state, tokens: &golden.tokens("main.input_ids"), want: Want::Last };
    model.forward(&mut [segment]).map_err(|e| e.to_string())?;
    let mut expected = golden.states();
    let mut worst = 0.0f64;
    for part in model.remembered(&state).map_err(|e| e.to_string())? {
        let name = format!("state.{}.{:02}", part.name, part.layer);
        let index = expected.iter().position(|(theirs, _)| *theirs == name);
        let (_, theirs) = expected.remove(index.ok_or_else(|| format!("no golden {name}"))?);
        let mut shape = theirs.shape.clone();
        let mut numbers = theirs.f64s();
        if part.name == "conv" {
            let taps = shape.pop().unwrap_or(1);
            shape.push(taps - 1);
            numbers = numbers.chunks(taps).flat_map(|taps| taps[1..].to_vec()).collect();
        }
        if part.shape != shape {
            return Err(format!("{name} has the shape {:?}, not {shape:?}", part.shape));
        }
        let apart = |(a, b): (&f32, f64)| (f64::from(*a) - b).abs() / b.abs().max(1.0);
        let difference = part.values.iter().zip(numbers).map(apart).fold(0.0, f64::max);
        if difference > STATE {
            return Err(format!("{name} is {difference:.2e} away"));
        }
        worst = worst.max(difference);
    }
    match expected.first() {
        None => Ok(worst),
        Some((name, _)) => Err(format!("{name} is not remembered")),
    }
}

/// The most that a remembered number may be off: both programs round in f32.
const STATE: f64 = 2e-5;

/// Logits of prompts that nobody selected, of 1, 7, 61 and 200 tokens: the largest difference of each.
///
/// # Errors
/// One above its mark.
pub fn prompts<S: Subject + ?Sized>(golden: &Golden, subject: &S) -> Result<[f64; 4], String> {
    let mut differences = [0.0; 4];
    for (prompt, difference) in ["p1", "p2", "p3", "p4"].into_iter().zip(&mut differences) {
        let all = subject.whole(&golden.tokens(&format!("{prompt}.input_ids")));
        let expected = golden.matrix(&format!("{prompt}.logits"));
        // Of the longest prompt only the last positions were kept.
        let found = all.slice(s![all.nrows() - expected.nrows().., ..]).to_owned();
        *difference = compare(golden, &found, &expected).map_err(|e| format!("{prompt}: {e}"))?;
    }
    Ok(differences)
}

/// Greedy decoding after the golden prompt: how many tokens are equal from the first on, and the largest difference of the
/// logits from which they are taken, with the golden tokens fed one by one.
///
/// # Errors
/// Another token where no changed code can excuse it, or logits above their mark.
pub fn greedy<S: Subject + ?Sized>(golden: &Golden, subject: &S) -> Result<(usize, f64), String> {
    let (prompt, expected) = (golden.tokens("main.input_ids"), golden.tokens("main.greedy_ids"));
    let found = subject.greedy(&prompt, expected.len());
    if found.len() != expected.len() {
        return Err(format!("{} greedy tokens, not {}", found.len(), expected.len()));
    }
    let equal = found.iter().zip(&expected).take_while(|(a, b)| a == b).count();
    // A changed code may make another token best where the golden lead is small; from there on texts differ.
    if equal < expected.len() {
        let gap = golden.vector("main.greedy_gap")[equal];
        if golden.is_float() || gap >= parity::GAP {
            return Err(format!("greedy token {equal} is {}, not {}", found[equal], expected[equal]));
        }
    }
    let fed = [&prompt[..], &expected[..expected.len() - 1]].concat();
    let all = subject.steps(&fed);
    let last = all.slice(s![prompt.len() - 1.., ..]).to_owned();
    let difference = compare(golden, &last, &golden.matrix("main.greedy_logits"));
    Ok((equal, difference.map_err(|e| format!("greedy logits: {e}"))?))
}
