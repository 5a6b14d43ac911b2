//! Product of four-bit weights and eight-bit activations, both in groups of 32 columns.
//!
//! **Computes** `out[r, t] = sum over groups g of dot(w[r, g], q[t, g]) * (scale[r, g] * scale[t, g])`: inner products
//! in integers, their sum in f32, a fused multiply-add for each group in ascending order.
//!
//! **Layout** 4.5 bits a weight. Tiles of 16 rows; a tile is a run of blocks, one for each 64 columns, of 9 lines:
//!
//! ```text
//! line 0         f16 scales of rows r = 0..16: bytes 2 r .. + 2 for columns 0..32, bytes 32 + 2 r .. + 2 for the rest
//! line 1 + k     byte 4 r + j, bits 3..0  column      8 k + j     of row r     (k = 0..4, j = 0..4)
//!                              bits 7..4  column      8 k + 4 + j
//! line 5 + k     the same of columns 32..64
//!
//! nibble = code + 8, so 0..=15 for codes -8..=7
//! ```
//!
//! So half of a line's bits hold four columns of sixteen rows, in just the order that one `vpdpbusd` wants: a row a
//! lane, and no horizontal sum at the end.
//!
//! **Shapes** weights `R × C` in [`Layout::Q4`]; codes `[T, stride]`; scales and sums `[T, stride / 32]`; out `[R, T]`.
//!
//! **Numbers** A weight is code · scale. The scale is that of a few candidates which leaves the smallest squared error
//! in its group: with e the weight of the largest magnitude, e / -8 and e / -9 (one code more on e's side; beyond it
//! codes are clamped) and |e| / 7. So no group is worse than max|w| / 7 would leave it: at most max|w| / 14 a weight,
//! root mean square. Matrices in llama.cpp's Q4_0 fit as they are. A variant forms sum((code + 8) q) and subtracts 8
//! sum(q): at most 32 · 15 · 127 = 60 960 in all, exact in f32, and 16 · 15 · 127 = 30 480 in each of the two 16-bit
//! lanes of a row, so that a group's products add up in 16 bits.
//!
//! **Exactness** integers within a group, a fixed order of fused multiply-adds across groups, a row a lane: the same
//! bits everywhere.
//!
//! **Cost** 9·R·C/16 bytes of weights; 2·R·C·T operations.
//!
//! **Source** llama.cpp's Q4_0 (blocks of 32, f16 scales of either sign).
//!
//! **Variants** AVX-512 (VNNI): `vpdpbusd`; eight tiles far apart for one token, blocks of two tiles and six tokens for
//! many. AVX2: `vpmaddubsw` with 16-bit sums within a group; four tiles far apart for one token, blocks of one tile
//! and four tokens for many.
//!
//! **Tried and dropped** AVX-512 with the lines of a group unrolled: the compiler loads the activations of all of them
//! first and spills up to 51 registers a group. AVX2 with eight tiles far apart, four at a time (a quarter slower from
//! memory); more candidates for the scale: on normal weights the three leave 8.4 % of a group's norm, 34 of them 8.1 %,
//! |e| / 7 alone 9.6 %.

use super::format::{Format, GROUP, TILE_ROWS};
use super::product::Packed;
use super::{Layout, Variant};
use crate::{Kernels, Line};
use half::f16;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;

pub(crate) const FORMAT: Format = Format { name: "q4", code_lines: 4, quantise, pack, code };

/// What the largest weight of a group is divided by to make a candidate for the scale.
const DIVISORS: [f32; 3] = [-8.0, 7.0, -9.0];

fn quantise(weights: &[f32; GROUP], codes: &mut [i8; GROUP]) -> f16 {
    let extreme = weights.iter().fold(0.0f32, |e, weight| if weight.abs() > e.abs() { *weight } else { e });
    let mut best = (f32::INFINITY, f16::ZERO);
    for divisor in DIVISORS {
        let scale = f16::from_f32(extreme / divisor);
        let error = error(weights, scale.to_f32());
        if error < best.0 {
            best = (error, scale);
        }
    }
    let (error, scale) = best;
    for (code, weight) in codes.iter_mut().zip(weights) {
        *code = nearest(*weight, scale.to_f32()) as i8;
    }
    // Squares that overflow leave no candidate; so do scales that do.
    if error < f32::INFINITY { scale } else { f16::INFINITY }
}

/// The code of a weight; a scale of 0 makes it 0.
fn nearest(weight: f32, scale: f32) -> f32 {
    // Below -9 and above 8 all are clamped, so that what is rounded is small.
    if scale == 0.0 { 0.0 } else { rounded((weight / scale).clamp(-9.0, 8.0)).clamp(-8.0, 7.0) }
}

/// The nearest whole number, of two the even one, of a number of at most 2^22: where the last place is worth 1, addition
/// rounds. Without it, CPUs that this program must also run on need a call of the C library for each weight.
fn rounded(x: f32) -> f32 {
    const ONES: f32 = 1.5 * (1u32 << 23) as f32;
    (x + ONES) - ONES
}

/// The squared error of a group.
fn error(weights: &[f32; GROUP], scale: f32) -> f32 {
    let square = |weight: &f32| {
        let error = weight - nearest(*weight, scale) * scale;
        error * error
    };
    weights.iter().map(square).sum()
}

fn pack(codes: &[[i8; GROUP]; TILE_ROWS], lines: &mut [Line]) {
    lines.iter_mut().for_each(|line| line.0.fill(0));
    for (r, row) in codes.iter().enumerate() {
        for (c, code) in row.iter().enumerate() {
            lines[c / 8].0[4 * r + c % 4] |= ((code + 8) as u8) << (c % 8 / 4 * 4);
        }
    }
}

fn code(lines: &[Line], row: usize, column: usize) -> i8 {
    (lines[column / 8].0[4 * row + column % 4] >> (column % 8 / 4 * 4) & 15) as i8 - 8
}

/// The op.
pub(crate) struct Q4;

impl Packed for Q4 {
    const NAME: &'static str = "dense/q4";
    const LAYOUT: Layout = Layout::Q4;

    fn variant(kernels: &Kernels) -> Variant {
        kernels.dense_q4
    }
}
