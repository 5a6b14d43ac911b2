//! Interleaved timing: contestants are sampled in turn, block after block, so that whatever slows the machine for a
//! while slows all of them, and ratios are taken within blocks.
//!
//! Within a block every contestant runs once. Blocks come in pairs, forwards and backwards (ABBA), and each pair starts
//! one contestant further on, so that no contestant always follows the same other.

use std::time::Instant;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::quantity::Timed;
use crate::stats;

/// How long to measure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// A sample repeats its work until it lasts about this long.
    pub sample_ms: f64,
    /// Blocks that are measured even if that takes longer than `seconds` (but never beyond three times that, once there
    /// are three).
    pub min_blocks: usize,
    /// No more blocks than these.
    pub max_blocks: usize,
    /// Measuring ends after the block in which this time is over ...
    pub seconds: f64,
    /// ... or after the block in which every contestant's interval is within this share of its median.
    pub precision: f64,
}

impl Budget {
    /// # Errors
    /// A value that would measure nothing or for ever.
    pub fn check(&self) -> Result<(), String> {
        let positive = |name: &str, value: f64, most: f64| {
            if value > 0.0 && value <= most {
                Ok(())
            } else {
                Err(format!("{name} = {value}: expected a number above 0 and at most {most}"))
            }
        };
        positive("sample_ms", self.sample_ms, 10_000.0)?;
        positive("seconds", self.seconds, 3600.0)?;
        positive("precision", self.precision, 1.0)?;
        if self.min_blocks == 0 || self.max_blocks < self.min_blocks {
            return Err(format!(
                "min_blocks = {}, max_blocks = {}: expected 1 <= min_blocks <= max_blocks",
                self.min_blocks, self.max_blocks
            ));
        }
        Ok(())
    }
}

/// What was measured: `seconds[contestant][block]`.
#[derive(Clone, Debug)]
pub struct Samples {
    seconds: Vec<Vec<f64>>,
}

/// Measures `contestants` contestants: `sample(i)` runs contestant i once and returns the seconds of its unit of work.
///
/// # Errors
/// What `sample` returns, or a sample that is not a positive time.
pub fn contest(contestants: usize, budget: &Budget, mut sample: impl FnMut(usize) -> Result<f64>) -> Result<Samples> {
    let mut seconds = vec![Vec::new(); contestants];
    let start = Instant::now();
    for block in 0..budget.max_blocks {
        for contestant in order(block, contestants) {
            let time = sample(contestant)?;
            if !(time.is_finite() && time > 0.0) {
                bail!("a sample took {time} s: the clock is too coarse or the work is empty");
            }
            seconds[contestant].push(time);
        }
        let (blocks, elapsed) = (block + 1, start.elapsed().as_secs_f64());
        let enough = blocks >= budget.min_blocks || (blocks >= 3 && elapsed > 3.0 * budget.seconds);
        if enough && (elapsed >= budget.seconds || precise(&seconds, budget.precision)) {
            break;
        }
    }
    Ok(Samples { seconds })
}

/// The order of a block: rotated by one after every two blocks, every second block backwards.
fn order(block: usize, contestants: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..contestants).map(|i| (i + block / 2) % contestants).collect();
    if block % 2 == 1 {
        order.reverse();
    }
    order
}

fn precise(seconds: &[Vec<f64>], precision: f64) -> bool {
    seconds.iter().all(|samples| stats::median(samples).is_some_and(|m| m.n >= 6 && m.uncertainty() <= precision))
}

impl Samples {
    /// A contestant's time, in seconds.
    ///
    /// # Panics
    /// If there is no such contestant.
    pub fn seconds(&self, contestant: usize) -> Timed {
        self.derived(|block| block(contestant))
    }

    /// How many times as fast contestant `a` is as contestant `b`, within blocks: b's time over a's.
    ///
    /// # Panics
    /// If there are no such contestants.
    pub fn speedup(&self, a: usize, b: usize) -> Timed {
        self.derived(|block| block(b) / block(a))
    }

    /// The median of anything computed from the times of one block: `of` is given a function from contestant to seconds.
    ///
    /// # Panics
    /// If `of` asks for a contestant that does not exist or yields something that is not finite.
    pub fn derived(&self, of: impl Fn(&dyn Fn(usize) -> f64) -> f64) -> Timed {
        let blocks = self.seconds.first().map_or(0, Vec::len);
        let values: Vec<f64> = (0..blocks).map(|block| of(&|contestant| self.seconds[contestant][block])).collect();
        stats::median(&values).expect("samples are positive and finite, and every contest has a block")
    }

    /// The largest relative distance from the median within which 95 % of a derived quantity's blocks lie.
    ///
    /// # Panics
    /// As [`Samples::derived`].
    pub fn spread(&self, of: impl Fn(&dyn Fn(usize) -> f64) -> f64 + Copy) -> f64 {
        let median = self.derived(of).median;
        let blocks = self.seconds.first().map_or(0, Vec::len);
        let mut distances: Vec<f64> =
            (0..blocks).map(|block| (of(&|contestant| self.seconds[contestant][block]) / median - 1.0).abs()).collect();
        distances.sort_by(f64::total_cmp);
        stats::quantile(&distances, stats::CONFIDENCE).unwrap_or(0.0)
    }
}

/// How many repetitions make a sample of about `budget.sample_ms`: doubles until a sample lasts a quarter of that, then
/// scales. `sample(repetitions)` returns the seconds of all of them.
///
/// # Errors
/// What `sample` returns.
pub fn repetitions(budget: &Budget, mut sample: impl FnMut(u64) -> Result<f64>) -> Result<u64> {
    let aim = budget.sample_ms / 1e3;
    let mut repetitions = 1u64;
    loop {
        let seconds = sample(repetitions)?;
        if seconds >= aim / 4.0 || repetitions >= 1 << 40 {
            return Ok(((repetitions as f64 * aim / seconds).round() as u64).max(1));
        }
        repetitions *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Budget = Budget { sample_ms: 1.0, min_blocks: 8, max_blocks: 40, seconds: 1.0, precision: 0.01 };

    #[test]
    fn every_contestant_runs_once_a_block_and_none_keeps_its_place() {
        let mut places = vec![[0usize; 3]; 3];
        for block in 0..6 {
            let order = order(block, 3);
            for (place, contestant) in order.into_iter().enumerate() {
                places[contestant][place] += 1;
            }
        }
        assert!(places.iter().flatten().all(|count| *count == 2), "{places:?}");
        assert_eq!((order(0, 2), order(1, 2)), (vec![0, 1], vec![1, 0]));
    }

    #[test]
    fn measuring_stops_when_it_is_precise_and_ratios_are_taken_within_blocks() {
        let mut clock = 1.0;
        let samples = contest(2, &BUDGET, |contestant| {
            clock += 0.0001; // the machine slows down steadily
            Ok(if contestant == 0 { clock } else { 3.0 * clock })
        })
        .unwrap();
        assert_eq!(samples.seconds(0).n, BUDGET.min_blocks, "precise at once");
        let ratio = samples.speedup(0, 1);
        assert!((ratio.median - 3.0).abs() < 1e-3, "{ratio:?}");
        assert!(samples.spread(|s| s(1) / s(0)) < 1e-3);
    }

    #[test]
    fn noise_is_measured_longer_but_not_for_ever() {
        let mut turn = 0u64;
        let samples = contest(1, &BUDGET, |_| {
            turn += 1;
            Ok(1.0 + (turn % 7) as f64)
        })
        .unwrap();
        assert_eq!(samples.seconds(0).n, BUDGET.max_blocks);
    }

    #[test]
    fn repetitions_fill_a_sample() {
        let count = repetitions(&BUDGET, |n| Ok(n as f64 * 1e-6)).unwrap();
        assert_eq!(count, 1000);
        assert_eq!(repetitions(&BUDGET, |n| Ok(n as f64)).unwrap(), 1);
    }

    #[test]
    fn a_clock_that_stands_still_is_an_error() {
        assert!(contest(1, &BUDGET, |_| Ok(0.0)).unwrap_err().to_string().contains("clock"));
    }

    #[test]
    fn a_budget_that_measures_nothing_is_refused() {
        assert!(BUDGET.check().is_ok());
        assert!(Budget { seconds: f64::NAN, ..BUDGET }.check().unwrap_err().contains("seconds"));
        assert!(Budget { max_blocks: 3, ..BUDGET }.check().unwrap_err().contains("max_blocks"));
    }
}
