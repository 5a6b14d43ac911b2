//! `harness bench --breakdown` and `--trace`: where the time of a forward pass goes.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use engines::{Settings, State, StepCost, StepKind};
use serde::Serialize;

use super::{Case, Test};
use crate::ceilings::{Ceilings, Place, arithmetic_name};
use crate::contest::Budget;
use crate::machine::Machine;
use crate::quantity::Timed;
use crate::report::format;
use crate::watch::{Recorder, Span, write_trace};
use crate::{progress, stats, table};

/// Where the time of one case goes.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Breakdown {
    weights: String,
    isa: String,
    threads: usize,
    test: String,
    /// `token` or `prompt`: what the times are of.
    unit: &'static str,
    /// Time of a unit, watched.
    unit_ms: f64,
    /// Read bandwidth of so many threads from memory; absent where the model may lie in a cache.
    bandwidth_gb_per_s: Option<f64>,
    steps: Vec<Line>,
    /// Time between steps: starting threads, gathering logits.
    outside_ms: f64,
    /// Time watched over time unwatched, pair by pair.
    watched_over_unwatched: Timed,
    #[serde(skip)]
    spans: Vec<Vec<Span>>,
}

/// One kind of step, all layers together, in the mean over threads and units.
#[derive(Clone, Debug, Serialize)]
struct Line {
    step: &'static str,
    busy_ms: f64,
    /// Waiting for other threads at the end.
    waiting_ms: f64,
    /// Of the unit's time, waiting included.
    share_of_time: f64,
    bytes: u64,
    operations: u64,
    gb_per_s: f64,
    gops: f64,
    share_of_bandwidth: Option<f64>,
    share_of_peak: f64,
}

/// What the machine can do on a case's threads.
struct Limits {
    bandwidth_gb_per_s: f64,
    int8_gops: f64,
    f32_gops: f64,
}

/// Runs every case watched and unwatched in turn.
pub(super) fn measure(cases: &[Case], states: &[State], repetitions: usize) -> Result<Vec<Breakdown>> {
    let machine = Machine::read();
    let mut counts: Vec<usize> = cases.iter().map(|case| case.threads).collect();
    counts.sort_unstable();
    counts.dedup();
    let bar = progress::count((cases.len() * (repetitions + 1) + counts.len()) as u64, "breaking down");
    let budget = Budget { sample_ms: 4.0, min_blocks: 5, max_blocks: 40, seconds: 0.3, precision: 0.01 };
    let mut limits = Vec::new();
    for &threads in &counts {
        limits.push((threads, Limits::of(&Ceilings::measure(&machine, &[threads], &budget, &mut |_| ())?)));
        bar.inc(1);
    }
    let mut found = Vec::new();
    for case in cases {
        let recorder = Arc::new(Recorder::new(case.threads));
        let settings = &case.settings;
        let watched = Settings { cpu: settings.cpu.watched(recorder.clone()), ..settings.clone() };
        let watched = Case { model: case.model.with(&watched), settings: watched, ..*case };
        let mut spans = Vec::new();
        let (mut seconds, mut ratios) = (Vec::new(), Vec::new());
        for repetition in 0..=repetitions {
            // Every second pair in the other order.
            let (plain, with) = if repetition % 2 == 0 {
                let plain = case.seconds(states)?;
                (plain, watched.seconds(states)?)
            } else {
                let with = watched.seconds(states)?;
                (case.seconds(states)?, with)
            };
            let taken = recorder.take();
            if repetition > 0 {
                seconds.push(with);
                ratios.push(with / plain);
                spans.push(taken);
            }
            bar.inc(1);
        }
        let limits = limits.iter().find(|(threads, _)| *threads == case.threads).map(|(_, limits)| limits);
        let limits = limits.context("no ceilings")?;
        found.push(Breakdown::of(case, &seconds, &ratios, spans, limits, &machine)?);
    }
    bar.finish_and_clear();
    Ok(found)
}

impl Limits {
    fn of(ceilings: &Ceilings) -> Limits {
        let best = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
        let memory = ceilings.bandwidths.iter().filter(|b| b.place == Place::Memory);
        let peak = |arithmetic| {
            let peaks = ceilings.peaks.iter().filter(|p| p.arithmetic == arithmetic_name(arithmetic));
            best(&mut peaks.map(|p| p.gops.median))
        };
        Limits {
            bandwidth_gb_per_s: best(&mut memory.map(|b| b.gb_per_s.median)),
            int8_gops: peak(kernels::probe::Arithmetic::Int8),
            f32_gops: peak(kernels::probe::Arithmetic::F32),
        }
    }
}

impl Breakdown {
    fn of(
        case: &Case,
        seconds: &[f64],
        ratios: &[f64],
        mut runs: Vec<Vec<Vec<Span>>>,
        limits: &Limits,
        machine: &Machine,
    ) -> Result<Breakdown> {
        let facts = case.model.facts();
        // A decoded token in the middle of the run, or the whole prompt.
        let (unit, units, costs) = match case.test {
            Test::Prompt(tokens) => ("prompt", 1, case.model.step_costs(tokens, case.depth)),
            Test::Generate(tokens) => ("token", tokens, case.model.step_costs(1, case.depth + tokens / 2)),
        };
        let count = (units * seconds.len()) as f64;
        let unit_ms = seconds.iter().sum::<f64>() / count * 1e3;
        let large = facts.linear_bytes + facts.head_bytes > 2 * machine.last_level_bytes();
        let bandwidth_gb_per_s = large.then_some(limits.bandwidth_gb_per_s);
        // In the mean over threads: what each of them spent of a unit.
        let mean = |kind: StepKind, time: fn(&Span) -> u64| {
            let spans = runs.iter().flatten().flatten().filter(|span| span.step.kind == kind);
            spans.map(time).sum::<u64>() as f64 / 1e6 / count / case.threads as f64
        };
        let line = |cost: &StepCost| {
            let busy_ms = mean(cost.kind, |span| span.done - span.begin);
            let waiting_ms = mean(cost.kind, |span| span.left - span.done);
            let ms = busy_ms + waiting_ms;
            let gb_per_s = cost.bytes as f64 / 1e6 / ms;
            let gops = cost.operations as f64 / 1e6 / ms;
            Line {
                step: cost.kind.name(),
                busy_ms,
                waiting_ms,
                share_of_time: ms / unit_ms,
                bytes: cost.bytes,
                operations: cost.operations,
                gb_per_s,
                gops,
                share_of_bandwidth: bandwidth_gb_per_s.map(|limit| gb_per_s / limit),
                share_of_peak: gops / if cost.integers { limits.int8_gops } else { limits.f32_gops },
            }
        };
        let steps: Vec<Line> = costs.iter().map(line).collect();
        Ok(Breakdown {
            weights: facts.weights.clone(),
            isa: case.isa.name().to_string(),
            threads: case.threads,
            test: case.name(),
            unit,
            unit_ms,
            bandwidth_gb_per_s,
            outside_ms: unit_ms - steps.iter().map(|line| line.busy_ms + line.waiting_ms).sum::<f64>(),
            steps,
            watched_over_unwatched: stats::median(ratios).context("nothing was timed")?,
            spans: runs.pop().unwrap_or_default(),
        })
    }

    pub(super) fn text(&self) -> String {
        let titles =
            ["step", "busy, ms", "waiting, ms", "of the time", "bytes", "GB/s", "of bandwidth", "GOPS", "of peak"];
        let ms = |ms: f64| format::number(ms, 3);
        let none = || "-".to_string();
        let cells = |line: &Line| {
            let moved = line.bytes > 0;
            let done = line.operations > 0;
            [
                line.step.to_string(),
                ms(line.busy_ms),
                ms(line.waiting_ms),
                format::percent(line.share_of_time),
                if moved { format::bytes(line.bytes) } else { none() },
                if moved { format::number(line.gb_per_s, 3) } else { none() },
                line.share_of_bandwidth.filter(|_| moved).map_or_else(none, format::percent),
                if done { format::number(line.gops, 3) } else { none() },
                if done { format::percent(line.share_of_peak) } else { none() },
            ]
        };
        let outside = [
            "between steps".to_string(),
            ms(self.outside_ms),
            none(),
            format::percent(self.outside_ms / self.unit_ms),
            none(),
            none(),
            none(),
            none(),
            none(),
        ];
        let lines = self.steps.iter().map(cells).chain([outside]);
        let against = match self.bandwidth_gb_per_s {
            Some(limit) => format!("memory is read at {} GB/s", format::number(limit, 3)),
            None => "the weights fit a cache, so there is no share of the bandwidth".to_string(),
        };
        let Timed { median, low, high, .. } = self.watched_over_unwatched;
        format!(
            "{}, {}, {}, {}: {} ms a {}; {against}\n\n{}\n\nWatching took {:+.2} % [{:+.2}, {:+.2}] of the time.\n",
            self.weights,
            self.test,
            self.isa,
            format::count(self.threads, "thread", "threads"),
            ms(self.unit_ms),
            self.unit,
            table::plain(titles, lines),
            (median - 1.0) * 100.0,
            (low - 1.0) * 100.0,
            (high - 1.0) * 100.0
        )
    }

    /// Writes the last run's steps to a file.
    pub(super) fn trace(&self, file: File, path: &Path) -> Result<()> {
        let title = format!("{}, {}, {}, {} threads", self.weights, self.test, self.isa, self.threads);
        write_trace(BufWriter::new(file), &title, &self.spans)
            .with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("wrote the trace to {}", path.display());
        Ok(())
    }
}
