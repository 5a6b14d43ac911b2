//! The k largest elements, in order.
//!
//! **Computes** the indices of the k largest elements of x, largest first; of equal elements the lower index first. NaN
//! is below everything.
//!
//! **Shapes** x `[n]`; indices `[k]`, k <= n.
//!
//! **Exactness** the same indices everywhere.
//!
//! **Cost** 4·n bytes; about n comparisons while k is small beside n.

use crate::Kernels;

pub(crate) mod scalar;

/// x `[n]`, indices `[k]` to fill.
pub(crate) type Variant = unsafe fn(&[f32], &mut [u32]);

impl Kernels {
    /// Fills `indices` `[k]` with the positions of the k largest elements of `x`, largest first. See [`crate::top_k`].
    ///
    /// # Panics
    /// If k is above the number of elements, or there are 2^32 elements or more.
    pub fn top_k(&self, x: &[f32], indices: &mut [u32]) {
        assert!(indices.len() <= x.len(), "top {} of {}", indices.len(), x.len());
        assert!(u32::try_from(x.len()).is_ok(), "{} elements", x.len());
        if indices.is_empty() {
            return;
        }
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { (self.top_k)(x, indices) }
    }
}
