//! A line a register; each stream four lines at a time, prefetched ahead.

use crate::Line;
use crate::streams::prefetch;
use std::arch::x86_64::*;

/// Bytes between a load and the prefetch of its stream.
const AHEAD: usize = 1792;
/// Lines of one stream that are read before the next stream's turn.
const RUN: usize = 4;

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn read(lines: &[Line], streams: usize) -> u64 {
    let part = lines.len() / streams;
    let whole = part / RUN * RUN;
    let mut sums = [_mm512_setzero_si512(); RUN];
    for at in (0..whole).step_by(RUN) {
        for stream in 0..streams {
            let start = stream * part + at;
            for (line, sum) in lines[start..start + RUN].iter().zip(&mut sums) {
                prefetch(line, AHEAD);
                *sum = _mm512_add_epi64(*sum, load(line));
            }
        }
    }
    for stream in 0..streams {
        for line in &lines[stream * part + whole..][..part - whole] {
            sums[0] = _mm512_add_epi64(sums[0], load(line));
        }
    }
    for line in &lines[part * streams..] {
        sums[0] = _mm512_add_epi64(sums[0], load(line));
    }
    let [a, b, c, d] = sums;
    _mm512_reduce_add_epi64(_mm512_add_epi64(_mm512_add_epi64(a, b), _mm512_add_epi64(c, d))) as u64
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(line: &Line) -> __m512i {
    // SAFETY: a line is 64 bytes, aligned to 64.
    unsafe { _mm512_load_si512(line.0.as_ptr().cast()) }
}
