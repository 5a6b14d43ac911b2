//! Three queries and four keys at a time, eight lanes and then the other eight; six queries and sixteen columns.

use super::{ROWS, Steps, walk};
use crate::CacheElement;
use crate::attention::Heads;
use crate::lanes::LANES;
use crate::lanes::x86::{Widen, fold4_avx2, load8, store8, tail_mask8};
use crate::softmax::avx2::softmax;
use std::arch::x86_64::*;
use std::ops::Range;

/// Queries of a tile of scores: twelve sums, three queries and a key fill the registers.
const Q: usize = 3;
/// Keys of a tile of scores, as many as are folded together.
const K: usize = 4;
/// Queries of a tile of weighted sums: twelve sums, two values and a probability.
const S: usize = 6;

#[target_feature(enable = "avx2,fma")]
pub(crate) fn causal<E: CacheElement + Widen>(heads: Heads<'_, E>, tokens: usize, scores: &mut [f32], out: &mut [f32]) {
    let steps = Steps { widen: widen::<E>, dots, softmax, sums };
    // SAFETY: the steps need what this function needs.
    unsafe { walk(&steps, heads, tokens, scores, out) }
}

#[target_feature(enable = "avx2,fma")]
fn widen<E: CacheElement + Widen>(from: &[E], to: &mut [f32]) {
    let ((from, rest), (to, rest_to)) = (from.as_chunks::<8>(), to.as_chunks_mut::<8>());
    for (from, to) in from.iter().zip(to) {
        // SAFETY: both arrays hold eight numbers.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), E::widen8(from.as_ptr())) };
    }
    for (from, to) in rest.iter().zip(rest_to) {
        *to = from.widen();
    }
}

#[target_feature(enable = "avx2,fma")]
fn dots(queries: &[f32], keys: &[f32], width: usize, scale: f32, first: usize, scores: &mut [f32]) {
    let (stride, count) = (scores.len() / ROWS, queries.len() / width);
    let rows = keys.len() / width;
    let (whole, rest) = (width / LANES * LANES, width % LANES);
    let mask = [tail_mask8(rest), tail_mask8(rest.saturating_sub(8))];
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
            // SAFETY: each row has `whole` numbers, which are eight more than the second half begins with.
            let mut lanes = unsafe { [products(query, key, 0, whole), products(query, key, 8, whole)] };
            for half in 0..if rest > 0 { 2 } else { 0 } {
                let (i, seen) = (whole + 8 * half, mask[half]);
                for q in 0..Q {
                    for k in 0..K {
                        // SAFETY: the mask admits what the rows have left; lanes outside are not read.
                        let (x, y) = unsafe {
                            (
                                _mm256_maskload_ps(query[q].wrapping_add(i), seen),
                                _mm256_maskload_ps(key[k].wrapping_add(i), seen),
                            )
                        };
                        let lane = &mut lanes[half][q][k];
                        *lane = _mm256_blendv_ps(*lane, _mm256_fmadd_ps(x, y, *lane), _mm256_castsi256_ps(seen));
                    }
                }
            }
            let kept = K.min(rows - r);
            for q in 0..Q.min(count - g) {
                let sums = fold4_avx2(lanes[0][q], lanes[1][q]).map(|sum| sum * scale);
                let scores = &mut scores[(g + q) * stride + first + r..][..kept];
                match <&mut [f32; K]>::try_from(&mut *scores) {
                    Ok(scores) => *scores = sums,
                    Err(_) => scores.copy_from_slice(&sums[..kept]),
                }
            }
        }
    }
}

/// Eight of the sixteen lanes of each product, from column `first` on. Inlined, it would not keep its registers.
///
/// # Safety
/// Each pointer begins `whole` numbers, a multiple of sixteen; `first` is 0 or 8.
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
unsafe fn products(query: [*const f32; Q], key: [*const f32; K], first: usize, whole: usize) -> [[__m256; K]; Q] {
    let mut sums = [[_mm256_setzero_ps(); K]; Q];
    for i in (first..whole).step_by(LANES) {
        let mut x = [_mm256_setzero_ps(); Q];
        for q in 0..Q {
            // SAFETY: i + 8 <= whole.
            x[q] = unsafe { _mm256_loadu_ps(query[q].add(i)) };
        }
        for k in 0..K {
            // SAFETY: as above.
            let y = unsafe { _mm256_loadu_ps(key[k].add(i)) };
            for q in 0..Q {
                sums[q][k] = _mm256_fmadd_ps(x[q], y, sums[q][k]);
            }
        }
    }
    sums
}

#[target_feature(enable = "avx2,fma")]
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
#[target_feature(enable = "avx2,fma")]
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
    for column in (0..width).step_by(LANES) {
        let left = width - column;
        let mut sums = [[_mm256_setzero_ps(); 2]; N];
        if left >= LANES {
            for q in 0..N {
                let out = &out[row[q] * width + column..][..LANES];
                sums[q] = [load8(&out[..8]), load8(&out[8..])];
            }
            for (i, values) in values.chunks_exact(width).enumerate() {
                let values = values[column..].as_ptr();
                // SAFETY: the row has sixteen columns from there on.
                let v = unsafe { [_mm256_loadu_ps(values), _mm256_loadu_ps(values.add(8))] };
                for q in 0..N {
                    // SAFETY: each pointer begins as many numbers as there are rows.
                    let p = _mm256_set1_ps(unsafe { *probability[q].add(i) });
                    sums[q] = [_mm256_fmadd_ps(p, v[0], sums[q][0]), _mm256_fmadd_ps(p, v[1], sums[q][1])];
                }
            }
            for q in 0..N {
                let out = &mut out[row[q] * width + column..][..LANES];
                store8(&mut out[..8], sums[q][0]);
                store8(&mut out[8..], sums[q][1]);
            }
        } else {
            let masks = [tail_mask8(left), tail_mask8(left.saturating_sub(8))];
            // SAFETY: the masks admit what a row has left from `at` on; lanes outside are neither read nor written.
            let load = |at: *const f32| unsafe {
                [_mm256_maskload_ps(at, masks[0]), _mm256_maskload_ps(at.wrapping_add(8), masks[1])]
            };
            for q in 0..N {
                sums[q] = load(out[row[q] * width + column..].as_ptr());
            }
            for (i, values) in values.chunks_exact(width).enumerate() {
                let v = load(values[column..].as_ptr());
                for q in 0..N {
                    // SAFETY: each pointer begins as many numbers as there are rows.
                    let p = _mm256_set1_ps(unsafe { *probability[q].add(i) });
                    sums[q] = [_mm256_fmadd_ps(p, v[0], sums[q][0]), _mm256_fmadd_ps(p, v[1], sums[q][1])];
                }
            }
            for q in 0..N {
                let at = out[row[q] * width + column..].as_mut_ptr();
                for half in 0..2 {
                    // SAFETY: as for the loads.
                    unsafe { _mm256_maskstore_ps(at.wrapping_add(8 * half), masks[half], sums[q][half]) };
                }
            }
        }
    }
}
