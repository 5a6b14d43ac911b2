//! Dense product: f32, bf16 or f16 weights and f32 activations.
//!
//! **Computes** `out[r, t] = sum over c of w[r, c] * x[t, c]`.
//!
//! **Shapes** w `[R, C]`, x `[T, C]`, out `[R, T]`.
//!
//! **Numbers** f32; stored weights widen exactly.
//!
//! **Exactness** the same bits everywhere: each output is one sixteen-lane sum of fused multiply-adds.
//!
//! **Cost** R·C times the weight's bytes; 2·R·C·T operations.
//!
//! **Not done** bf16 arithmetic (`vdpbf16ps` rounds its inputs and its sums: other bits).

use crate::{Element, Kernels};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

/// w `[R, C]`, x `[T, C]`, C, out `[R, T]`.
pub(crate) type Variant<E> = unsafe fn(&[E], &[f32], usize, &mut [f32]);

impl Kernels {
    /// `out = w · x^T`: w `[R, cols]`, x `[T, cols]`, out `[R, T]`. See [`crate::dense`].
    ///
    /// # Panics
    /// If shapes disagree or `cols` is 0.
    pub fn dense_matmul<E: Element>(&self, weights: &[E], x: &[f32], cols: usize, out: &mut [f32]) {
        assert!(cols > 0, "0 columns");
        assert!(weights.len().is_multiple_of(cols), "weights [R, {cols}] have {} elements", weights.len());
        assert!(x.len().is_multiple_of(cols), "x [T, {cols}] has {} elements", x.len());
        assert_eq!(
            out.len(),
            weights.len() / cols * (x.len() / cols),
            "out [{}, {}]",
            weights.len() / cols,
            x.len() / cols
        );
        if out.is_empty() {
            return;
        }
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { E::dense(self)(weights, x, cols, out) }
    }
}
