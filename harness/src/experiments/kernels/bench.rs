//! Timing one combination of ops, shape, working set and threads: all variants, the bandwidth and the arithmetic peaks as
//! contestants in the same blocks.

use std::hint::black_box;

use anyhow::{Result, bail};
use kernels::probe::{Arithmetic, Case, Probe, Shape};
use kernels::{Isa, Kernels, Lines, Rng};

use super::{Combination, Config, SpeedRow, WorkingSet, own_tables};
use crate::ceilings::{MARGIN, STREAMS, arithmetic_name, burst, written_lines};
use crate::contest::{self, Budget, Samples, contest};
use crate::crew::{Crew, with_crew};
use crate::lab::Lab;

/// What a thread holds.
struct Bench {
    /// Cases of each op, in turn.
    rings: Vec<Ring>,
    /// As much memory as the cases move, for the bandwidth ceiling.
    lines: Lines,
    at: usize,
    /// Lines to a call.
    part: usize,
    /// Where copies go; empty where cases are walked through, because copying is never faster than reading there.
    copies: Lines,
}

/// Cases that are computed one after the other, again and again.
struct Ring {
    cases: Vec<Box<dyn Case>>,
    next: usize,
}

/// What a crew is told to do `calls` times.
#[derive(Clone, Copy)]
struct Command {
    task: Task,
    calls: u64,
}

#[derive(Clone, Copy)]
enum Task {
    /// An entrant, by its place in the combination, in one of its variants.
    Variant(usize, &'static Kernels),
    /// Reading what a call moves.
    Read(&'static Kernels, usize),
    /// Copying from one half of what a call moves to the other.
    Copy,
    /// A round of multiply-adds in registers.
    Peak(&'static Kernels, Arithmetic),
}

impl Task {
    /// For the row.
    fn told(self) -> String {
        match self {
            Task::Read(kernels, 1) => format!("read by {} in 1 stream", kernels.isa()),
            Task::Read(kernels, streams) => format!("read by {} in {streams} streams", kernels.isa()),
            Task::Copy => "copy".to_string(),
            Task::Variant(_, kernels) | Task::Peak(kernels, _) => kernels.isa().to_string(),
        }
    }
}

impl Bench {
    fn new(combination: &Combination<'_>, instances: &[usize], seed: u64) -> Bench {
        let Combination { entrants, working_set, .. } = combination;
        let part = part(combination) as usize;
        let ring = |((probe, shape), instances): (&(&Probe, Shape), &usize)| Ring {
            cases: (0..*instances).map(|i| (probe.case)(shape, seed.wrapping_add(i as u64))).collect(),
            next: 0,
        };
        let copies = match working_set {
            WorkingSet::Cache => written_lines(part as u64 / 2 * 64),
            _ => Lines::zeroed(0),
        };
        Bench {
            rings: entrants.iter().zip(instances).map(ring).collect(),
            lines: written_lines((part * instances[0] * 64) as u64),
            at: 0,
            part,
            copies,
        }
    }

    fn carry_out(&mut self, command: Command) {
        match command.task {
            Task::Variant(op, kernels) => {
                let Ring { cases, next } = &mut self.rings[op];
                for _ in 0..command.calls {
                    cases[*next].run(kernels);
                    *next = (*next + 1) % cases.len();
                }
            }
            Task::Read(kernels, streams) => {
                // Calls that follow each other in memory are read in one go: the ceiling has long streams.
                let mut left = command.calls as usize * self.part;
                while left > 0 {
                    let count = left.min(self.lines.len() - self.at);
                    black_box(kernels.read(&self.lines[self.at..][..count], streams));
                    self.at = (self.at + count) % self.lines.len();
                    left -= count;
                }
            }
            Task::Copy => {
                let half = self.copies.len();
                for _ in 0..command.calls {
                    self.copies.copy_from_slice(black_box(&self.lines[..half]));
                    black_box(&mut self.copies);
                }
            }
            Task::Peak(kernels, arithmetic) => {
                burst(kernels, arithmetic, command.calls);
            }
        }
    }
}

/// Cases of each entrant that a thread walks through; `None` where one of them cannot lie where it should.
pub(super) fn instances(combination: &Combination<'_>, lab: &Lab) -> Option<Vec<usize>> {
    let Combination { entrants, working_set, threads } = combination;
    let of =
        |(probe, shape): &(&Probe, Shape)| working_set.instances(&lab.machine, *threads, (probe.work)(shape).bytes);
    entrants.iter().map(of).collect()
}

/// Times all variants of a combination.
pub(super) fn speeds(
    combination: &Combination<'_>,
    instances: &[usize],
    config: &Config,
    lab: &Lab,
) -> Result<Vec<SpeedRow>> {
    let Combination { entrants, working_set, threads } = combination;
    let mut tasks = Vec::new();
    for (place, (probe, shape)) in entrants.iter().enumerate() {
        // The specification of a comparator is not what anyone compares with.
        let slow = (probe.work)(shape).operations > config.scalar_operations || probe.comparator.is_some();
        let tables = own_tables(probe, lab).into_iter().filter(|table| !slow || table.isa() != Isa::Scalar);
        tasks.extend(tables.map(|table| Task::Variant(place, table)));
    }
    let variants = tasks.len();
    let seed = lab.seed;
    with_crew(
        *threads,
        |thread| Bench::new(combination, instances, Rng::mix(seed.wrapping_add(1 + thread as u64))),
        |bench, command| bench.carry_out(command),
        |crew| {
            for (probe, _) in entrants {
                if !tasks.iter().any(|task| matches!(task, Task::Peak(_, known) if *known == probe.arithmetic)) {
                    tasks.push(Task::Peak(Kernels::best(), probe.arithmetic));
                }
            }
            tasks.extend(STREAMS.map(|streams| Task::Read(Kernels::best(), streams)));
            if *working_set == WorkingSet::Cache {
                tasks.push(Task::Copy);
            }
            let samples = measure(crew, &tasks, &config.budget)?;
            let contest = Contest { combination, tasks, samples, instances };
            (0..variants).map(|variant| contest.row(variant)).collect()
        },
    )
}

/// Lines that the readers and the copier move in a call: as many as the first entrant.
fn part(combination: &Combination<'_>) -> u64 {
    let (probe, shape) = combination.entrants[0];
    ((probe.work)(&shape).bytes / 64).max(STREAMS[STREAMS.len() - 1] as u64)
}

fn measure(crew: &mut Crew<Command>, tasks: &[Task], budget: &Budget) -> Result<Samples> {
    let mut calls = Vec::with_capacity(tasks.len());
    for &task in tasks {
        calls.push(contest::repetitions(budget, |calls| crew.time(Command { task, calls }))?);
    }
    contest(tasks.len(), budget, |i| Ok(crew.time(Command { task: tasks[i], calls: calls[i] })? / calls[i] as f64))
}

/// What was measured of a combination: the variants, then the peaks, then the ways of moving bytes.
struct Contest<'a> {
    combination: &'a Combination<'a>,
    tasks: Vec<Task>,
    samples: Samples,
    /// Cases of each entrant.
    instances: &'a [usize],
}

/// Who shows what the machine can do.
struct Ceilings {
    /// The contestant that moved bytes fastest.
    mover: usize,
    /// Bytes that all threads move in a call of it.
    moved: f64,
    /// The contestant that multiplies and adds in registers.
    peak: usize,
    /// Operations that all threads do in a round of it.
    done: f64,
}

impl Contest<'_> {
    fn ceilings(&self, arithmetic: Arithmetic) -> Ceilings {
        let threads = self.combination.threads as f64;
        let part = part(self.combination);
        let moved = |contestant: usize| match self.tasks[contestant] {
            Task::Read(..) => threads * (part * 64) as f64,
            Task::Copy => threads * (part / 2 * 128) as f64,
            Task::Variant(..) | Task::Peak(..) => 0.0,
        };
        let speed = |contestant: &usize| moved(*contestant) / self.samples.seconds(*contestant).median;
        let mover = (0..self.tasks.len()).max_by(|a, b| speed(a).total_cmp(&speed(b))).unwrap_or(0);
        let is_peak = |task: &Task| matches!(task, Task::Peak(_, of) if *of == arithmetic);
        let peak = self.tasks.iter().position(is_peak).unwrap_or(0);
        // A round's operations are the same whatever the number of rounds.
        let done = threads * burst(Kernels::best(), arithmetic, 1024) as f64 / 1024.0;
        Ceilings { mover, moved: moved(mover), peak, done }
    }

    /// The variant of an entrant, if the contestant is one.
    fn variant(&self, contestant: usize) -> Option<(usize, Isa)> {
        match self.tasks[contestant] {
            Task::Variant(place, table) => Some((place, table.isa())),
            _ => None,
        }
    }

    fn row(&self, variant: usize) -> Result<SpeedRow> {
        let &Combination { ref entrants, working_set, threads } = self.combination;
        let Task::Variant(place, table) = self.tasks[variant] else { bail!("contestant {variant} is not a variant") };
        let (probe, shape) = entrants[place];
        let Ceilings { mover, moved, peak, done } = self.ceilings(probe.arithmetic);
        let work = (probe.work)(&shape);
        let (bytes, operations) = (threads as f64 * work.bytes as f64, threads as f64 * work.operations as f64);
        let least = |time: &dyn Fn(usize) -> f64| (bytes / moved * time(mover)).max(operations / done * time(peak));
        let samples = &self.samples;
        let share = samples.derived(|time| least(time) / time(variant));
        let name = format!("{}@{} at {shape} in {}", probe.name, table.isa(), working_set.name());
        if share.low > 1.0 + MARGIN {
            bail!(
                "{name} on {threads} threads reached {:.0} % of the machine's ceiling, which no more than {:.0} % of noise \
                 explains: the measurement or the op's stated work is wrong",
                share.median * 100.0,
                MARGIN * 100.0
            );
        }
        let seconds = samples.seconds(variant);
        let bandwidth = samples.seconds(mover).map(|time| moved / time / 1e9);
        let rate = samples.seconds(peak).map(|time| done / time / 1e9);
        let by_bandwidth = bytes / bandwidth.median >= operations / rate.median;
        // Tables stand in rising order, so the contestant before this one is the level below, if it is of the same entrant.
        let scalar = (0..variant).find(|i| self.variant(*i) == Some((place, Isa::Scalar)));
        let below =
            variant.checked_sub(1).and_then(|i| self.variant(i).filter(|(of, _)| *of == place).map(|of| (i, of.1)));
        // The first of those before it that is the same but for the op, or but for the shape.
        let first = |same: &dyn Fn(&Probe, Shape) -> bool| {
            let entrant = entrants[..place].iter().position(|(probe, shape)| same(probe, *shape))?;
            let contestant = (0..variant).find(|i| self.variant(*i) == Some((entrant, table.isa())))?;
            Some((contestant, entrants[entrant]))
        };
        let rival = first(&|other, at| at == shape && other.name != probe.name);
        let batch = first(&|other, at| at != shape && other.name == probe.name);
        Ok(SpeedRow {
            op: probe.name.to_string(),
            isa: table.isa().name().to_string(),
            rows: shape.r,
            columns: shape.c,
            tokens: shape.t,
            working_set,
            threads,
            walked_bytes: self.instances[place] as u64 * work.bytes,
            work_bytes: work.bytes,
            work_operations: work.operations,
            arithmetic: arithmetic_name(probe.arithmetic).to_string(),
            call_us: seconds.map(|time| time * 1e6),
            gb_per_s: seconds.map(|time| bytes / time / 1e9),
            gops: seconds.map(|time| operations / time / 1e9),
            ceiling_by: self.tasks[mover].told(),
            ceiling_gb_per_s: bandwidth,
            ceiling_gops: rate,
            bound: if by_bandwidth { "bandwidth" } else { "arithmetic" }.to_string(),
            share_of_ceiling: share,
            speedup_over_scalar: scalar.map(|scalar| samples.speedup(variant, scalar)),
            below: below.map(|(_, isa)| isa.name().to_string()),
            speedup_over_below: below.map(|(below, _)| samples.speedup(variant, below)),
            rival: rival.map(|(_, (other, _))| other.name.to_string()),
            speedup_over_rival: rival.map(|(rival, _)| samples.speedup(variant, rival)),
            batch_of: batch.map(|(_, (_, smaller))| smaller.t),
            time_over_batch_of: batch.map(|(smaller, _)| samples.speedup(smaller, variant)),
        })
    }
}

/// For tests of the report.
#[cfg(test)]
pub(super) fn example(op: &str, isa: &str, working_set: WorkingSet, threads: usize, speed: f64) -> SpeedRow {
    let timed = |median: f64| crate::quantity::Timed { median, low: median * 0.98, high: median * 1.02, n: 9 };
    SpeedRow {
        op: op.to_string(),
        isa: isa.to_string(),
        rows: 2560,
        columns: 6912,
        tokens: 1,
        working_set,
        threads,
        walked_bytes: 4_423_680,
        work_bytes: 4_440_832,
        work_operations: 35_389_440,
        arithmetic: "int8".to_string(),
        call_us: timed(200.0 / speed),
        gb_per_s: timed(20.0 * speed),
        gops: timed(160.0 * speed),
        ceiling_by: "read by avx512 in 8 streams".to_string(),
        ceiling_gb_per_s: timed(25.0),
        ceiling_gops: timed(600.0),
        bound: "bandwidth".to_string(),
        share_of_ceiling: timed(0.8 * speed),
        speedup_over_scalar: (isa != "scalar").then(|| timed(speed * 100.0)),
        below: (isa != "scalar").then(|| "scalar".to_string()),
        speedup_over_below: (isa != "scalar").then(|| timed(speed * 100.0)),
        rival: None,
        speedup_over_rival: None,
        batch_of: None,
        time_over_batch_of: None,
    }
}
