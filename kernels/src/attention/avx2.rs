//! Eight lanes twice; a block of queries reads each row of the cache once.
#![expect(clippy::needless_range_loop, reason = "a tile of registers is indexed alike in every loop")]

use super::Heads;
use super::int8::RowScales;
use crate::CacheElement;
use crate::lanes::LANES;
use crate::lanes::x86::{Widen, fold4_avx2, tail_mask8, zip_avx2};
use crate::softmax::avx2::softmax;
use crate::streams::prefetch;
use std::arch::x86_64::*;

/// Rows of values that stay in the first-level cache while every column tile reads them.
const BLOCK_BYTES: usize = 16 << 10;
/// Rows of keys that are read side by side.
const STREAMS: usize = 4;
/// How far ahead of its reader a stream of keys is asked for.
const AHEAD_BYTES: usize = 2048;

/// Calls a tile with as many queries as are left, one, two or four; four may repeat the last.
macro_rules! by_queries {
    ($count:expr, $tile:ident) => {
        match $count {
            1 => $tile!(1, 4),
            2 => $tile!(2, 2),
            _ => $tile!(4, 1),
        }
    };
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn attention<E: CacheElement + Widen>(heads: Heads<'_, E>, scores: &mut [f32], out: &mut [f32]) {
    attend(heads, None, scores, out);
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn int8(heads: Heads<'_, i8>, scales: RowScales<'_>, scores: &mut [f32], out: &mut [f32]) {
    attend(heads, Some(scales), scores, out);
}

/// Both kinds: rows of plain numbers, or of codes that have scales.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn attend<E: Widen>(heads: Heads<'_, E>, scales: Option<RowScales<'_>>, scores: &mut [f32], out: &mut [f32]) {
    let width = heads.width;
    let cached = heads.keys.len() / width;
    let blocks = heads.queries.chunks(4 * width).zip(scores.chunks_mut(4 * cached)).zip(out.chunks_mut(4 * width));
    for ((queries, scores), out) in blocks {
        macro_rules! dots {
            ($g:literal, $r:literal) => {
                dots::<E, $g, $r>(queries, heads.keys, width, heads.scale, scores)
            };
        }
        macro_rules! sums {
            ($g:literal, $c:literal) => {
                sums::<E, $g, $c>(scores, heads.values, width, out)
            };
        }
        by_queries!(queries.len() / width, dots);
        for scores in scores.chunks_exact_mut(cached) {
            if let Some(RowScales { keys, .. }) = scales {
                zip_avx2(scores, keys, |x, scale| _mm256_mul_ps(x, scale));
            }
            softmax(scores);
            if let Some(RowScales { values, .. }) = scales {
                zip_avx2(scores, values, |x, scale| _mm256_mul_ps(x, scale));
            }
        }
        by_queries!(queries.len() / width, sums);
    }
}

/// The fewer than sixteen numbers that a row has left, zeros behind them.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn padded<E: Widen>(rest: &[E]) -> [__m256; 2] {
    // SAFETY: eight numbers are read where there are eight, and the others where there are so many.
    unsafe {
        match rest.len() {
            len @ 0..8 => [E::widen_few(rest.as_ptr(), len), _mm256_setzero_ps()],
            8 => [E::widen8(rest.as_ptr()), _mm256_setzero_ps()],
            len => [E::widen8(rest.as_ptr()), E::widen_few(rest.as_ptr().add(8), len - 8)],
        }
    }
}

/// Dot products of up to G queries `[G, K]` with all keys, R keys at a time; G · R = 4.
#[target_feature(enable = "avx2,fma")]
fn dots<E: Widen, const G: usize, const R: usize>(
    queries: &[f32],
    keys: &[E],
    width: usize,
    scale: f32,
    scores: &mut [f32],
) {
    const { assert!(G * R == 4) }
    let cached = keys.len() / width;
    let count = queries.len() / width;
    let (whole, rest) = (width / LANES * LANES, width % LANES);
    let mask = [tail_mask8(rest), tail_mask8(rest.saturating_sub(8))];
    // A query or key too many is the last one again; its products are not stored.
    let query: [&[f32]; G] = std::array::from_fn(|g| &queries[g.min(count - 1) * width..][..width]);
    let last: [[__m256; 2]; G] = std::array::from_fn(|g| padded(&query[g][whole..]));
    for round in 0..cached.div_ceil(STREAMS) {
        // Streams of rows side by side. In the last round a stream that is one shorter takes its successor's first row a
        // second time; the last stream is never shorter.
        let rows: [usize; STREAMS] = std::array::from_fn(|r| r * cached / STREAMS + round);
        for row in rows.as_chunks::<R>().0 {
            let key = row.map(|row| &keys[row * width..][..width]);
            for key in key {
                for line in 0..(width * size_of::<E>()).div_ceil(64) {
                    prefetch(key.as_ptr(), AHEAD_BYTES + 64 * line);
                }
            }
            let mut lanes = [[_mm256_setzero_ps(); 4]; 2];
            for i in (0..whole).step_by(LANES) {
                for half in 0..2 {
                    // SAFETY: each row has `width` numbers, and i + 16 <= width.
                    let k = key.map(|key| unsafe { E::widen8(key.as_ptr().add(i + 8 * half)) });
                    for g in 0..G {
                        // SAFETY: as above.
                        let q = unsafe { _mm256_loadu_ps(query[g].as_ptr().add(i + 8 * half)) };
                        for r in 0..R {
                            lanes[half][g * R + r] = _mm256_fmadd_ps(q, k[r], lanes[half][g * R + r]);
                        }
                    }
                }
            }
            if rest > 0 {
                for r in 0..R {
                    let k = padded(&key[r][whole..]);
                    for g in 0..G {
                        for half in 0..2 {
                            let lane = &mut lanes[half][g * R + r];
                            let sum = _mm256_fmadd_ps(last[g][half], k[half], *lane);
                            *lane = _mm256_blendv_ps(*lane, sum, _mm256_castsi256_ps(mask[half]));
                        }
                    }
                }
            }
            let sums = fold4_avx2(lanes[0], lanes[1]);
            for (scores, sums) in scores.chunks_exact_mut(cached).zip(sums.chunks_exact(R)) {
                for (row, sum) in row.iter().zip(sums) {
                    scores[*row] = sum * scale;
                }
            }
        }
    }
}

/// Values weighted by up to G rows of probabilities `[G, n]`, summed in ascending order, C · 16 columns at a time.
#[target_feature(enable = "avx2,fma")]
fn sums<E: Widen, const G: usize, const C: usize>(scores: &[f32], values: &[E], width: usize, out: &mut [f32]) {
    let cached = values.len() / width;
    out.fill(0.0);
    let rows = (BLOCK_BYTES / (width * size_of::<E>())).max(16);
    for first in (0..cached).step_by(rows) {
        let block = first..cached.min(first + rows);
        let mut column = 0;
        while column + C * LANES <= width {
            tile::<E, G, C>(scores, values, width, column, block.clone(), out);
            column += C * LANES;
        }
        while column + LANES <= width {
            tile::<E, G, 1>(scores, values, width, column, block.clone(), out);
            column += LANES;
        }
        if column < width {
            last_columns(scores, values, width, column, block, out);
        }
    }
}

/// One block of rows and one tile of columns, all of which exist.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn tile<E: Widen, const G: usize, const C: usize>(
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
    assert!(block.end <= cached && scores.len() == count * cached && column + C * LANES <= width);
    // A row too many is the last one again: it is computed and stored twice, with the same result.
    let row: [usize; G] = std::array::from_fn(|g| g.min(count - 1));
    let probability: [*const f32; G] = std::array::from_fn(|g| scores[row[g] * cached..][..cached].as_ptr());
    let mut sums = [[[_mm256_setzero_ps(); 2]; C]; G];
    for g in 0..G {
        for c in 0..C {
            for half in 0..2 {
                // SAFETY: the columns lie in the row.
                sums[g][c][half] =
                    unsafe { _mm256_loadu_ps(out.as_ptr().add(row[g] * width + column + c * LANES + 8 * half)) };
            }
        }
    }
    for i in block {
        let at = values[i * width..][..width].as_ptr();
        if (column * size_of::<E>()).is_multiple_of(64) {
            for line in 0..(C * LANES * size_of::<E>()).div_ceil(64) {
                prefetch(at.wrapping_add(column), ahead + 64 * line);
            }
        }
        let mut p = [_mm256_setzero_ps(); G];
        for g in 0..G {
            // SAFETY: the pointer begins a row of `cached` numbers, and i < cached.
            p[g] = _mm256_set1_ps(unsafe { *probability[g].add(i) });
        }
        for c in 0..C {
            for half in 0..2 {
                // SAFETY: the columns lie in the row.
                let v = unsafe { E::widen8(at.add(column + c * LANES + 8 * half)) };
                for g in 0..G {
                    sums[g][c][half] = _mm256_fmadd_ps(p[g], v, sums[g][c][half]);
                }
            }
        }
    }
    for g in 0..G {
        for c in 0..C {
            for half in 0..2 {
                // SAFETY: the columns lie in the row.
                unsafe {
                    let at = out.as_mut_ptr().add(row[g] * width + column + c * LANES + 8 * half);
                    _mm256_storeu_ps(at, sums[g][c][half]);
                }
            }
        }
    }
}

/// One block of rows and the fewer than sixteen columns that are left.
#[target_feature(enable = "avx2,fma")]
fn last_columns<E: Widen>(
    scores: &[f32],
    values: &[E],
    width: usize,
    column: usize,
    block: std::ops::Range<usize>,
    out: &mut [f32],
) {
    let cached = values.len() / width;
    for (scores, out) in scores.chunks_exact(cached).zip(out.chunks_exact_mut(width)) {
        let out = &mut out[column..];
        let mut sums = padded(out);
        for i in block.clone() {
            let v = padded(&values[i * width..][column..width]);
            let p = _mm256_set1_ps(scores[i]);
            sums = [_mm256_fmadd_ps(p, v[0], sums[0]), _mm256_fmadd_ps(p, v[1], sums[1])];
        }
        let lanes = crate::lanes::x86::array(sums[0], sums[1]);
        out.copy_from_slice(&lanes[..out.len()]);
    }
}
