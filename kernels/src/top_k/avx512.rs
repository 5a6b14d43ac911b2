//! Sixty-four elements at a time are compared with the lowest of the best.

use super::scalar::{begin, finish, offer};
use crate::lanes::LANES;
use crate::lanes::x86::load16;
use std::arch::x86_64::*;

const BLOCK: usize = 64;

/// Bit i is set where element i does not rank at or below `lowest`. A NaN there lets everything through, to be judged
/// one by one.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn candidates(block: &[f32], lowest: f32) -> u64 {
    let lowest = _mm512_set1_ps(lowest);
    let mut mask = 0u64;
    for (i, x) in block.chunks_exact(LANES).enumerate() {
        mask |= u64::from(_mm512_cmp_ps_mask::<_CMP_NLE_UQ>(load16(x), lowest)) << (LANES * i);
    }
    mask
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn top_k(x: &[f32], indices: &mut [u32]) {
    begin(x, indices);
    let mut i = indices.len();
    while i + BLOCK <= x.len() {
        let mut mask = candidates(&x[i..i + BLOCK], x[indices[0] as usize]);
        while mask != 0 {
            offer(x, indices, i + mask.trailing_zeros() as usize);
            mask &= mask - 1;
        }
        i += BLOCK;
    }
    for i in i..x.len() {
        offer(x, indices, i);
    }
    finish(x, indices);
}
