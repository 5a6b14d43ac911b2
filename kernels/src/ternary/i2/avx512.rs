//! `vpdpbusd` on sixteen rows at a time: codes are the unsigned operand, one broadcast dword of four activations the
//! signed one; a token's sum is subtracted at the end, since codes are weights plus one.
//!
//! One token: memory decides. Eight tiles far apart are walked side by side ([`crate::streams`]) and share four
//! broadcasts; each stream is prefetched [`AHEAD`] bytes ahead. Planes 1 and 3 stay where they are in their bytes and are
//! summed four times too large in accumulators of their own: that takes one shift a line instead of three.
//!
//! More tokens: arithmetic decides. A plane of a line is unpacked once for up to twelve tokens, and two tiles share a
//! broadcast (24 accumulators); for fewer tokens more tiles do. `vpmultishiftqb` takes the line from memory, so that no
//! register waits for the next plane. Tokens are taken in runs whose codes stay in the second-level cache.

use super::{Activations, TILE_ROWS, Weights};
use crate::blocking::{Product, cached_runs, turns, walk};
use crate::streams::{leftovers, prefetch, rounds};
use crate::transpose::avx512::{first, square16};
use std::arch::x86_64::*;
use std::array;
use std::hint::black_box;
use std::ops::Range;

/// Bytes between a load and the prefetch of its stream.
const AHEAD: usize = 1792;

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
pub(crate) fn matmul(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    if x.scales.len() == 1 {
        return matvec(weights, x, out);
    }
    let tiles = weights.rows.div_ceil(TILE_ROWS);
    for run in cached_runs(x.scales.len(), x.stride, 12) {
        // SAFETY: this function has the features that the blocks need.
        unsafe { walk_tiles(&Ternary { weights, x }, tiles, run, out) };
    }
}

walk! {
    /// Tiles of 16 rows; at most 24 accumulators.
    walk_tiles:
    1..=3 => 8 items of 2, 3 tokens;
    4..=6 => 4 items of 4, 6 tokens;
    7 | 8 => 3 items of 8 tokens;
    _ => 2 items of 1, 2, 4, 6, 8, 12 tokens;
}

struct Ternary<'a> {
    weights: Weights<'a>,
    x: Activations<'a>,
}

impl Product for Ternary<'_> {
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
    unsafe fn block<const N: usize, const T: usize>(&self, tiles: [usize; N], tokens: Range<usize>, out: &mut [f32]) {
        let Ternary { weights, x } = *self;
        let lines = tiles.map(|tile| weights.lines[tile * weights.groups..][..weights.groups].as_ptr());
        let token: [usize; T] = array::from_fn(|t| (tokens.start + t).min(tokens.end - 1));
        let codes = token.map(|t| x.codes[t * x.stride..][..16 * weights.groups].as_ptr().cast::<i32>());
        let crumb = _mm512_set1_epi8(0b11);
        // Which bits of a quadword the codes of a plane begin at, a byte each; those of the next begin two bits on.
        let (first_plane, two) = (_mm512_set1_epi64(0x38_30_28_20_18_10_08_00), _mm512_set1_epi8(2));
        let planes = turns(4);
        let mut sums = [[_mm512_setzero_si512(); T]; N];
        for g in 0..weights.groups {
            for lines in lines {
                prefetch(lines.wrapping_add(g), AHEAD);
            }
            let mut starts = first_plane;
            for p in 0..planes {
                // SAFETY: `lines` points to `groups` lines and g is below that.
                let line = |n: usize| unsafe { _mm512_load_si512(lines[n].add(g).cast()) };
                let unpacked = |n| _mm512_and_si512(_mm512_multishift_epi64_epi8(starts, line(n)), crumb);
                // SAFETY: a token has at least 16 codes a group.
                let q = |codes: *const i32| _mm512_set1_epi32(unsafe { codes.add(4 * g + p).read_unaligned() });
                // The smaller side waits in registers, the other passes through one.
                if T < N {
                    let q = codes.map(q);
                    for (n, sums) in sums.iter_mut().enumerate() {
                        let unpacked = unpacked(n);
                        for (sum, q) in sums.iter_mut().zip(q) {
                            *sum = _mm512_dpbusd_epi32(*sum, unpacked, q);
                        }
                    }
                } else {
                    let unpacked: [_; N] = array::from_fn(unpacked);
                    for (t, codes) in codes.into_iter().enumerate() {
                        let q = q(codes);
                        for (sums, unpacked) in sums.iter_mut().zip(unpacked) {
                            sums[t] = _mm512_dpbusd_epi32(sums[t], unpacked, q);
                        }
                    }
                }
                starts = _mm512_add_epi8(starts, two);
            }
        }

        // A copy that the compiler cannot see through: the accumulators are then named by constants alone and stay in
        // registers. Otherwise it keeps the array that the loops below index, and stores to it after every `vpdpbusd`.
        let sums = black_box(sums);
        let width = x.scales.len();
        let mask = first(tokens.len());
        for (sums, tile) in sums.iter().zip(tiles) {
            let mut square = [_mm512_setzero_ps(); 16];
            for t in 0..T {
                square[t] = scaled(sums[t], x.sums[token[t]], x.scales[token[t]]);
            }
            let first_row = tile * TILE_ROWS;
            for (r, row) in square16(square).into_iter().enumerate().take(weights.rows - first_row) {
                let out = &mut out[(first_row + r) * width + tokens.start..][..tokens.len()];
                // SAFETY: the mask admits as many elements as `out` has.
                unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), mask, row) };
            }
        }
    }
}

/// One token.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
fn matvec(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    let tiles = weights.rows.div_ceil(TILE_ROWS);
    for tiles in rounds::<8>(tiles) {
        vector(weights, x, tiles, out);
    }
    // Together again, so that their sums hide each other's latency.
    let mut rest = [0; 8];
    let mut count = 0;
    for tile in leftovers::<8>(tiles) {
        rest[count] = tile;
        count += 1;
    }
    let mut rest = &rest[..count];
    while let Some((four, others)) = rest.split_first_chunk::<4>() {
        vector(weights, x, *four, out);
        rest = others;
    }
    while let Some((two, others)) = rest.split_first_chunk::<2>() {
        vector(weights, x, *two, out);
        rest = others;
    }
    if let [one] = rest {
        vector(weights, x, [*one], out);
    }
}

/// The products of N tiles and one token.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
fn vector<const N: usize>(weights: Weights<'_>, x: Activations<'_>, tiles: [usize; N], out: &mut [f32]) {
    let lines = tiles.map(|tile| weights.lines[tile * weights.groups..][..weights.groups].as_ptr());
    let codes = x.codes[..16 * weights.groups].as_ptr().cast::<i32>();
    let (low, high) = (_mm512_set1_epi8(0b0011), _mm512_set1_epi8(0b1100));
    let mut ones = [_mm512_setzero_si512(); N];
    let mut fours = [_mm512_setzero_si512(); N];
    for g in 0..weights.groups {
        // SAFETY: a token has at least 16 codes a group.
        let q: [_; 4] = array::from_fn(|p| unsafe { _mm512_set1_epi32(codes.add(4 * g + p).read_unaligned()) });
        for n in 0..N {
            // SAFETY: `lines[n]` points to `groups` lines.
            let line = unsafe { _mm512_load_si512(lines[n].add(g).cast()) };
            prefetch(lines[n].wrapping_add(g), AHEAD);
            let upper = _mm512_srli_epi16::<4>(line);
            ones[n] = _mm512_dpbusd_epi32(ones[n], _mm512_and_si512(line, low), q[0]);
            fours[n] = _mm512_dpbusd_epi32(fours[n], _mm512_and_si512(line, high), q[1]);
            ones[n] = _mm512_dpbusd_epi32(ones[n], _mm512_and_si512(upper, low), q[2]);
            fours[n] = _mm512_dpbusd_epi32(fours[n], _mm512_and_si512(upper, high), q[3]);
        }
    }
    for n in 0..N {
        let sums = _mm512_add_epi32(ones[n], _mm512_srai_epi32::<2>(fours[n]));
        let first_row = tiles[n] * TILE_ROWS;
        let rows = (weights.rows - first_row).min(TILE_ROWS);
        let out = &mut out[first_row..][..rows];
        // SAFETY: the mask admits as many elements as `out` has.
        unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), first(rows), scaled(sums, x.sums[0], x.scales[0])) };
    }
}

/// Sums of code times activation, as results.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
fn scaled(sums: __m512i, sum: i32, scale: f32) -> __m512 {
    let products = _mm512_sub_epi32(sums, _mm512_set1_epi32(sum));
    _mm512_mul_ps(_mm512_cvtepi32_ps(products), _mm512_set1_ps(scale))
}
