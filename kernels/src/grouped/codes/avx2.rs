//! A group at a time, in four registers.

use super::scale_for;
use crate::grouped::format::GROUP;
use crate::lanes::x86::{array, load8};
use std::arch::x86_64::*;
use std::array;

#[target_feature(enable = "avx2,fma")]
pub(crate) fn quantise(x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
    let used = x.len().div_ceil(GROUP);
    codes[used * GROUP..].fill(0);
    scales[used..].fill(0.0);
    sums[used..].fill(0);
    let places = codes.as_chunks_mut::<GROUP>().0.iter_mut().zip(scales).zip(sums);
    let (whole, tail) = x.as_chunks::<GROUP>();
    let mut last = [0.0; GROUP];
    last[..tail.len()].copy_from_slice(tail);
    let groups = whole.iter().chain((!tail.is_empty()).then_some(&last));
    for (x, ((codes, scale), sum)) in groups.zip(places) {
        (*scale, *sum) = group(x, codes);
    }
}

/// Scale and sum of the codes of a group.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn group(x: &[f32; GROUP], codes: &mut [i8; GROUP]) -> (f32, i32) {
    let magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(i32::MAX));
    let x: [_; 4] = array::from_fn(|i| load8(&x[8 * i..]));
    // `max(v, m)` is m where v is a NaN.
    let eight = x.iter().fold(_mm256_setzero_ps(), |m, x| _mm256_max_ps(_mm256_and_ps(*x, magnitude), m));
    let max = array(eight, eight)[..8].iter().fold(0.0f32, |max, v| if *v > max { *v } else { max });
    let (scale, inverse) = scale_for(max);
    let q = x.map(|x| {
        let v = _mm256_mul_ps(x, _mm256_set1_ps(inverse));
        // To the nearest, ties to even; a NaN becomes 0.
        let ordered = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_ORD_Q>(v, v));
        _mm256_and_si256(_mm256_cvtps_epi32(v), ordered)
    });
    // Packing works in halves of a register: columns come out as 0..4, 8..12, 16..20, 24..28, then the rest.
    let words = [_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3])];
    let bytes = _mm256_packs_epi16(words[0], words[1]);
    let bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    // SAFETY: the array holds one register.
    unsafe { _mm256_storeu_si256(codes.as_mut_ptr().cast(), bytes) };
    let sums = _mm256_madd_epi16(_mm256_add_epi16(words[0], words[1]), _mm256_set1_epi16(1));
    let four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
    let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b11_10_11_10>(four));
    let one = _mm_add_epi32(two, _mm_shuffle_epi32::<0b01_01_01_01>(two));
    (scale, _mm_cvtsi128_si32(one))
}
