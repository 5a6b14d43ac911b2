//! Thirty-two elements at a time are compared with the lowest of the best.

use super::scalar::{begin, finish, offer};
use crate::lanes::x86::load8;
use std::arch::x86_64::*;

const BLOCK: usize = 32;

/// Bit i is set where element i does not rank at or below `lowest`. A NaN there lets everything through, to be judged
/// one by one.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn candidates(block: &[f32], lowest: f32) -> u32 {
    let lowest = _mm256_set1_ps(lowest);
    let mut mask = 0u32;
    for (i, x) in block.chunks_exact(8).enumerate() {
        let above = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NLE_UQ>(load8(x), lowest));
        mask |= (above as u32) << (8 * i);
    }
    mask
}

#[target_feature(enable = "avx2,fma")]
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
