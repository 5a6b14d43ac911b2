//! Activation quantisation: absmax int8 per token.
//!
//! **Computes** a = (1 / max(max|x|, 1e-5))·127; q = clamp(round(x·a), -128, 127), ties to even; the sum of q.
//! The quotient is rounded before the product, as upstream's eager mode does, so that scales and codes are upstream's bit
//! for bit.
//!
//! **Shapes** x `[C]`, one token; codes `[stride]` with stride >= C, zero from C on.
//!
//! **Numbers** |sum| <= 128·C, inside 32 bits for C < 2^24.
//!
//! **Exactness** the same bits everywhere: the maximum does not depend on order, the product and the rounding are exact
//! IEEE operations. x must be finite; a NaN counts as 0 in the maximum and becomes code 0.
//!
//! **Cost** 4·C bytes read, C written; about 4·C operations.
//!
//! **Source** BitNet b1.58 (arXiv 2402.17764); Hugging Face `ActQuant`.

use crate::Kernels;

pub(crate) mod scalar;

/// The smallest absolute maximum that is divided by, so that a zero token stays zero.
pub const EPSILON: f32 = 1e-5;

/// What the codes of one token stand for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantised {
    /// a: codes are x·a, so x is about q/a.
    pub scale: f32,
    /// The sum of the codes.
    pub sum: i32,
}

/// a, for the largest absolute value of a token.
#[inline(always)]
pub(crate) fn scale_for(max: f32) -> f32 {
    (1.0 / if max > EPSILON { max } else { EPSILON }) * 127.0
}

pub(crate) type Variant = unsafe fn(&[f32], &mut [i8]) -> Quantised;

impl Kernels {
    /// Quantises one token. See [`crate::quantise`].
    ///
    /// # Panics
    /// If `codes` is shorter than `x` or x has 2^24 elements or more.
    pub fn quantise(&self, x: &[f32], codes: &mut [i8]) -> Quantised {
        assert!(codes.len() >= x.len(), "{} codes for {} activations", codes.len(), x.len());
        assert!(x.len() < 1 << 24, "{} codes could overflow a 32-bit sum", x.len());
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { (self.quantise)(x, codes) }
    }
}
