//! `vpdpbusd` and fused multiply-adds on 512-bit registers.

use super::Burst;
use std::arch::{asm, x86_64::*};

/// Independent chains: more than latency times the instructions that start in a cycle.
const CHAINS: usize = 16;

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx2,fma")]
pub(crate) fn int8(rounds: u64) -> Burst {
    let (mut a, b) = (_mm512_set1_epi8(2), _mm512_set1_epi8(-3));
    let mut sums = [_mm512_setzero_si512(); CHAINS];
    for _ in 0..rounds {
        // SAFETY: no instruction at all: the compiler must believe that `a` changes, and so keep every round.
        unsafe { asm!("/* {0} */", inout(zmm_reg) a, options(pure, nomem, nostack, preserves_flags)) };
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, a, b);
        }
    }
    let checksum = sums.into_iter().map(|sum| f64::from(_mm512_reduce_add_epi32(sum))).sum();
    Burst { operations: rounds * 2 * 64 * CHAINS as u64, checksum }
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn f32(rounds: u64) -> Burst {
    let (mut a, b) = (_mm512_set1_ps(0.999), _mm512_set1_ps(1e-3));
    let mut sums = [_mm512_setzero_ps(); CHAINS];
    for _ in 0..rounds {
        // SAFETY: no instruction at all: the compiler must believe that `a` changes, and so keep every round.
        unsafe { asm!("/* {0} */", inout(zmm_reg) a, options(pure, nomem, nostack, preserves_flags)) };
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, a, b);
        }
    }
    let checksum = sums.into_iter().map(|sum| f64::from(_mm512_reduce_add_ps(sum))).sum();
    Burst { operations: rounds * 2 * 16 * CHAINS as u64, checksum }
}
