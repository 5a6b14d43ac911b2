//! Weights from a seed, in the shape of a published model: speed does not depend on values, so real shapes can be timed
//! without a download.
//!
//! Scales are chosen so that a forward pass stays finite and its logits have a standard deviation of about 2.5, as trained
//! models of this kind do: a ternary layer keeps the variance of its normalised input, and the embedding is drawn in
//! proportion to 1 / sqrt(D).

use super::dense::Dense;
use super::{Source, TernaryForm};
use crate::Result;
use kernels::memory::Purpose;
use kernels::ternary::{Layout, TernaryMatrix};
use kernels::{Lines, Rng};
use std::ops::Range;

/// Every tensor is a function of the seed and its name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Synthetic {
    pub(crate) seed: u64,
    /// Between what the numbers of a vector lie, by its name.
    pub(crate) range: fn(&str) -> Range<f32>,
}

/// P(weight is not 0) of [`TernaryMatrix::random`].
const DENSITY: f64 = 0.625;
/// The logits' standard deviation.
const LOGITS: f64 = 2.5;

impl Synthetic {
    fn rng(&self, name: &str) -> Rng {
        Rng::new(name.bytes().fold(Rng::mix(self.seed), |hash, byte| Rng::mix(hash ^ u64::from(byte))))
    }
}

impl Source for Synthetic {
    /// Uniform in the range that the architecture names.
    fn vector(&self, name: &str, width: usize) -> Result<Vec<f32>> {
        let mut rng = self.rng(name);
        let Range { start, end } = (self.range)(name);
        Ok((0..width).map(|_| start + (end - start) * rng.unit()).collect())
    }

    fn flat(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        self.vector(name, len)
    }

    /// Uniform in sign, with magnitudes uniform in [m, 2m): one word for four numbers.
    fn dense(&self, name: &str, rows: usize, cols: usize) -> Result<Dense> {
        let mut rng = self.rng(name);
        let mut lines = Lines::zeroed_for(Purpose::Weights, (rows * cols * 2).div_ceil(64));
        lines.spread_over_nodes();
        // E[x^2] of a uniform in [1, 2) is 7/3. The power of two below the wanted deviation.
        let wanted = LOGITS / (7.0f64 / 3.0).sqrt() / (cols as f64).sqrt();
        let exponent = libm::log2(wanted).floor().clamp(-100.0, 0.0) as i32;
        let exponent = ((exponent + 127) as u16) << 7;
        for word in bytemuck::cast_slice_mut::<u8, [u16; 4]>(lines.bytes_mut()) {
            let draw = rng.next_u64();
            for (i, bits) in word.iter_mut().enumerate() {
                *bits = (draw >> (16 * i)) as u16 & 0x807F | exponent;
            }
        }
        Ok(Dense::owned_bf16(lines, rows, cols))
    }

    /// Random either way round.
    fn dense_transposed(&self, name: &str, rows: usize, cols: usize) -> Result<Dense> {
        self.dense(name, rows, cols)
    }

    fn shape(&self, _: &str) -> Option<Vec<usize>> {
        None
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }

    fn ternary(&self, name: &str, rows: usize, cols: usize, _: TernaryForm) -> Result<(TernaryMatrix, f64)> {
        let matrix = TernaryMatrix::random(rows, cols, Layout::I2, &mut self.rng(name));
        Ok((matrix, 1.0 / (DENSITY * cols as f64).sqrt()))
    }

    fn place(&self) -> String {
        "synthetic".to_string()
    }

    fn check_names(&self, _: &dyn Fn(&str) -> bool) -> Result<()> {
        Ok(())
    }
}
