//! Arithmetic peaks: independent chains of the ISA's best multiply-add, in registers.
//!
//! **Computes** `rounds` rounds of int8 multiply-adds (u8 × s8 into i32, as ternary products use) or of f32 fused
//! multiply-adds.
//!
//! **Shapes** none: every operand stays in a register.
//!
//! **Exactness** none to keep: the checksum only stops the compiler from dropping the work. Variants differ in how many
//! operations a round holds, and say so.
//!
//! **Cost** no memory.
//!
//! **Variants** AVX-512: `vpdpbusd` (64 multiply-adds) and `vfmadd` on sixteen chains. AVX2: `vpmaddubsw` with a 16-bit
//! addition (32 multiply-adds for two instructions; widening left out, so that it stays an upper bound) and `vfmadd` on
//! ten.

use crate::Kernels;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

/// What a peak loop did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Burst {
    /// Multiplications and additions performed.
    pub operations: u64,
    /// Depends on every result.
    pub checksum: f64,
}

/// rounds.
pub(crate) type Variant = unsafe fn(u64) -> Burst;

impl Kernels {
    /// `rounds` rounds of the ISA's best int8 multiply-add. See [`crate::ceiling::peak`].
    pub fn int8_peak(&self, rounds: u64) -> Burst {
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { (self.int8_peak)(rounds) }
    }

    /// `rounds` rounds of the ISA's best f32 multiply-add. See [`crate::ceiling::peak`].
    pub fn f32_peak(&self, rounds: u64) -> Burst {
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { (self.f32_peak)(rounds) }
    }
}
