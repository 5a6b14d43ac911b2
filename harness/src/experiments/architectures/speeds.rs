//! Timing models against each other: decoding and reading of each, and readers of as many bytes, as contestants of the
//! same blocks.

use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use engines::{Model, State};
use kernels::{Kernels, Lines};

use super::{Config, SpeedRow, moved_bytes};
use crate::ceilings::{self, MARGIN, STREAMS, written_lines};
use crate::contest::{self, Samples, contest};
use crate::crew::{Crew, with_crew};
use crate::lab::Lab;
use crate::machine::Machine;
use crate::speed;

/// What is timed for a model: one contestant each.
#[derive(Clone, Copy, PartialEq)]
enum Work {
    /// Tokens one after the other.
    Decode,
    /// A prompt at once.
    Prefill,
    /// Reading of as many bytes as a decoded token moves, in so many streams.
    Read(usize),
}

const WORKS: [Work; 2 + STREAMS.len()] = {
    let [a, b, c] = STREAMS;
    [Work::Decode, Work::Prefill, Work::Read(a), Work::Read(b), Work::Read(c)]
};

/// What the readers' crew is told.
#[derive(Clone, Copy)]
struct Command {
    lines: usize,
    streams: usize,
    calls: u64,
}

/// Lines that each of `threads` threads reads in place of `bytes` of a model, and whether they come from memory: models
/// that do not fit the last-level cache are read from there.
fn walk(bytes: u64, threads: usize, machine: &Machine) -> (usize, bool) {
    let large = bytes > 2 * machine.last_level_bytes();
    let each = if large { ceilings::memory_bytes(machine, threads) } else { bytes / threads as u64 };
    ((each / 64).max(1) as usize, large)
}

struct Contestant<'m> {
    name: &'m str,
    model: &'m Arc<dyn Model>,
    /// From which decoding starts.
    state: State,
    /// What a decoded token moves, in the middle of the steps.
    moved: u64,
    lines: usize,
    large: bool,
}

/// Times all models on all threads.
pub(super) fn rows(config: &Config, models: &[(&str, Arc<dyn Model>)], lab: &Lab) -> Result<Vec<SpeedRow>> {
    let mut contestants = Vec::new();
    for (name, model) in models {
        let state = speed::at_depth(&**model, config.decode.depth)?;
        let moved = moved_bytes(&**model, config.decode.depth + config.decode.steps.div_ceil(2));
        let (lines, large) = walk(moved, lab.threads, &lab.machine);
        contestants.push(Contestant { name, model, state, moved, lines, large });
    }
    let most = contestants.iter().map(|contestant| contestant.lines).max().context("no model")?;
    let samples = with_crew(
        lab.threads,
        |_| written_lines(most as u64 * 64),
        |lines: &mut Lines, Command { lines: count, streams, calls }| {
            for _ in 0..calls {
                black_box(Kernels::best().read(&lines[..count], streams));
            }
        },
        |crew| measure(config, &mut contestants, crew),
    )?;
    (0..contestants.len()).map(|i| row(config, &contestants, i, &samples, lab)).collect()
}

fn place(model: usize, work: usize) -> usize {
    model * WORKS.len() + work
}

fn measure(config: &Config, contestants: &mut [Contestant<'_>], crew: &mut Crew<Command>) -> Result<Samples> {
    let mut calls = vec![1; contestants.len() * WORKS.len()];
    for (i, contestant) in contestants.iter_mut().enumerate() {
        for (w, work) in WORKS.into_iter().enumerate() {
            let lines = contestant.lines;
            match work {
                Work::Read(streams) => {
                    let time = |calls| crew.time(Command { lines, streams, calls });
                    calls[place(i, w)] = contest::repetitions(&config.budget, time)?;
                }
                // Once, so that nothing is done for the first time while it is timed.
                _ => drop(sample(config, contestant, work)?),
            }
        }
    }
    contest(calls.len(), &config.budget, |at| {
        let (contestant, work) = (&mut contestants[at / WORKS.len()], WORKS[at % WORKS.len()]);
        match work {
            Work::Read(streams) => {
                let command = Command { lines: contestant.lines, streams, calls: calls[at] };
                Ok(crew.time(command)? / calls[at] as f64)
            }
            _ => sample(config, contestant, work),
        }
    })
}

/// Seconds of a token.
fn sample(config: &Config, contestant: &mut Contestant<'_>, work: Work) -> Result<f64> {
    let model = &**contestant.model;
    if work == Work::Prefill {
        return Ok(speed::prefill(model, config.prefill)? / config.prefill as f64);
    }
    let times = speed::decode_from(model, &mut contestant.state, config.decode.steps)?;
    // A recurrent memory costs the same at any depth, and is read on.
    if model.facts().state_bytes == 0 {
        contestant.state.rewind(config.decode.depth)?;
    }
    // The first step brings the weights of this model back into the caches.
    Ok(times[1..].iter().sum::<f64>() / (times.len() - 1) as f64)
}

fn row(config: &Config, contestants: &[Contestant<'_>], i: usize, samples: &Samples, lab: &Lab) -> Result<SpeedRow> {
    let contestant = &contestants[i];
    let (decode, prefill) = (place(i, 0), place(i, 1));
    let readers = STREAMS.iter().enumerate().map(|(w, streams)| (place(i, 2 + w), streams));
    let fastest = readers.min_by(|a, b| samples.seconds(a.0).median.total_cmp(&samples.seconds(b.0).median));
    let (reader, streams) = fastest.context("no reader")?;
    let read = (contestant.lines * 64 * lab.threads) as f64;
    let share = samples.derived(|time| contestant.moved as f64 / read * time(reader) / time(decode));
    if share.low > 1.0 + MARGIN {
        bail!(
            "decoding {} reached {:.0} % of the read bandwidth, which no more than {:.0} % of noise explains: the \
             measurement or the model's stated work is wrong",
            contestant.name,
            share.median * 100.0,
            MARGIN * 100.0
        );
    }
    Ok(SpeedRow {
        model: contestant.name.to_string(),
        reference: contestants[0].name.to_string(),
        isa: lab.isa.name().to_string(),
        threads: lab.threads,
        cache: config.cache.clone(),
        depth: config.decode.depth,
        prompt: config.prefill,
        decode_tokens_per_s: samples.seconds(decode).map(|time| 1.0 / time),
        decode_over_reference: samples.speedup(decode, place(0, 0)),
        prefill_tokens_per_s: samples.seconds(prefill).map(|time| 1.0 / time),
        prefill_over_reference: samples.speedup(prefill, place(0, 1)),
        moved_bytes: contestant.moved,
        ceiling_gb_per_s: samples.seconds(reader).map(|time| read / time / 1e9),
        ceiling_by: format!(
            "read in {streams} streams, {}",
            if contestant.large { "from memory" } else { "as many bytes as a token" }
        ),
        share_of_bandwidth: share,
    })
}
