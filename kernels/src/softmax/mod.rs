//! Softmax.
//!
//! **Computes** `x = exp(x - max x) / sum`, in place; the quotient is a product with 1 / sum.
//!
//! **Shapes** x `[n]`, n >= 1.
//!
//! **Numbers** f32; the largest term is 1, so the sum is in 1..=n. -inf becomes 0. NaN spreads to all.
//!
//! **Exactness** the same bits everywhere: our own exp, the sum by the sixteen-lane rule.
//!
//! **Cost** 8·n bytes; about 16·n operations.
//!
//! **Source** Bridle (1990); the maximum is subtracted so that nothing overflows.

use crate::Kernels;

pub(crate) mod scalar;

pub(crate) type Variant = unsafe fn(&mut [f32]);

impl Kernels {
    /// Softmax in place. See [`crate::softmax`].
    pub fn softmax(&self, x: &mut [f32]) {
        if x.is_empty() {
            return;
        }
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { (self.softmax)(x) }
    }
}
