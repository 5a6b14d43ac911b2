//! Timing one test of a model: every setting, the bandwidth and the peaks as contestants in the same blocks.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail};
use engines::{Cpu, Facts, Model, State};
use kernels::probe::Arithmetic;
use kernels::{Isa, Kernels, Lines};

use super::{Config, SpeedRow, Test, levels};
use crate::ceilings::{self, MARGIN, STREAMS, arithmetic_name, burst, written_lines};
use crate::contest::{self, Budget, Samples, contest};
use crate::crew::{Crew, with_crew};
use crate::lab::Lab;
use crate::speed;

/// Who takes part in a test.
enum Contestant {
    /// A packing of the model on a level and a number of threads.
    Setting { packing: usize, isa: Isa, threads: usize, model: Arc<dyn Model> },
    /// What the machine can do.
    Ceiling { task: Task, threads: usize },
    /// The hand-overs of a decoded token between so many threads, and nothing else.
    Handover { cpu: Cpu, threads: usize, phases: usize },
}

#[derive(Clone, Copy, PartialEq)]
enum Task {
    /// Reading in so many streams.
    Read(usize),
    /// Multiply-adds in registers.
    Peak(Arithmetic),
}

/// What the ceilings' crew is told.
#[derive(Clone, Copy)]
struct Command {
    task: Task,
    /// How many take part.
    threads: usize,
    calls: u64,
}

/// The work of one sample.
#[derive(Clone, Copy)]
struct Work {
    linear_bytes: u64,
    head_bytes: u64,
    other_bytes: u64,
    cache_bytes: u64,
    linear_operations: u64,
    linear: Arithmetic,
    head_operations: u64,
    head: Arithmetic,
}

impl Work {
    /// A prompt is read at once: weights are streamed once for all its tokens, and only the last gets logits. A decoded
    /// token streams them all, and the cache of every position before it.
    fn of(test: &Test, facts: &Facts) -> Work {
        let prompt = test.prefill.unwrap_or(1) as u64;
        let arithmetic = |integers| if integers { Arithmetic::Int8 } else { Arithmetic::F32 };
        let before = match test.decode {
            // In the middle of the steps.
            Some(steps) => (test.depth + steps / 2) as u64,
            None => 0,
        };
        Work {
            linear_bytes: facts.linear_bytes,
            head_bytes: facts.head_bytes,
            other_bytes: facts.other_bytes,
            cache_bytes: facts.cache_bytes_per_position * before + 2 * facts.state_bytes,
            linear_operations: facts.linear_operations * prompt,
            linear: arithmetic(facts.linear_integers),
            head_operations: facts.head_operations,
            head: arithmetic(facts.head_integers),
        }
    }

    fn bytes(&self) -> f64 {
        (self.linear_bytes + self.head_bytes + self.other_bytes + self.cache_bytes) as f64
    }
}

/// Times a test of a model in all its packings (the plain one first) and settings.
pub(super) fn speeds(
    packings: &[(String, Arc<dyn Model>)],
    test: &Test,
    config: &Config,
    lab: &Lab,
) -> Result<Vec<SpeedRow>> {
    let model = packings[0].1.as_ref();
    let facts = model.facts();
    let works: Vec<Work> = packings.iter().map(|(_, model)| Work::of(test, &model.facts())).collect();
    let counts = test.threads.as_ref().unwrap_or(&config.threads).resolve(lab.threads);
    let cache = config.cache().map_err(anyhow::Error::msg)?;
    let levels = levels(test, model, config, lab);
    let mut contestants = Vec::new();
    for (packing, (_, model)) in packings.iter().enumerate() {
        let levels = if packing == 0 { &levels[..] } else { &levels[levels.len() - 1..] };
        for &isa in levels {
            for &threads in &counts {
                let settings = lab.settings(isa, threads, cache)?;
                contestants.push(Contestant::Setting { packing, isa, threads, model: model.with(&settings) });
            }
        }
    }
    if test.decode.is_some() {
        for &threads in counts.iter().filter(|threads| **threads > 1) {
            let cpu = lab.settings(lab.isa, threads, cache)?.cpu;
            contestants.push(Contestant::Handover { cpu, threads, phases: facts.decode_phases });
        }
    }
    for &threads in &counts {
        let reads = STREAMS.map(Task::Read);
        let peaks = [Task::Peak(Arithmetic::Int8), Task::Peak(Arithmetic::F32)];
        contestants.extend(reads.into_iter().chain(peaks).map(|task| Contestant::Ceiling { task, threads }));
    }
    // Weights that do not fit the last-level cache come from memory; small ones are read where they lie.
    let bytes = works[0].bytes() as u64;
    let large = bytes > 2 * lab.machine.last_level_bytes();
    let walked = if large { ceilings::memory_bytes(&lab.machine, counts[0]) } else { bytes };
    let most = counts.last().copied().unwrap_or(1);
    // The state from which decoding starts is read once, by the fastest setting.
    let mut state = speed::at_depth(model, test.depth)?;
    let samples = with_crew(
        most,
        |_| written_lines(walked),
        |lines, command| carry_out(lines, command, large),
        |crew| measure(crew, &contestants, &config.budget, |model| sample(model, test, &mut state)),
    )?;
    let contest = Contest { packings, test, config, works, contestants, samples, walked, large };
    contest.rows()
}

/// Seconds of the whole prompt, or of a step in the mean.
fn sample(model: &dyn Model, test: &Test, state: &mut State) -> Result<f64> {
    match (test.prefill, test.decode) {
        (Some(prompt), _) => speed::prefill(model, prompt),
        (_, Some(steps)) => {
            let times = speed::decode_from(model, state, steps)?;
            // What has one size costs the same at any depth: a recurrent memory is read on.
            if model.facts().state_bytes == 0 {
                state.rewind(test.depth)?;
            }
            Ok(times.iter().sum::<f64>() / times.len() as f64)
        }
        _ => bail!("a test that neither reads nor decodes"),
    }
}

/// What one thread of the ceilings' crew does. Threads that take part split small data among them, as they split weights.
fn carry_out(lines: &mut Lines, command: Command, large: bool) {
    match command.task {
        Task::Read(streams) => {
            let part = if large { lines.len() } else { (lines.len() / command.threads).max(1) };
            for _ in 0..command.calls {
                black_box(Kernels::best().read(&lines[..part], streams));
            }
        }
        Task::Peak(arithmetic) => {
            burst(Kernels::best(), arithmetic, command.calls);
        }
    }
}

fn measure(
    crew: &mut Crew<Command>,
    contestants: &[Contestant],
    budget: &Budget,
    mut sample: impl FnMut(&dyn Model) -> Result<f64>,
) -> Result<Samples> {
    let mut calls = Vec::with_capacity(contestants.len());
    for contestant in contestants {
        calls.push(match contestant {
            // Once, so that nothing is done for the first time while it is timed.
            Contestant::Setting { model, .. } => sample(model.as_ref()).map(|_| 1)?,
            &Contestant::Ceiling { task, threads } => {
                contest::repetitions(budget, |calls| crew.time_on(threads, Command { task, threads, calls }))?
            }
            Contestant::Handover { cpu, phases, .. } => {
                contest::repetitions(budget, |calls| rehearse(cpu, *phases, calls))?
            }
        });
    }
    contest(contestants.len(), budget, |i| match &contestants[i] {
        Contestant::Setting { model, .. } => sample(model.as_ref()),
        &Contestant::Ceiling { task, threads } => {
            Ok(crew.time_on(threads, Command { task, threads, calls: calls[i] })? / calls[i] as f64)
        }
        Contestant::Handover { cpu, phases, .. } => Ok(rehearse(cpu, *phases, calls[i])? / calls[i] as f64),
    })
}

/// Seconds of so many regions of `phases` empty phases.
fn rehearse(cpu: &Cpu, phases: usize, regions: u64) -> Result<f64> {
    let clock = Instant::now();
    for _ in 0..regions {
        cpu.rehearse(phases)?;
    }
    Ok(clock.elapsed().as_secs_f64())
}

/// What was measured of a test.
struct Contest<'a> {
    packings: &'a [(String, Arc<dyn Model>)],
    test: &'a Test,
    config: &'a Config,
    /// Of each packing.
    works: Vec<Work>,
    contestants: Vec<Contestant>,
    samples: Samples,
    walked: u64,
    large: bool,
}

impl Contest<'_> {
    fn rows(&self) -> Result<Vec<SpeedRow>> {
        (0..self.contestants.len()).filter_map(|i| self.row(i).transpose()).collect()
    }

    fn find(&self, is: impl Fn(&Contestant) -> bool) -> Option<usize> {
        self.contestants.iter().position(is)
    }

    /// Bytes that a call of a reading contestant reads, all threads together.
    fn read_bytes(&self, threads: usize) -> f64 {
        let lines = (self.walked / 64).max(1);
        let each = if self.large { lines } else { (lines / threads as u64).max(1) };
        (threads as u64 * each * 64) as f64
    }

    /// The fastest reader on so many threads, with its streams.
    fn reader(&self, on: usize) -> Option<(usize, usize)> {
        let readers = self.contestants.iter().enumerate().filter_map(|(i, contestant)| match contestant {
            Contestant::Ceiling { task: Task::Read(streams), threads } if *threads == on => Some((i, *streams)),
            _ => None,
        });
        readers.min_by(|a, b| self.samples.seconds(a.0).median.total_cmp(&self.samples.seconds(b.0).median))
    }

    fn peak(&self, on: usize, arithmetic: Arithmetic) -> Option<usize> {
        self.find(|c| {
            matches!(c, Contestant::Ceiling { task, threads }
            if *threads == on && *task == Task::Peak(arithmetic))
        })
    }

    /// The row of a setting; none for a ceiling.
    fn row(&self, index: usize) -> Result<Option<SpeedRow>> {
        let Contestant::Setting { packing, isa, threads, .. } = &self.contestants[index] else { return Ok(None) };
        let (packing, isa, threads) = (*packing, *isa, *threads);
        let (samples, work) = (&self.samples, &self.works[packing]);
        let ceilings = (self.reader(threads), self.peak(threads, work.linear), self.peak(threads, work.head));
        let (Some((reader, streams)), Some(linear), Some(head)) = ceilings else {
            bail!("the ceilings of {threads} threads were not measured");
        };
        let read = self.read_bytes(threads);
        let done = |arithmetic| threads as f64 * burst(Kernels::best(), arithmetic, 1024) as f64 / 1024.0;
        let (linear_done, head_done) = (done(work.linear), done(work.head));
        let by_bandwidth = |time: &dyn Fn(usize) -> f64| work.bytes() / read * time(reader) / time(index);
        let by_peak = |time: &dyn Fn(usize) -> f64| {
            let linear = work.linear_operations as f64 / linear_done * time(linear);
            let head = work.head_operations as f64 / head_done * time(head);
            (linear + head) / time(index)
        };
        let share_of_bandwidth = samples.derived(by_bandwidth);
        let share_of_peak = samples.derived(by_peak);
        for (share, what) in [(&share_of_bandwidth, "read bandwidth"), (&share_of_peak, "arithmetic peak")] {
            if share.low > 1.0 + MARGIN {
                bail!(
                    "{isa} on {threads} threads reached {:.0} % of the machine's {what}, which no more than {:.0} % of noise \
                     explains: the measurement or the model's stated work is wrong",
                    share.median * 100.0,
                    MARGIN * 100.0
                );
            }
        }
        let setting = |of: usize, on: usize| {
            self.find(|c| {
                matches!(c, Contestant::Setting { packing, isa: level, threads, .. }
                if (*packing, *level, *threads) == (of, isa, on))
            })
        };
        let one = setting(packing, 1);
        let plain = setting(0, threads).filter(|_| packing > 0);
        let below = self
            .contestants
            .iter()
            .enumerate()
            .filter_map(|(i, contestant)| match contestant {
                Contestant::Setting { packing: of, isa: level, threads: t, .. }
                    if (*of, *t) == (packing, threads) && *level < isa =>
                {
                    Some((i, *level))
                }
                _ => None,
            })
            .max_by_key(|(_, level)| *level);
        let handover = self.find(|c| matches!(c, Contestant::Handover { threads: t, .. } if *t == threads));
        let seconds = samples.seconds(index);
        let tokens = self.test.prefill.unwrap_or(1) as f64;
        Ok(Some(SpeedRow {
            model: self.packings[packing].0.clone(),
            test: if self.test.prefill.is_some() { "prefill" } else { "decode" }.to_string(),
            tokens: self.test.prefill.or(self.test.decode).unwrap_or(0),
            depth: self.test.depth,
            isa: isa.name().to_string(),
            threads,
            cache: self.config.cache.clone(),
            tokens_per_s: seconds.map(|time| tokens / time),
            wait_ms: seconds.map(|time| time * 1e3),
            linear_bytes: work.linear_bytes,
            head_bytes: work.head_bytes,
            other_bytes: work.other_bytes,
            cache_bytes: work.cache_bytes,
            linear_operations: work.linear_operations,
            head_operations: work.head_operations,
            ceiling_gb_per_s: samples.seconds(reader).map(|time| read / time / 1e9),
            ceiling_by: format!(
                "read in {streams} streams, {}",
                if self.large { "from memory" } else { "as many bytes as a token" }
            ),
            ceiling_gops: samples.seconds(linear).map(|time| linear_done / time / 1e9),
            arithmetic: arithmetic_name(work.linear).to_string(),
            share_of_bandwidth,
            share_of_peak,
            share_of_handover: handover.map(|handover| samples.derived(|time| time(handover) / time(index))),
            speedup_over_one_thread: one.filter(|_| threads > 1).map(|one| samples.speedup(index, one)),
            below: below.map(|(_, level)| level.name().to_string()),
            speedup_over_below: below.map(|(below, _)| samples.speedup(index, below)),
            plain: plain.map(|_| self.packings[0].0.clone()),
            speedup_over_plain: plain.map(|plain| samples.speedup(index, plain)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            architecture: "bitnet-b1.58",
            parameters: 1000,
            layers: 1,
            width: 8,
            vocab: 32,
            context: Some(64),
            weights: "ternary i2, bf16 tied head".to_string(),
            linear_bytes: 100,
            head_bytes: 50,
            other_bytes: 7,
            cache_bytes_per_position: 3,
            state_bytes: 0,
            linear_operations: 800,
            linear_integers: true,
            head_operations: 500,
            head_integers: false,
            decode_phases: 10,
        }
    }

    #[test]
    fn a_prompt_streams_weights_once_and_a_token_streams_the_cache_as_well() {
        let prefill: Test = toml::from_str("prefill = 10").unwrap();
        let work = Work::of(&prefill, &facts());
        assert_eq!((work.bytes(), work.linear_operations, work.head_operations), (157.0, 8000, 500));
        let decode: Test = toml::from_str("decode = 8\ndepth = 20").unwrap();
        let work = Work::of(&decode, &facts());
        assert_eq!((work.bytes(), work.cache_bytes, work.linear_operations), (157.0 + 72.0, 72, 800));
    }
}
