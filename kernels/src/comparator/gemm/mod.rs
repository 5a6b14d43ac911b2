//! Dequantised weights through the Rust crate `gemm` (MIT), on one thread.
//!
//! **Computes** `out[r, t] = (sum over c of w[r, c] * q[t, c]) * scale[t]` in f32, w and q being whole numbers.
//!
//! **Shapes** w `[R, C]`; q `[T, C]`; scales `[T]`; out `[R, T]`.
//!
//! **Numbers** Weights are -1, 0 and 1, activations eight-bit codes, both as f32.
//!
//! **Exactness** the same bits everywhere although the crate adds in an order of its own: every partial sum is a whole
//! number of at most 128 · C <= 2^24 in magnitude, which f32 holds exactly. The front door asserts C < 2^17. No tolerance
//! is needed for that reason; products of arbitrary f32 would want one.
//!
//! **Cost** 4·R·C bytes of weights; 2·R·C·T operations.
//!
//! **Source** github.com/sarah-ek/gemm; of its crates only `gemm-f32` is compiled.
//!
//! **Variants** scalar: three loops. The other levels: the crate, which chooses its instructions for itself (AVX-512 where
//! the CPU has it, whatever level is forced), packs its operands at every call and allocates for that.

use super::{Comparator, Source, scalar};
use crate::Kernels;
use crate::probe::Arithmetic;
use crate::ternary::Activations;
use gemm_f32::gemm::f32::get_gemm_fn;

/// The crate's product.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "called from levels above scalar"))]
pub(crate) fn matmul(weights: &[f32], x: &[f32], scales: &[f32], cols: usize, out: &mut [f32]) {
    let (rows, tokens) = (weights.len() / cols, scales.len());
    let (r, c, t) = (rows as isize, cols as isize, tokens as isize);
    let (w, x) = (weights.as_ptr(), x.as_ptr());
    // The crate prefers results whose columns are contiguous: for many tokens it is asked for the transposed product.
    // Operands are given as (pointer, step from column to column, step from row to row).
    let (m, n, out_steps, left, right) = if tokens == 1 {
        (rows, 1, (r, 1), (w, 1, c), (x, c, 1))
    } else {
        (tokens, rows, (t, 1), (x, 1, c), (w, c, 1))
    };
    // SAFETY: the front door has checked that w is [R, C], x [T, C] and out [R, T], which the steps describe; out is not
    // read, and Parallelism::None keeps to this thread.
    unsafe {
        get_gemm_fn()(
            m,
            n,
            cols,
            out.as_mut_ptr(),
            out_steps.0,
            out_steps.1,
            false,
            left.0,
            left.1,
            left.2,
            right.0,
            right.1,
            right.2,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm_common::Parallelism::None,
        );
    }
    scalar::scale(out, scales);
}

impl Kernels {
    /// `out[r, t] = (w · x)[r, t] * scales[t]`; w `[R, cols]`, x `[T, cols]`, whole numbers of at most 1 and 128 in
    /// magnitude; out `[R, T]`. See [`crate::comparator::gemm`].
    ///
    /// # Panics
    /// If shapes disagree.
    pub fn gemm_matmul(&self, weights: &[f32], x: &[f32], scales: &[f32], cols: usize, out: &mut [f32]) {
        if scalar::checked(weights, x, scales, cols, out) {
            // SAFETY: this table exists only if the CPU has the variant's features.
            unsafe { (self.gemm)(weights, x, scales, cols, out) }
        }
    }
}

/// The op.
pub(crate) struct Gemm;

impl Comparator for Gemm {
    const NAME: &'static str = "comparator/gemm";
    const STANDS_FOR: &'static str = "dequantised f32 weights through the Rust crate gemm, one thread";
    const ARITHMETIC: Arithmetic = Arithmetic::F32;
    const BITS: u64 = 32;
    const ACTIVATION_BITS: u64 = 32;
    type Weights = (Vec<f32>, usize);

    fn weights(source: &Source<'_>) -> (Vec<f32>, usize) {
        (source.trits.iter().map(|w| f32::from(*w)).collect(), source.cols)
    }

    fn floats(codes: &[i8]) -> Vec<f32> {
        codes.iter().map(|q| f32::from(*q)).collect()
    }

    fn matmul(kernels: &Kernels, (w, cols): &Self::Weights, x: Activations<'_>, floats: &[f32], out: &mut [f32]) {
        kernels.gemm_matmul(w, floats, x.scales, *cols, out);
    }

    fn variant(kernels: &Kernels) -> usize {
        kernels.gemm as usize
    }
}
