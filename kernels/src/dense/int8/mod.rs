//! Dense product of eight-bit weights and eight-bit activations with one scale a token: a byte a weight, row after row.
//!
//! **Computes** `out[r, t] = (sum over c of w[r, c] * q[t, c]) * scale[t]`: the sum in integers, then one conversion to
//! `f32` and one multiplication, as ternary products do. A scale of the weights is part of the tokens' scales.
//!
//! **Layout** 8 bits a weight: rows of C bytes in order, each filled up with zeros to whole cache lines ([`Int8Matrix`]).
//!
//! **Shapes** weights `R × C`; codes `[T, stride]`; sums and scales `[T]`; out `[R, T]`.
//!
//! **Numbers** Weights are in -127..=127, activations in -128..=127; C < 2^17, so |sum| <= 127 · 128 · C < 2^31, which the
//! front door asserts. Lanes add modulo 2^32, so only the whole sum needs to fit. AVX2: two products in 16 bits are at most
//! 2 · 127 · 128 = 32 512, which is why no weight is -128. AVX-512: sums of (w + 128) q less 128 sums of q.
//!
//! **Exactness** integers throughout, one rounding to `f32` and one in the product: the same bits everywhere.
//!
//! **Cost** R·C bytes of weights; 2·R·C·T operations.
//!
//! **Source** LLM.int8() and its kin quantise so; the way to `vpmaddubsw` with two signed operands is that of llama.cpp.
//!
//! **Variants** AVX-512 (VNNI): `vpdpbusd` of the weight plus 128; four rows far apart for one token, which are just
//! enough sums to hide each other's latency, blocks of four rows and six tokens for many. AVX2: `vpmaddubsw` of |activation| and the weight with the activation's sign; four rows far
//! apart for one token, blocks of four rows and two tokens for many.
//!
//! **Tried and dropped** AVX2 with eight rows far apart: alike in cache, a quarter slower from memory, presumably as rows of
//! whole kibibytes that are far apart compete for the same sets of the cache. AVX-512, untimed, walks four for that reason.
//!
//! **Not done** `vpmovsxbw` and `vpmaddwd` on AVX2: as many instructions a product and more to widen; tiles of rows, which
//! would save the horizontal sums (`dense/q8` has them).

use crate::comparator::{Comparator, Source};
use crate::memory::Purpose;
use crate::ternary::{Activations, Weights};
use crate::{Kernels, Line, Lines};
use bytemuck::cast_slice;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

/// Columns to a line.
const COLUMNS: usize = 64;
/// Sums stay below 2^31 for rows of fewer columns than this.
const MAX_COLUMNS: usize = 1 << 17;
const _: () = assert!(MAX_COLUMNS as i64 * 127 * 128 < 1 << 31, "32-bit sums overflow");

/// A matrix of eight-bit weights, `R × C`, row after row in whole lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Int8Matrix {
    rows: usize,
    cols: usize,
    lines: Lines,
}

impl Int8Matrix {
    /// Packs `weights` `[rows, cols]`.
    ///
    /// # Panics
    /// If the length is not `rows * cols` or a weight is -128: a caller's error.
    pub fn pack(weights: &[i8], rows: usize, cols: usize) -> Int8Matrix {
        assert_eq!(weights.len(), rows * cols, "weights for a {rows}×{cols} matrix");
        let lines = Lines::zeroed_for(Purpose::Weights, rows * cols.div_ceil(COLUMNS));
        let mut matrix = Int8Matrix { rows, cols, lines };
        let stride = Activations::stride_for(cols).max(1);
        let rows = matrix.lines.bytes_mut().chunks_exact_mut(stride).zip(weights.chunks_exact(cols.max(1)));
        for (r, (out, row)) in rows.enumerate() {
            assert!(!row.contains(&i8::MIN), "a weight of row {r} is -128");
            out[..cols].copy_from_slice(cast_slice(row));
        }
        matrix
    }

    /// Rows, R.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns, C.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The checks before a variant is called: what it gets, or nothing where there is nothing to compute.
    pub(crate) fn checked(&self, x: Activations<'_>, out: &[f32]) -> Option<Weights<'_>> {
        let tokens = x.scales.len();
        assert_eq!(x.stride, Activations::stride_for(self.cols), "stride of codes for {} columns", self.cols);
        assert_eq!(x.codes.len(), tokens * x.stride, "codes of {tokens} tokens");
        assert_eq!(x.sums.len(), tokens, "sums of {tokens} tokens");
        assert_eq!(out.len(), self.rows * tokens, "out [{}, {tokens}]", self.rows);
        assert!(self.cols < MAX_COLUMNS, "{} columns could overflow 32-bit sums", self.cols);
        let weights = Weights { rows: self.rows, groups: self.cols.div_ceil(COLUMNS), lines: &self.lines };
        (!out.is_empty()).then_some(weights)
    }
}

/// A row with its zeros.
#[inline(always)]
fn row<'a>(weights: Weights<'a>, r: usize) -> &'a [i8] {
    let lines: &[Line] = &weights.lines[r * weights.groups..][..weights.groups];
    cast_slice(lines)
}

/// Weights of a tile of one row and groups of 64 columns, activations, out `[R, T]`.
pub(crate) type Variant = unsafe fn(Weights<'_>, Activations<'_>, &mut [f32]);

impl Kernels {
    /// `out[r, t] = (w · q)[r, t] * scales[t]`; out `[R, T]`; needs no tables. See [`crate::dense::int8`].
    ///
    /// # Panics
    /// If shapes disagree.
    pub fn int8_matmul(&self, weights: &Int8Matrix, x: Activations<'_>, out: &mut [f32]) {
        if let Some(weights) = weights.checked(x, out) {
            // SAFETY: this table exists only if the CPU has the variant's features.
            unsafe { (self.dense_int8)(weights, x, out) }
        }
    }
}

/// The op, for [`OPS`](crate::probe::OPS): on ternary weights, so that its results are those of `ternary/i2`.
pub(crate) struct Int8;

impl Comparator for Int8 {
    const NAME: &'static str = "dense/int8";
    const STANDS_FOR: &'static str = "a dense eight-bit product in blocks (VNNI where there is one): what not knowing that weights are ternary costs";
    const BITS: u64 = 8;
    type Weights = Int8Matrix;

    fn weights(source: &Source<'_>) -> Int8Matrix {
        Int8Matrix::pack(source.trits, source.rows, source.cols)
    }

    fn matmul(kernels: &Kernels, weights: &Int8Matrix, x: Activations<'_>, _: &[f32], out: &mut [f32]) {
        kernels.int8_matmul(weights, x, out);
    }

    fn variant(kernels: &Kernels) -> usize {
        kernels.dense_int8 as usize
    }
}
