//! Sixteen lanes in one register; a block of queries reads each row of the cache once.

use super::Heads;
use super::int8::RowScales;
use crate::CacheElement;
use crate::lanes::LANES;
use crate::lanes::x86::{Widen, fold16_avx512, tail_mask, zip_avx512};
use crate::softmax::avx512::softmax;
use crate::streams::prefetch;
use std::arch::x86_64::*;

/// Rows of values that stay in the first-level cache while every column tile reads them.
const BLOCK_BYTES: usize = 16 << 10;
/// Runs of keys that are read side by side: more would fall into the same sets of the first-level cache when the number
/// of positions is a power of two.
const STREAMS: usize = 4;
/// How far ahead of its reader a stream of keys is asked for.
const AHEAD_BYTES: usize = 2048;

/// Calls a tile with as many queries as are left, one, two or four; four may repeat the last.
macro_rules! by_queries {
    ($count:expr, $tile:ident) => {
        match $count {
            1 => $tile!(1, 16, 8),
            2 => $tile!(2, 8, 8),
            _ => $tile!(4, 4, 4),
        }
    };
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn attention<E: CacheElement + Widen>(heads: Heads<'_, E>, scores: &mut [f32], out: &mut [f32]) {
    attend(heads, None, scores, out);
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn int8(heads: Heads<'_, i8>, scales: RowScales<'_>, scores: &mut [f32], out: &mut [f32]) {
    attend(heads, Some(scales), scores, out);
}

/// Both kinds: rows of plain numbers, or of codes that have scales.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn attend<E: Widen>(heads: Heads<'_, E>, scales: Option<RowScales<'_>>, scores: &mut [f32], out: &mut [f32]) {
    let width = heads.width;
    let cached = heads.keys.len() / width;
    let blocks = heads.queries.chunks(4 * width).zip(scores.chunks_mut(4 * cached)).zip(out.chunks_mut(4 * width));
    for ((queries, scores), out) in blocks {
        macro_rules! dots {
            ($g:literal, $r:literal, $c:literal) => {
                dots::<E, $g, $r>(queries, heads.keys, width, heads.scale, scores)
            };
        }
        macro_rules! sums {
            ($g:literal, $r:literal, $c:literal) => {
                sums::<E, $g, $c>(scores, heads.values, width, out)
            };
        }
        by_queries!(queries.len() / width, dots);
        for scores in scores.chunks_exact_mut(cached) {
            if let Some(RowScales { keys, .. }) = scales {
                zip_avx512(scores, keys, |x, scale| _mm512_mul_ps(x, scale));
            }
            softmax(scores);
            if let Some(RowScales { values, .. }) = scales {
                zip_avx512(scores, values, |x, scale| _mm512_mul_ps(x, scale));
            }
        }
        by_queries!(queries.len() / width, sums);
    }
}

/// Dot products of up to G queries `[G, K]` with all keys, R keys side by side; G · R = 16.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn dots<E: Widen, const G: usize, const R: usize>(
    queries: &[f32],
    keys: &[E],
    width: usize,
    scale: f32,
    scores: &mut [f32],
) {
    const { assert!(G * R == LANES) }
    let cached = keys.len() / width;
    let count = queries.len() / width;
    let (whole, mask) = (width / LANES * LANES, tail_mask(width % LANES));
    // A query or key too many is the last one again; its products are not stored.
    let query: [*const f32; G] = std::array::from_fn(|g| queries[g.min(count - 1) * width..][..width].as_ptr());
    let run = R / STREAMS;
    for first in (0..cached.div_ceil(STREAMS)).step_by(run) {
        // Streams of rows side by side, a short run of rows from each. In the last round a stream that has fewer left
        // takes its successor's first rows a second time, the last stream the last row.
        let row: [usize; R] = std::array::from_fn(|r| (r / run * cached / STREAMS + first + r % run).min(cached - 1));
        let key: [*const E; R] = row.map(|row| keys[row * width..][..width].as_ptr());
        for key in key {
            for line in 0..(width * size_of::<E>()).div_ceil(64) {
                prefetch(key, AHEAD_BYTES + 64 * line);
            }
        }
        let mut lanes = [_mm512_setzero_ps(); LANES];
        for i in (0..whole).step_by(LANES) {
            // SAFETY: each pointer begins a row of `width` numbers, and i + 16 <= width.
            let (k, q): ([__m512; R], [__m512; G]) = unsafe {
                (
                    std::array::from_fn(|r| E::widen16(key[r].add(i))),
                    std::array::from_fn(|g| f32::widen16(query[g].add(i))),
                )
            };
            for g in 0..G {
                for r in 0..R {
                    lanes[g * R + r] = _mm512_fmadd_ps(q[g], k[r], lanes[g * R + r]);
                }
            }
        }
        if mask != 0 {
            // SAFETY: as above, and the mask covers what the row has left.
            let (k, q): ([__m512; R], [__m512; G]) = unsafe {
                (
                    std::array::from_fn(|r| E::widen_masked(key[r].add(whole), mask)),
                    std::array::from_fn(|g| f32::widen_masked(query[g].add(whole), mask)),
                )
            };
            for g in 0..G {
                for r in 0..R {
                    lanes[g * R + r] = _mm512_mask3_fmadd_ps(q[g], k[r], lanes[g * R + r], mask);
                }
            }
        }
        let mut sums = [0.0f32; LANES];
        let folded = _mm512_mul_ps(fold16_avx512(lanes), _mm512_set1_ps(scale));
        // SAFETY: the array holds sixteen floats; the store needs no alignment.
        unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), folded) };
        for (scores, sums) in scores.chunks_exact_mut(cached).zip(sums.chunks_exact(R)) {
            for (row, sum) in row.iter().zip(sums) {
                scores[*row] = *sum;
            }
        }
    }
}

/// Values weighted by up to G rows of probabilities `[G, n]`, summed in ascending order, C · 16 columns at a time.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn sums<E: Widen, const G: usize, const C: usize>(scores: &[f32], values: &[E], width: usize, out: &mut [f32]) {
    let cached = values.len() / width;
    out.fill(0.0);
    let rows = (BLOCK_BYTES / (width * size_of::<E>())).max(16);
    for first in (0..cached).step_by(rows) {
        let block = first..cached.min(first + rows);
        let mut column = 0;
        while column + C * LANES <= width {
            tile::<E, G, C, true>(scores, values, width, column, block.clone(), out);
            column += C * LANES;
        }
        while column < width {
            tile::<E, G, 1, false>(scores, values, width, column, block.clone(), out);
            column += LANES;
        }
    }
}

/// One block of rows and one tile of columns. WHOLE: all C · 16 columns exist.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn tile<E: Widen, const G: usize, const C: usize, const WHOLE: bool>(
    scores: &[f32],
    values: &[E],
    width: usize,
    column: usize,
    block: std::ops::Range<usize>,
    out: &mut [f32],
) {
    let cached = values.len() / width;
    let count = out.len() / width;
    // The same columns of the next block.
    let ahead = block.len() * width * size_of::<E>();
    assert!(block.end <= cached && scores.len() == count * cached && (!WHOLE || column + C * LANES <= width));
    let mask: [__mmask16; C] = std::array::from_fn(|c| {
        let left = width.saturating_sub(column + c * LANES);
        if left < LANES { tail_mask(left) } else { !0 }
    });
    // A row too many is the last one again: it is computed and stored twice, with the same result.
    let row: [usize; G] = std::array::from_fn(|g| g.min(count - 1));
    let probability: [*const f32; G] = std::array::from_fn(|g| scores[row[g] * cached..][..cached].as_ptr());
    let mut sums = [[_mm512_setzero_ps(); C]; G];
    for g in 0..G {
        for c in 0..C {
            // SAFETY: the mask covers those of the sixteen numbers that belong to the row.
            sums[g][c] = unsafe {
                _mm512_maskz_loadu_ps(mask[c], out.as_ptr().wrapping_add(row[g] * width + column + c * LANES))
            };
        }
    }
    for i in block {
        let at = values[i * width..][..width].as_ptr().wrapping_add(column);
        for line in 0..(C * LANES * size_of::<E>()).div_ceil(64) {
            prefetch(at, ahead + 64 * line);
        }
        let v: [__m512; C] = std::array::from_fn(|c| {
            // SAFETY: the columns lie in row i: all of them where the tile is whole, else those of the mask.
            unsafe {
                let at = at.wrapping_add(c * LANES);
                if WHOLE { E::widen16(at) } else { E::widen_masked(at, mask[c]) }
            }
        });
        for g in 0..G {
            // SAFETY: the pointer begins a row of `cached` numbers, and i < cached.
            let p = _mm512_set1_ps(unsafe { *probability[g].add(i) });
            for c in 0..C {
                sums[g][c] = _mm512_fmadd_ps(p, v[c], sums[g][c]);
            }
        }
    }
    for g in 0..G {
        for c in 0..C {
            // SAFETY: as for the load.
            unsafe {
                let at = out.as_mut_ptr().wrapping_add(row[g] * width + column + c * LANES);
                _mm512_mask_storeu_ps(at, mask[c], sums[g][c]);
            }
        }
    }
}
