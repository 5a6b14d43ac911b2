//! Timed runs of a model: reading a prompt, and one token after the other.

use std::time::Instant;

use anyhow::{Context, Result};
use engines::{Model, Segment, State, Token, Want};
use kernels::Rng;

/// What the tokens of timed runs are a function of; speed does not depend on them.
const SEED: u64 = 20_240_227;

/// `count` tokens below `vocab`, the same on every machine.
pub fn tokens(count: usize, vocab: usize) -> Vec<Token> {
    let mut rng = Rng::new(SEED);
    (0..count).map(|_| rng.below(vocab) as Token).collect()
}

/// A state that has read `depth` tokens. Its bits do not depend on ISA or threads, so one serves all of a model's
/// settings with the same cache format.
///
/// # Errors
/// Whatever the model finds wrong, for example a depth beyond its context.
pub fn at_depth(model: &dyn Model, depth: usize) -> Result<State> {
    let mut state = model.start(0);
    read_on(model, &mut state, depth)?;
    Ok(state)
}

/// Has `state` read `count` tokens more.
///
/// # Errors
/// As [`at_depth`].
pub fn read_on(model: &dyn Model, state: &mut State, count: usize) -> Result<()> {
    // In pieces, so that the memory of the batch stays small at great depths.
    tokens(count, model.vocab()).chunks(512).try_for_each(|piece| read(model, state, piece))
}

/// Seconds to read a prompt of `prompt` tokens on an empty state, up to the logits of its last token.
///
/// # Errors
/// Whatever the model finds wrong.
pub fn prefill(model: &dyn Model, prompt: usize) -> Result<f64> {
    prefill_from(model, &mut model.start(0), prompt)
}

/// As [`prefill`], after what `state` has read.
///
/// # Errors
/// Whatever the model finds wrong.
pub fn prefill_from(model: &dyn Model, state: &mut State, prompt: usize) -> Result<f64> {
    let tokens = tokens(prompt, model.vocab());
    let start = Instant::now();
    read(model, state, &tokens)?;
    Ok(start.elapsed().as_secs_f64())
}

/// Seconds of each of `steps` steps of one token, after `depth` tokens that are not timed.
///
/// # Errors
/// Whatever the model finds wrong.
pub fn decode(model: &dyn Model, depth: usize, steps: usize) -> Result<Vec<f64>> {
    decode_from(model, &mut at_depth(model, depth)?, steps)
}

/// As [`decode`], after what `state` has read.
///
/// # Errors
/// Whatever the model finds wrong.
pub fn decode_from(model: &dyn Model, state: &mut State, steps: usize) -> Result<Vec<f64>> {
    let tokens = tokens(steps, model.vocab());
    let step = |token| {
        let start = Instant::now();
        read(model, state, std::slice::from_ref(token))?;
        Ok(start.elapsed().as_secs_f64())
    };
    tokens.iter().map(step).collect()
}

fn read(model: &dyn Model, state: &mut State, tokens: &[Token]) -> Result<()> {
    let logits = model.forward(&mut [Segment { state, tokens, want: Want::Last }])?;
    // What is not used could be left out by the compiler.
    std::hint::black_box(logits);
    Ok(())
}

/// Bytes of this process that lie in memory now.
///
/// # Errors
/// A system that does not tell (only Linux does).
pub fn resident_bytes() -> Result<u64> {
    status_bytes("VmRSS")
}

/// The most bytes of this process that have lain in memory at once so far.
///
/// # Errors
/// A system that does not tell (only Linux does).
pub fn peak_resident_bytes() -> Result<u64> {
    status_bytes("VmHWM")
}

fn status_bytes(key: &str) -> Result<u64> {
    const FILE: &str = "/proc/self/status";
    let text = std::fs::read_to_string(FILE).with_context(|| format!("cannot read {FILE}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let kib = line.and_then(|value| value.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).with_context(|| format!("{FILE} has no {key} in kB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_the_same_every_time_and_below_the_vocabulary() {
        let some = tokens(1000, 7);
        assert_eq!(some, tokens(1000, 7));
        assert!(some.iter().all(|token| *token < 7) && some.contains(&0) && some.contains(&6));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn resident_memory_grows_with_what_is_written() {
        let before = resident_bytes().unwrap();
        let block = vec![1u8; 64 << 20];
        std::hint::black_box(&block);
        let after = resident_bytes().unwrap();
        assert!(after >= before + (48 << 20), "{before} then {after}");
        assert!(peak_resident_bytes().unwrap() >= after);
    }
}
