//! LayerNorm.
//!
//! **Computes** for each token m = sum(x)/D, v = sum((x - m)^2)/D, `out = ((x - m) * (1 / sqrt(v + eps))) * gain + bias`
//! (the last step a fused multiply-add).
//!
//! **Shapes** x `[T, D]`, gain and bias `[D]`, out `[T, D]`.
//!
//! **Numbers** f32, two passes: no cancellation in the variance.
//!
//! **Exactness** the same bits everywhere: both sums keep the sixteen-lane rule (the first adds, the second
//! multiply-adds), square root and division are IEEE.
//!
//! **Cost** 8·T·D bytes beside gain and bias; 7·T·D operations.
//!
//! **Source** Ba, Kiros and Hinton, "Layer Normalization" (arXiv 1607.06450), eq. 4.

use crate::Kernels;

pub(crate) mod scalar;

pub(crate) type Variant = unsafe fn(&[f32], &[f32], &[f32], f32, &mut [f32]);

impl Kernels {
    /// Normalises each row of `x` `[T, D]` into `out`; `gain` and `bias` `[D]`. See [`crate::norm::layer`].
    ///
    /// # Panics
    /// If shapes disagree or D is 0.
    pub fn layer_norm(&self, x: &[f32], gain: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
        assert!(!gain.is_empty(), "width 0");
        assert_eq!(gain.len(), bias.len(), "gain and bias");
        assert!(x.len().is_multiple_of(gain.len()), "x [T, {}] has {} elements", gain.len(), x.len());
        assert_eq!(x.len(), out.len(), "out is as long as x");
        for (x, out) in x.chunks_exact(gain.len()).zip(out.chunks_exact_mut(gain.len())) {
            // SAFETY: this table exists only if the CPU has the variant's features.
            unsafe { (self.layer_norm)(x, gain, bias, eps, out) }
        }
    }
}
