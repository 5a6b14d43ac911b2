//! Cosines and sines of the rotary angles.
//!
//! As Hugging Face computes them in f32: inv_freq_i = 1 / theta^(2i / K), angle = position · inv_freq_i, each rounded to f32.
//! Powers, cosines and sines are computed in f64 by our own library and rounded, so they are the same on every machine.

use kernels::memory::{Purpose, Reservation};
use std::sync::OnceLock;

/// Angles of all positions of a context, made a run of positions at a time when one is first needed.
#[derive(Debug)]
pub(crate) struct Rope {
    /// `[K / 2]`.
    inverse_frequencies: Vec<f32>,
    runs: Vec<OnceLock<Run>>,
}

/// Angles of neighbouring positions.
#[derive(Debug)]
struct Run {
    /// `[RUN, 2, K / 2]`: the cosines, then the sines of a position.
    angles: Box<[f32]>,
    _memory: Reservation,
}

/// Positions to a run.
const RUN: usize = 128;

impl Rope {
    pub(crate) fn new(theta: f64, head_width: usize, context: usize) -> Rope {
        let inverse = |i: usize| {
            let exponent = (2 * i) as f32 / head_width as f32;
            1.0 / (libm::pow(theta, f64::from(exponent)) as f32)
        };
        Rope {
            inverse_frequencies: (0..head_width / 2).map(inverse).collect(),
            runs: (0..context.div_ceil(RUN)).map(|_| OnceLock::new()).collect(),
        }
    }

    /// The cosines and sines `[K / 2]` of a position below the context.
    pub(crate) fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let half = self.inverse_frequencies.len();
        let run = self.runs[position / RUN].get_or_init(|| self.make(position / RUN * RUN));
        run.angles[position % RUN * 2 * half..][..2 * half].split_at(half)
    }

    fn make(&self, first: usize) -> Run {
        let mut run = Vec::with_capacity(RUN * 2 * self.inverse_frequencies.len());
        for position in first..first + RUN {
            let angle = |inverse: &f32| f64::from(position as f32 * inverse);
            run.extend(self.inverse_frequencies.iter().map(|inverse| libm::cos(angle(inverse)) as f32));
            run.extend(self.inverse_frequencies.iter().map(|inverse| libm::sin(angle(inverse)) as f32));
        }
        let memory = Reservation::new(Purpose::Scratch, size_of_val(&run[..]));
        Run { angles: run.into_boxed_slice(), _memory: memory }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_follow_the_definition_at_every_run() {
        let rope = Rope::new(10_000.0, 8, 300);
        for position in [0, 1, 127, 128, 299] {
            let (cos, sin) = rope.at(position);
            for i in 0..4 {
                let angle = position as f64 / 10_000f64.powf(2.0 * i as f64 / 8.0);
                assert!((f64::from(cos[i]) - angle.cos()).abs() < 3e-5, "cos at {position}, {i}");
                assert!((f64::from(sin[i]) - angle.sin()).abs() < 3e-5, "sin at {position}, {i}");
            }
        }
    }
}
