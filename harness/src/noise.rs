//! The A/A comparison: how far apart two contestants seem that are the same.

use anyhow::Result;
use kernels::Kernels;
use kernels::probe::{Probe, Shape};

use crate::contest::{self, Budget, contest};
use crate::crew::with_crew;
use crate::lab::Lab;
use crate::record::Noise;

/// What is timed against itself: a matrix-vector product of a real model's size that fits the level 2 cache.
const CASE: (&str, Shape) = ("ternary/i2", Shape::new(640, 2560, 1));

/// Times the best variant of one case against itself, on each number of threads.
///
/// # Errors
/// A measuring thread failed.
pub fn measure(lab: &Lab, threads: &[usize], budget: &Budget) -> Result<Vec<Noise>> {
    let Some(probe) = Probe::find(lab.ops(), CASE.0) else { return Ok(Vec::new()) };
    let Some(&kernels) = lab.tables().last() else { return Ok(Vec::new()) };
    threads.iter().map(|&threads| one(probe, kernels, lab.seed, threads, budget)).collect()
}

fn one(probe: &Probe, kernels: &'static Kernels, seed: u64, threads: usize, budget: &Budget) -> Result<Noise> {
    let shape = CASE.1;
    let samples = with_crew(
        threads,
        |thread| (probe.case)(&shape, seed.wrapping_add(thread as u64)),
        |case, calls: u64| (0..calls).for_each(|_| case.run(kernels)),
        |crew| {
            let calls = contest::repetitions(budget, |calls| crew.time(calls))?;
            contest(2, budget, |_| crew.time(calls))
        },
    )?;
    Ok(Noise {
        case: format!("{}@{} {shape}, in cache", probe.name, kernels.isa()),
        threads,
        ratio: samples.speedup(0, 1),
        spread: samples.spread(|time| time(0)),
    })
}

#[cfg(test)]
mod tests {
    use kernels::Isa;

    use super::*;
    use crate::machine::Machine;

    #[test]
    fn the_same_work_takes_about_as_long_as_itself() {
        let lab = Lab::new(Machine::read(), 1, Isa::best(), 0, true);
        let budget = Budget { sample_ms: 0.5, min_blocks: 25, max_blocks: 25, seconds: 0.1, precision: 1.0 };
        let noise = measure(&lab, &[1], &budget).unwrap();
        assert_eq!(noise.len(), 1);
        // Generous: other processes may take the core in the middle of a sample.
        assert!((noise[0].ratio.median - 1.0).abs() < 0.5, "{:?}", noise[0]);
        assert!(noise[0].spread >= 0.0);
    }
}
