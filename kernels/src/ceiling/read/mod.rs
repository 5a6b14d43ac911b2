//! Reading memory in several streams.
//!
//! **Computes** the wrapping sum of all 64-bit words, reading `streams` equal parts side by side.
//!
//! **Shapes** lines `[n]` of 64 bytes.
//!
//! **Exactness** the same sum everywhere.
//!
//! **Cost** 64·n bytes read.

use crate::{Kernels, Line};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

/// lines, streams (at least 1).
pub(crate) type Variant = unsafe fn(&[Line], usize) -> u64;

impl Kernels {
    /// The wrapping sum of the lines' 64-bit little-endian words, read in `streams` streams (1..=16). See
    /// [`crate::ceiling::read`].
    ///
    /// # Panics
    /// If `streams` is outside 1..=16.
    pub fn read(&self, lines: &[Line], streams: usize) -> u64 {
        assert!((1..=16).contains(&streams), "{streams} streams: expected 1 to 16");
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { (self.read)(lines, streams) }
    }
}
