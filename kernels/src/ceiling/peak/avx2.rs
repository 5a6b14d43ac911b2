//! `vpmaddubsw` with 16-bit additions, and fused multiply-adds, on 256-bit registers.
//!
//! Without VNNI a product of bytes is two instructions for 32 multiply-adds: `vpmaddubsw` into 16-bit sums of two, then
//! an addition. Widening to 32 bits, which a product needs only once in dozens of additions, is left out, so that this
//! stays above anything that a product can reach.

use super::Burst;
use std::arch::{asm, x86_64::*};

/// Independent chains: more than latency times the instructions that start in a cycle.
const CHAINS: usize = 10;

#[target_feature(enable = "avx2,fma")]
pub(crate) fn int8(rounds: u64) -> Burst {
    let (mut a, mut b) = (_mm256_set1_epi8(2), _mm256_set1_epi8(-3));
    let mut sums = [_mm256_setzero_si256(); CHAINS];
    for _ in 0..rounds {
        for sum in &mut sums {
            // SAFETY: no instruction at all: the compiler must believe that both change, and so multiply every time.
            unsafe {
                asm!("/* {0} {1} */", inout(ymm_reg) a, inout(ymm_reg) b, options(pure, nomem, nostack, preserves_flags))
            };
            *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(a, b));
        }
    }
    let checksum = sums.into_iter().map(|sum| f64::from(_mm256_extract_epi16::<0>(sum))).sum();
    Burst { operations: rounds * 2 * 32 * CHAINS as u64, checksum }
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn f32(rounds: u64) -> Burst {
    let (mut a, b) = (_mm256_set1_ps(0.999), _mm256_set1_ps(1e-3));
    let mut sums = [_mm256_setzero_ps(); CHAINS];
    for _ in 0..rounds {
        // SAFETY: no instruction at all: the compiler must believe that `a` changes, and so keep every round.
        unsafe { asm!("/* {0} */", inout(ymm_reg) a, options(pure, nomem, nostack, preserves_flags)) };
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, a, b);
        }
    }
    let checksum = sums.into_iter().map(|sum| f64::from(_mm256_cvtss_f32(sum))).sum();
    Burst { operations: rounds * 2 * 8 * CHAINS as u64, checksum }
}
