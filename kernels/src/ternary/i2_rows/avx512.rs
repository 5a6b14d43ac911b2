//! `vpdpbusd` on a line at a time: codes are the unsigned operand, 64 activations the signed one. As in `i2`, planes 1 and
//! 3 stay where they are in their bytes and are summed four times too large.

use super::{Activations, COLUMNS, PLANE, Weights};
use crate::blocking::{Product, cached_runs, walk};
use std::arch::x86_64::*;
use std::array;
use std::ops::Range;

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
pub(crate) fn matmul(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    for run in cached_runs(x.scales.len(), x.stride, 4) {
        // SAFETY: this function has the features that the blocks need.
        unsafe { walk_rows(&Rows { weights, x }, weights.rows, run, out) };
    }
}

walk! {
    /// Rows, one after the other.
    walk_rows:
    _ => 1 items of 1, 2, 3, 4 tokens;
}

struct Rows<'a> {
    weights: Weights<'a>,
    x: Activations<'a>,
}

impl Product for Rows<'_> {
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
    unsafe fn block<const N: usize, const T: usize>(&self, rows: [usize; N], tokens: Range<usize>, out: &mut [f32]) {
        let Rows { weights, x } = *self;
        let token: [usize; T] = array::from_fn(|t| (tokens.start + t).min(tokens.end - 1));
        let codes = token.map(|t| x.codes[t * x.stride..][..x.stride].as_ptr());
        let (low, high) = (_mm512_set1_epi8(0b0011), _mm512_set1_epi8(0b1100));
        for row in rows {
            let lines = &weights.lines[row * weights.groups..][..weights.groups];
            // One sum a plane hides the latency; planes 1 and 3 are four times too large.
            let mut sums = [[_mm512_setzero_si512(); 4]; T];
            for (g, line) in lines.iter().enumerate() {
                // SAFETY: a line is one aligned register.
                let line = unsafe { _mm512_load_si512(line.0.as_ptr().cast()) };
                let upper = _mm512_srli_epi16::<4>(line);
                let planes = [
                    _mm512_and_si512(line, low),
                    _mm512_and_si512(line, high),
                    _mm512_and_si512(upper, low),
                    _mm512_and_si512(upper, high),
                ];
                // The last line may have planes beyond the stride.
                let present = ((x.stride - g * COLUMNS) / PLANE).min(4);
                for (sums, codes) in sums.iter_mut().zip(codes) {
                    for (plane, (sum, unpacked)) in sums.iter_mut().zip(planes).enumerate() {
                        if plane < present {
                            // SAFETY: the plane lies below the stride.
                            let q = unsafe { _mm512_loadu_si512(codes.add(g * COLUMNS + plane * PLANE).cast()) };
                            *sum = _mm512_dpbusd_epi32(*sum, unpacked, q);
                        }
                    }
                }
            }
            for (sums, t) in sums.into_iter().zip(tokens.clone()) {
                let ones = _mm512_add_epi32(sums[0], sums[2]);
                let fours = _mm512_add_epi32(sums[1], sums[3]);
                let sum = _mm512_reduce_add_epi32(_mm512_add_epi32(ones, _mm512_srai_epi32::<2>(fours)));
                out[row * x.scales.len() + t] = (sum - x.sums[t]) as f32 * x.scales[t];
            }
        }
    }
}
