//! Rotary position embedding.
//!
//! **Computes** for each head and pair i the rotation `(a, b) -> (a cos_i - b sin_i, b cos_i + a sin_i)`, each
//! component one product and one fused multiply-add: `fma(a, cos, -(b sin))` and `fma(b, cos, a sin)`.
//!
//! **Shapes** x `[H, K]` in place; cos and sin `[K / 2]` of one position. A pair is (i, i + K/2) in the half-split form
//! (Hugging Face, NEOX) and (2i, 2i + 1) in the interleaved form (the paper, llama2.c, GGUF llama).
//!
//! **Exactness** the same bits everywhere: element-wise.
//!
//! **Cost** 8·H·K bytes; 3·H·K operations.
//!
//! **Source** Su et al., "RoFormer" (arXiv 2104.09864), eq. 34.

use crate::Kernels;

pub(crate) mod scalar;

/// x `[H, K]`, cos `[K / 2]`, sin `[K / 2]`.
pub(crate) type Variant = unsafe fn(&mut [f32], &[f32], &[f32]);

/// Which elements of a head form a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pairs {
    /// (i, i + K/2).
    HalfSplit,
    /// (2i, 2i + 1).
    Interleaved,
}

impl Kernels {
    /// Rotates each head of `x` `[H, K]` by the angles whose cosines and sines are given, `[K / 2]`. See [`crate::rope`].
    ///
    /// # Panics
    /// If shapes disagree.
    pub fn rope(&self, pairs: Pairs, x: &mut [f32], cos: &[f32], sin: &[f32]) {
        assert_eq!(cos.len(), sin.len(), "cosines and sines");
        if x.is_empty() {
            return;
        }
        assert!(!cos.is_empty() && x.len().is_multiple_of(2 * cos.len()), "x [H, {}]: {}", 2 * cos.len(), x.len());
        let variant = match pairs {
            Pairs::HalfSplit => self.rope_half,
            Pairs::Interleaved => self.rope_interleaved,
        };
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { variant(x, cos, sin) }
    }
}
