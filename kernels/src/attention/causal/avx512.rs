//! Four queries and four keys at a time; six queries and thirty-two columns.

use super::{ROWS, Steps, walk};
use crate::CacheElement;
use crate::attention::Heads;
use crate::lanes::LANES;
use crate::lanes::x86::{Widen, fold16_avx512, tail_mask};
use crate::softmax::avx512::softmax;
use crate::transpose::avx512::first as first_lanes;
use std::arch::x86_64::*;
use std::ops::Range;

/// Queries and keys of a tile of scores, as many products as are folded together.
const Q: usize = 4;
const K: usize = 4;
/// Queries of a tile of weighted sums, and registers of columns.
const S: usize = 6;
const C: usize = 2;

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn causal<E: CacheElement + Widen>(heads: Heads<'_, E>, tokens: usize, scores: &mut [f32], out: &mut [f32]) {
    let steps = Steps { widen: widen::<E>, dots, softmax, sums };
    // SAFETY: the steps need what this function needs.
    unsafe { walk(&steps, heads, tokens, scores, out) }
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn widen<E: CacheElement + Widen>(from: &[E], to: &mut [f32]) {
    for (from, to) in from.chunks(LANES).zip(to.chunks_mut(LANES)) {
        let mask = first_lanes(from.len());
        // SAFETY: the mask admits as many numbers as both have.
        unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), mask, E::widen_masked(from.as_ptr(), mask)) };
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn dots(queries: &[f32], keys: &[f32], width: usize, scale: f32, first: usize, scores: &mut [f32]) {
    let (stride, count) = (scores.len() / ROWS, queries.len() / width);
    let rows = keys.len() / width;
    let (whole, mask) = (width / LANES * LANES, tail_mask(width % LANES));
    for g in (0..count).step_by(Q) {
        // A query or key too many is the last one again; its products are not stored.
        let mut query = [queries.as_ptr(); Q];
        for q in 0..Q {
            query[q] = queries[(g + q).min(count - 1) * width..][..width].as_ptr();
        }
        for r in (0..rows).step_by(K) {
            let mut key = [keys.as_ptr(); K];
            for k in 0..K {
                key[k] = keys[(r + k).min(rows - 1) * width..][..width].as_ptr();
            }
            let mut lanes = [_mm512_setzero_ps(); LANES];
            for i in (0..whole).step_by(LANES) {
                // SAFETY: each row has `width` numbers, and i + 16 <= width.
                let y = key.map(|key| unsafe { _mm512_loadu_ps(key.add(i)) });
                for q in 0..Q {
                    // SAFETY: as above.
                    let x = unsafe { _mm512_loadu_ps(query[q].add(i)) };
                    for k in 0..K {
                        lanes[q * K + k] = _mm512_fmadd_ps(x, y[k], lanes[q * K + k]);
                    }
                }
            }
            if mask != 0 {
                // SAFETY: the mask admits what the rows have left.
                let y = key.map(|key| unsafe { _mm512_maskz_loadu_ps(mask, key.add(whole)) });
                for q in 0..Q {
                    // SAFETY: as above.
                    let x = unsafe { _mm512_maskz_loadu_ps(mask, query[q].add(whole)) };
                    for k in 0..K {
                        lanes[q * K + k] = _mm512_mask3_fmadd_ps(x, y[k], lanes[q * K + k], mask);
                    }
                }
            }
            let mut sums = [0.0; LANES];
            let folded = _mm512_mul_ps(fold16_avx512(lanes), _mm512_set1_ps(scale));
            // SAFETY: the array holds sixteen floats; the store needs no alignment.
            unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), folded) };
            let kept = K.min(rows - r);
            for q in 0..Q.min(count - g) {
                scores[(g + q) * stride + first + r..][..kept].copy_from_slice(&sums[q * K..][..kept]);
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn sums(scores: &[f32], first: usize, values: &[f32], width: usize, limits: &[usize], out: &mut [f32]) {
    let stride = scores.len() / ROWS;
    let end = first + values.len() / width;
    for (group, (limits, out)) in limits.chunks(S).zip(out.chunks_mut(S * width)).enumerate() {
        let scores = &scores[group * S * stride..];
        // What all see.
        let common = limits[0].clamp(first, end);
        add::<S>(scores, stride, first..common, &values[..(common - first) * width], out);
        for (q, (limit, out)) in limits.iter().zip(out.chunks_exact_mut(width)).enumerate() {
            let limit = (*limit).clamp(common, end);
            let values = &values[(common - first) * width..(limit - first) * width];
            add::<1>(&scores[q * stride..], stride, common..limit, values, out);
        }
    }
}

/// Adds values weighted by the probabilities of up to N queries at some positions, row by row of them in ascending order.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn add<const N: usize>(scores: &[f32], stride: usize, positions: Range<usize>, values: &[f32], out: &mut [f32]) {
    if positions.is_empty() {
        return;
    }
    let width = values.len() / positions.len();
    let count = out.len() / width;
    // A query too many is the last one again: it is computed and stored twice, with the same result.
    let row: [usize; N] = std::array::from_fn(|q| q.min(count - 1));
    let mut probability = [scores.as_ptr(); N];
    for q in 0..N {
        probability[q] = scores[row[q] * stride..][positions.clone()].as_ptr();
    }
    for column in (0..width).step_by(C * LANES) {
        let left = width - column;
        let masks = [first_lanes(left.min(LANES)), first_lanes(left.saturating_sub(LANES).min(LANES))];
        let mut sums = [[_mm512_setzero_ps(); C]; N];
        for q in 0..N {
            let at = out[row[q] * width + column..].as_ptr();
            for c in 0..C {
                // SAFETY: the mask admits what the row has left from there on.
                sums[q][c] = unsafe { _mm512_maskz_loadu_ps(masks[c], at.wrapping_add(c * LANES)) };
            }
        }
        for (i, values) in values.chunks_exact(width).enumerate() {
            let at = values[column..].as_ptr();
            let mut v = [_mm512_setzero_ps(); C];
            for c in 0..C {
                // SAFETY: as above.
                v[c] = unsafe { _mm512_maskz_loadu_ps(masks[c], at.wrapping_add(c * LANES)) };
            }
            for q in 0..N {
                // SAFETY: each pointer begins as many numbers as there are rows.
                let p = _mm512_set1_ps(unsafe { *probability[q].add(i) });
                for c in 0..C {
                    sums[q][c] = _mm512_fmadd_ps(p, v[c], sums[q][c]);
                }
            }
        }
        for q in 0..N {
            let at = out[row[q] * width + column..].as_mut_ptr();
            for c in 0..C {
                // SAFETY: as above.
                unsafe { _mm512_mask_storeu_ps(at.wrapping_add(c * LANES), masks[c], sums[q][c]) };
            }
        }
    }
}
