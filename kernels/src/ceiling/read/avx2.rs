//! A line two registers; each stream four lines at a time, prefetched ahead.

use crate::Line;
use crate::streams::prefetch;
use std::arch::x86_64::*;

/// Bytes between a load and the prefetch of its stream.
const AHEAD: usize = 1792;
/// Lines of one stream that are read before the next stream's turn.
const RUN: usize = 4;

#[target_feature(enable = "avx2")]
pub(crate) fn read(lines: &[Line], streams: usize) -> u64 {
    let part = lines.len() / streams;
    let whole = part / RUN * RUN;
    let mut sums = [_mm256_setzero_si256(); RUN];
    for at in (0..whole).step_by(RUN) {
        for stream in 0..streams {
            let start = stream * part + at;
            for (line, sum) in lines[start..start + RUN].iter().zip(&mut sums) {
                prefetch(line, AHEAD);
                *sum = _mm256_add_epi64(*sum, load(line));
            }
        }
    }
    for stream in 0..streams {
        for line in &lines[stream * part + whole..][..part - whole] {
            sums[0] = _mm256_add_epi64(sums[0], load(line));
        }
    }
    for line in &lines[part * streams..] {
        sums[0] = _mm256_add_epi64(sums[0], load(line));
    }
    let [a, b, c, d] = sums;
    let mut words = [0u64; 4];
    let sum = _mm256_add_epi64(_mm256_add_epi64(a, b), _mm256_add_epi64(c, d));
    // SAFETY: the array holds one register.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), sum) };
    words.into_iter().fold(0, u64::wrapping_add)
}

/// The sum of a line's halves.
#[inline]
#[target_feature(enable = "avx2")]
fn load(line: &Line) -> __m256i {
    let (low, high) = line.0.split_at(32);
    // SAFETY: each half is 32 bytes, aligned to 32.
    unsafe { _mm256_add_epi64(_mm256_load_si256(low.as_ptr().cast()), _mm256_load_si256(high.as_ptr().cast())) }
}
