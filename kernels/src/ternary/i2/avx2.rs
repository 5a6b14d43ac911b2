//! `vpmaddubsw` on eight rows at a time: codes are the unsigned operand, four broadcast activations the signed one. Sums
//! of two products gather in 16 bits and are widened every [`RUN`] groups; a token's sum is subtracted at the end, since
//! codes are weights plus one.
//!
//! Many tokens share a panel of unpacked codes ([`crate::ternary::panel`]). One token walks eight tiles far apart, four of them at a time for one run, since sixteen registers hold no more; each
//! of the eight streams is prefetched. More tokens share an unpacked line.

use super::{Activations, TILE_ROWS, Weights};
use crate::Line;
use crate::blocking::{Product, cached_runs, walk};
use crate::streams::prefetch;
use crate::ternary::panel::avx2::{Unpack, matmul as panels};
use crate::ternary::panel::{LINES, Panel};
use std::arch::x86_64::*;
use std::array;
use std::ops::Range;

/// Bytes between a load and the prefetch of its stream.
const AHEAD: usize = 2048;
/// Groups whose products add up in 16 bits: 8 groups of 4 planes are 32 additions of at most 768 in magnitude.
const RUN: usize = 8;

/// From so many tokens on a panel is worth its unpacking.
const MANY: usize = 32;

#[target_feature(enable = "avx2,fma")]
pub(crate) fn matmul(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    if x.scales.len() >= MANY {
        return panels(&Packed(weights), weights.rows, weights.groups, x, out);
    }
    let tiles = weights.rows.div_ceil(TILE_ROWS);
    for run in cached_runs(x.scales.len(), x.stride, 4) {
        // SAFETY: this function has the features that the blocks need.
        unsafe { walk_tiles(&Ternary { weights, x }, tiles, run, out) };
    }
}

walk! {
    /// Tiles of 16 rows; at most eight accumulators at a time.
    walk_tiles:
    1 => 8 items of 1 tokens;
    2 => 2 items of 2 tokens;
    _ => 1 items of 1, 2, 3, 4 tokens;
}

struct Ternary<'a> {
    weights: Weights<'a>,
    x: Activations<'a>,
}

/// Rows 0..8 and 8..16 of a tile.
type Halves = [__m256i; 2];

impl Product for Ternary<'_> {
    #[target_feature(enable = "avx2,fma")]
    unsafe fn block<const N: usize, const T: usize>(&self, tiles: [usize; N], tokens: Range<usize>, out: &mut [f32]) {
        let Ternary { weights, x } = *self;
        let lines = tiles.map(|tile| &weights.lines[tile * weights.groups..][..weights.groups]);
        let token: [usize; T] = array::from_fn(|t| (tokens.start + t).min(tokens.end - 1));
        let codes = token.map(|t| &x.codes[t * x.stride..][..16 * weights.groups]);
        let mut sums = [[[_mm256_setzero_si256(); 2]; T]; N];
        for start in (0..weights.groups).step_by(RUN) {
            let groups = start..(start + RUN).min(weights.groups);
            if let (1, Some((four, others))) = (T, lines.split_first_chunk::<4>()) {
                let (four_sums, other_sums) = sums.split_at_mut(4);
                add(*four, codes, groups.clone(), four_sums);
                if let Some(others) = others.first_chunk::<4>() {
                    add(*others, codes, groups, other_sums);
                }
            } else {
                add(lines, codes, groups, &mut sums);
            }
        }
        let width = x.scales.len();
        for (sums, tile) in sums.iter().zip(tiles) {
            let rows = tile * TILE_ROWS..((tile + 1) * TILE_ROWS).min(weights.rows);
            for (sums, t) in sums.iter().zip(tokens.clone()) {
                let results = scaled(*sums, x.sums[t], x.scales[t]);
                for (r, result) in rows.clone().zip(results) {
                    out[r * width + t] = result;
                }
            }
        }
    }
}

/// Adds the products of some groups to `sums` `[N, T]`: at most [`RUN`] groups.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add<const N: usize, const T: usize>(
    lines: [&[Line]; N],
    codes: [&[i8]; T],
    groups: Range<usize>,
    sums: &mut [[Halves; T]],
) {
    debug_assert!(groups.len() <= RUN);
    let lines = lines.map(|lines| lines[groups.clone()].as_ptr().cast::<__m256i>());
    let codes = codes.map(|codes| codes[16 * groups.start..16 * groups.end].as_ptr().cast::<i32>());
    let mut narrow = [[[_mm256_setzero_si256(); 2]; N]; T];
    for g in 0..groups.len() {
        // SAFETY: a token has 16 codes a group, in four planes.
        let four = |t: usize, plane| unsafe { _mm256_set1_epi32(codes[t].add(4 * g + plane).read_unaligned()) };
        // SAFETY: a line is two registers; there is one a group.
        let half_line = |n: usize, half| unsafe { _mm256_load_si256(lines[n].add(2 * g + half)) };
        for lines in lines {
            prefetch(lines.wrapping_add(2 * g), AHEAD);
        }
        if T == 1 {
            // The activations of all planes wait in registers, each half line passes through one.
            let q: [_; 4] = array::from_fn(|plane| four(0, plane));
            for (n, narrow) in narrow[0].iter_mut().enumerate() {
                for (half, narrow) in narrow.iter_mut().enumerate() {
                    let [a, b, c, d] = planes(half_line(n, half));
                    let ab = _mm256_add_epi16(_mm256_maddubs_epi16(a, q[0]), _mm256_maddubs_epi16(b, q[1]));
                    let cd = _mm256_add_epi16(_mm256_maddubs_epi16(c, q[2]), _mm256_maddubs_epi16(d, q[3]));
                    *narrow = _mm256_add_epi16(*narrow, _mm256_add_epi16(ab, cd));
                }
            }
        } else {
            // One plane of all halves waits in registers, the tokens pass through one.
            for plane in 0..4 {
                let unpacked: [[_; 2]; N] =
                    array::from_fn(|n| array::from_fn(|half| planes(half_line(n, half))[plane]));
                for (t, narrow) in narrow.iter_mut().enumerate() {
                    let q = four(t, plane);
                    for (narrow, unpacked) in narrow.as_flattened_mut().iter_mut().zip(unpacked.as_flattened()) {
                        *narrow = _mm256_add_epi16(*narrow, _mm256_maddubs_epi16(*unpacked, q));
                    }
                }
            }
        }
    }
    let one = _mm256_set1_epi16(1);
    for n in 0..N {
        for t in 0..T {
            for half in 0..2 {
                let wide = _mm256_madd_epi16(narrow[t][n][half], one);
                sums[n][t][half] = _mm256_add_epi32(sums[n][t][half], wide);
            }
        }
    }
}

/// For panels: four tiles side by side, whose lines are steps of a panel as soon as their planes are apart.
struct Packed<'a>(Weights<'a>);

impl Unpack for Packed<'_> {
    const GROUP_STEPS: usize = 4;
    const ROWS_OF: [[usize; 2]; 8] = [[0, 4], [8, 12], [16, 20], [24, 28], [32, 36], [40, 44], [48, 52], [56, 60]];

    #[target_feature(enable = "avx2,fma")]
    unsafe fn unpack(&self, first_row: usize, groups: Range<usize>, panel: &mut Panel) {
        let tiles = self.0.lines.chunks_exact(self.0.groups).skip(first_row / TILE_ROWS);
        // Where rows end, what an earlier panel left stands for tiles that there are not; nobody reads their sums.
        for (l, tile) in tiles.take(LINES).enumerate() {
            for (line, steps) in tile[groups.clone()].iter().zip(panel.as_chunks_mut::<4>().0) {
                for half in 0..2 {
                    // SAFETY: a line is two aligned registers.
                    let codes = planes(unsafe { _mm256_load_si256(line.0.as_ptr().cast::<__m256i>().add(half)) });
                    for (step, codes) in steps.iter_mut().zip(codes) {
                        let to = step[l].0.as_mut_ptr().cast::<__m256i>();
                        // SAFETY: a line is two aligned registers.
                        unsafe { _mm256_store_si256(to.add(half), codes) };
                    }
                }
            }
        }
    }
}

/// The four codes of every byte.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn planes(line: __m256i) -> [__m256i; 4] {
    let crumb = _mm256_set1_epi8(0b11);
    [
        _mm256_and_si256(line, crumb),
        _mm256_and_si256(_mm256_srli_epi16::<2>(line), crumb),
        _mm256_and_si256(_mm256_srli_epi16::<4>(line), crumb),
        _mm256_and_si256(_mm256_srli_epi16::<6>(line), crumb),
    ]
}

/// Sums of code times activation, as results of sixteen rows.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn scaled(sums: Halves, sum: i32, scale: f32) -> [f32; TILE_ROWS] {
    let results = sums.map(|sums| {
        let products = _mm256_sub_epi32(sums, _mm256_set1_epi32(sum));
        _mm256_mul_ps(_mm256_cvtepi32_ps(products), _mm256_set1_ps(scale))
    });
    crate::lanes::x86::array(results[0], results[1])
}
