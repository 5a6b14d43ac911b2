//! The loops that everybody writes first, compiled with full optimisation for each level.
//!
//! **Computes** `out[r, t] = (sum over c of w[r, c] * q[t, c]) * scale[t]`: the sum in integers, then one conversion to
//! `f32` and one multiplication.
//!
//! **Layout** `comparator/naive`: a byte a weight, row after row ([`Int8Matrix`]). `comparator/naive_crumbs`: two bits a
//! weight, row after row; byte b of a row holds columns 4 b .. 4 b + 4 from its lowest bits up, as weight plus one.
//!
//! **Shapes** weights `R × C`; codes `[T, stride]`; sums and scales `[T]`; out `[R, T]`.
//!
//! **Numbers** |sum| <= 127 · 128 · C < 2^31 for C < 2^17, which the front doors assert.
//!
//! **Exactness** integers throughout, one rounding to `f32` and one in the product: the same bits everywhere.
//!
//! **Cost** R·C bytes of weights, or R·C/4; 2·R·C·T operations.
//!
//! **Variants** AVX-512 and AVX2: the specification itself, inlined into a function with the level's features, so that the
//! compiler vectorises it as it likes. No intrinsics and no blocks, on purpose.

use super::{Comparator, Source};
use crate::Kernels;
use crate::dense::int8::{Int8Matrix, Variant};
use crate::ternary::Activations;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

/// Ternary weights of two bits, four to a byte, row after row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrumbMatrix {
    rows: usize,
    cols: usize,
    bytes: Vec<u8>,
}

impl CrumbMatrix {
    /// Packs `weights` `[rows, cols]`, each -1, 0 or 1.
    ///
    /// # Panics
    /// If the length is not `rows * cols` or a weight is outside -1..=1: a caller's error.
    pub fn pack(weights: &[i8], rows: usize, cols: usize) -> CrumbMatrix {
        assert_eq!(weights.len(), rows * cols, "weights for a {rows}×{cols} matrix");
        let stride = Activations::stride_for(cols) / 4;
        let mut bytes = vec![0b01_01_01_01; rows * stride];
        for (i, weight) in weights.iter().enumerate() {
            assert!((-1..=1).contains(weight), "weight {weight} is not ternary");
            let (r, c) = (i / cols, i % cols);
            let byte = &mut bytes[r * stride + c / 4];
            let shift = c % 4 * 2;
            *byte = *byte & !(0b11 << shift) | ((weight + 1) as u8) << shift;
        }
        CrumbMatrix { rows, cols, bytes }
    }
}

/// Weights `[R, stride / 4]`, activations, out `[R, T]`.
pub(crate) type CrumbVariant = unsafe fn(&[u8], Activations<'_>, &mut [f32]);

impl Kernels {
    /// `out[r, t] = (w · q)[r, t] * scales[t]`; out `[R, T]`; needs no tables. See [`crate::comparator::naive`].
    ///
    /// # Panics
    /// If shapes disagree.
    pub fn naive_matmul(&self, weights: &Int8Matrix, x: Activations<'_>, out: &mut [f32]) {
        if let Some(weights) = weights.checked(x, out) {
            // SAFETY: this table exists only if the CPU has the variant's features.
            unsafe { (self.naive)(weights, x, out) }
        }
    }

    /// The same of two-bit weights.
    ///
    /// # Panics
    /// If shapes disagree.
    pub fn naive_crumbs_matmul(&self, weights: &CrumbMatrix, x: Activations<'_>, out: &mut [f32]) {
        let CrumbMatrix { rows, cols, bytes } = weights;
        let tokens = x.scales.len();
        assert_eq!(x.stride, Activations::stride_for(*cols), "stride of codes for {cols} columns");
        assert_eq!(x.codes.len(), tokens * x.stride, "codes of {tokens} tokens");
        assert_eq!(out.len(), rows * tokens, "out [{rows}, {tokens}]");
        assert!(*cols < 1 << 17, "{cols} columns could overflow 32-bit sums");
        if !out.is_empty() {
            // SAFETY: this table exists only if the CPU has the variant's features.
            unsafe { (self.naive_crumbs)(bytes, x, out) }
        }
    }
}

/// The op of a byte a weight.
pub(crate) struct Naive;

impl Comparator for Naive {
    const NAME: &'static str = "comparator/naive";
    const STANDS_FOR: &'static str =
        "the loop that everybody writes first, a byte a weight, vectorised by the compiler";
    const BITS: u64 = 8;
    type Weights = Int8Matrix;

    fn weights(source: &Source<'_>) -> Int8Matrix {
        Int8Matrix::pack(source.trits, source.rows, source.cols)
    }

    fn matmul(kernels: &Kernels, weights: &Int8Matrix, x: Activations<'_>, _: &[f32], out: &mut [f32]) {
        kernels.naive_matmul(weights, x, out);
    }

    fn variant(kernels: &Kernels) -> usize {
        kernels.naive as Variant as usize
    }
}

/// The op of two bits a weight.
pub(crate) struct NaiveCrumbs;

impl Comparator for NaiveCrumbs {
    const NAME: &'static str = "comparator/naive_crumbs";
    const STANDS_FOR: &'static str =
        "the same loop on two-bit weights, unpacked one at a time: what packing costs who does not write intrinsics";
    const BITS: u64 = 2;
    type Weights = CrumbMatrix;

    fn weights(source: &Source<'_>) -> CrumbMatrix {
        CrumbMatrix::pack(source.trits, source.rows, source.cols)
    }

    fn matmul(kernels: &Kernels, weights: &CrumbMatrix, x: Activations<'_>, _: &[f32], out: &mut [f32]) {
        kernels.naive_crumbs_matmul(weights, x, out);
    }

    fn variant(kernels: &Kernels) -> usize {
        kernels.naive_crumbs as usize
    }
}
