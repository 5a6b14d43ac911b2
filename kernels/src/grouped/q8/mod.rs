//! Product of eight-bit weights and eight-bit activations, both in groups of 32 columns.
//!
//! **Computes** `out[r, t] = sum over groups g of dot(w[r, g], q[t, g]) * (scale[r, g] * scale[t, g])`: inner products
//! in integers, their sum in f32, a fused multiply-add for each group in ascending order.
//!
//! **Layout** 8.5 bits a weight. Tiles of 16 rows; a tile is a run of blocks, one for each 64 columns, of 17 lines:
//!
//! ```text
//! line 0         f16 scales of rows r = 0..16: bytes 2 r .. + 2 for columns 0..32, bytes 32 + 2 r .. + 2 for the rest
//! line 1 + k     byte 4 r + j  holds column      4 k + j  of row r     (k = 0..8, j = 0..4)
//! line 9 + k     byte 4 r + j  holds column 32 + 4 k + j  of row r
//! ```
//!
//! So a line holds four columns of sixteen rows, in just the order that one `vpdpbusd` wants: a row a lane, and no
//! horizontal sum at the end.
//!
//! **Shapes** weights `R × C` in [`Layout::Q8`]; codes `[T, stride]`; scales and sums `[T, stride / 32]`; out `[R, T]`.
//!
//! **Numbers** A weight is code · scale with |code| <= 127; the scale is the smallest f16 not below max|w| / 127 of its
//! group, the code round(w / scale), ties to even: |w - code · scale| <= scale / 2. f16 and not f32 because codes make
//! up for a coarse scale, half a bit a weight is saved, and matrices in llama.cpp's Q8_0 fit as they are. A group's sum
//! is at most 32 · 127² = 516 128, exact in f32; two products in 16 bits are at most 2 · 127² = 32 258; weights plus
//! 128 keep a 32-bit lane below 32 · 255 · 127 and 128 sums of activations.
//!
//! **Exactness** integers within a group, a fixed order of fused multiply-adds across groups, a row a lane: the same
//! bits everywhere.
//!
//! **Cost** 17·R·C/16 bytes of weights; 2·R·C·T operations.
//!
//! **Source** llama.cpp's Q8_0 (blocks of 32, f16 scales, absmax).
//!
//! **Variants** AVX-512 (VNNI): `vpdpbusd` of the weight plus 128; eight tiles far apart for one token, blocks of two
//! tiles and six tokens for many. AVX2: `vpmaddubsw` of |activation| and the weight with the activation's sign, since
//! both operands are signed; four tiles far apart for one token, blocks of two tiles and two tokens for a few. From 24
//! tokens on codes are widened to words in a panel (`panel.rs`) and multiplied by `vpmaddwd`, sixteen rows and six
//! tokens at a time.
//!
//! **Tried and dropped** AVX-512 with the lines of a group unrolled: the compiler loads the activations of all of them
//! first and spills 17 to 58 registers a group. AVX2 with eight tiles far apart, four at a time (a third slower from
//! memory); a prefetch for lines of scales as well (15 % slower). Panels whose steps are unrolled by four: the compiler
//! regroups the additions of several steps and spills (a tenth slower).
//!
//! **Not done** activations in f32: they would double the arithmetic of one token and quadruple that of many, and a
//! group's sum would no longer be exact.

use super::format::{Format, GROUP, TILE_ROWS, f16_above};
use super::product::Packed;
use super::{Layout, Variant};
use crate::{Kernels, Line};
use half::f16;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
mod panel;

pub(crate) const FORMAT: Format = Format { name: "q8", code_lines: 8, quantise, pack, code };

/// The largest code.
const LARGEST: i8 = 127;

fn quantise(weights: &[f32; GROUP], codes: &mut [i8; GROUP]) -> f16 {
    let max = weights.iter().fold(0.0f32, |max, weight| max.max(weight.abs()));
    let scale = f16_above(f64::from(max) / f64::from(LARGEST));
    if max > 0.0 {
        const ONES: f64 = 1.5 * (1u64 << 52) as f64;
        let divisor = scale.to_f64();
        for (code, weight) in codes.iter_mut().zip(weights) {
            // At most 127, and where the last place is worth 1, addition rounds, ties to even: the same as
            // round_ties_even(), which is a call of the C library on the CPUs that this program must also run on.
            *code = ((f64::from(*weight) / divisor + ONES) - ONES) as i32 as i8;
        }
    }
    scale
}

fn pack(codes: &[[i8; GROUP]; TILE_ROWS], lines: &mut [Line]) {
    for (r, row) in codes.iter().enumerate() {
        for (c, code) in row.iter().enumerate() {
            lines[c / 4].0[4 * r + c % 4] = *code as u8;
        }
    }
}

fn code(lines: &[Line], row: usize, column: usize) -> i8 {
    lines[column / 4].0[4 * row + column % 4] as i8
}

/// The op.
pub(crate) struct Q8;

impl Packed for Q8 {
    const NAME: &'static str = "dense/q8";
    const LAYOUT: Layout = Layout::Q8;

    fn variant(kernels: &Kernels) -> Variant {
        kernels.dense_q8
    }
}
