//! Many tokens on AVX2: codes of 16 rows are widened to 16 bits once, into a panel that stays in the first-level cache,
//! and multiplied with every token of a run by `vpmaddwd`.
//!
//! Bytes need `vpsignb`, `vpmaddubsw` and `vpmaddwd` for 32 products, all of which two of four pipes share: 1.5 cycles.
//! Words need two `vpmaddwd` and two additions, which spread over all four: one cycle. So 64 operations a cycle are the
//! ceiling here, and half of what [`crate::ceiling::peak`] counts.
//!
//! Of four neighbouring columns the first and third come from one shift and make one register, the second and fourth
//! another, for weights and for activations alike: sums of integers have no order.

use crate::blocking::turns;
use crate::grouped::avx2::{Halves, tile_scales};
use crate::grouped::format::{GROUP, PAIR, TILE_ROWS};
use crate::grouped::{Activations, Weights};
use crate::streams::prefetch;
use crate::transpose::avx2::square8;
use std::arch::x86_64::*;
use std::array;
use std::mem::MaybeUninit;
use std::ops::Range;

/// From so many tokens on a panel is worth its unpacking.
pub(super) const MANY: usize = 24;

/// Groups of columns in a panel, an even number.
const GROUPS: usize = 8;
/// Tokens of a block of registers: with sixteen rows twelve accumulators.
const TOKENS: usize = 6;
/// Most tokens of a run, in blocks.
const BLOCKS: usize = 22;
/// Tiles whose sums wait between two panels.
const TILES: usize = 8;
/// Lines of codes of a group, and lines of a pair of groups.
const CODE_LINES: usize = 8;
const PAIR_LINES: usize = 1 + PAIR * CODE_LINES;
/// Steps of two columns to a group.
const STEPS: usize = GROUP / 2;

/// Two columns of sixteen rows.
type Step = Halves<__m256i>;
/// A group of [`TOKENS`] tokens: two columns in a dword, and what they are multiplied by.
#[repr(C, align(64))]
struct Tokens {
    codes: [[i32; STEPS]; TOKENS],
    scales: [f32; TOKENS],
}
/// A group of sixteen rows.
#[repr(C, align(64))]
struct Rows {
    steps: [Step; STEPS],
    scales: Halves<__m256>,
}
/// Results of sixteen rows and [`TOKENS`] tokens.
type Sums = [Halves<__m256>; TOKENS];

struct Scratch {
    tokens: [[Tokens; GROUPS]; BLOCKS],
    panel: [Rows; GROUPS],
    sums: [[Sums; BLOCKS]; TILES],
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn matmul(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    let (tokens, groups) = (x.tokens(), x.groups());
    let tiles = weights.rows.div_ceil(TILE_ROWS);
    // Runs of nearly one length, since a short one unpacks as much as a long one.
    let run = tokens.div_ceil(tokens.div_ceil(TOKENS * BLOCKS)).next_multiple_of(TOKENS);
    // Never read before it is written; zeros would cost as much as a small product.
    let mut scratch = MaybeUninit::<Scratch>::uninit();
    let scratch = scratch.as_mut_ptr();
    for first_token in (0..tokens).step_by(run) {
        let run = first_token..tokens.min(first_token + run);
        let blocks = run.len().div_ceil(TOKENS);
        for first_tile in (0..tiles).step_by(TILES) {
            let some_tiles = first_tile..tiles.min(first_tile + TILES);
            for first in (0..groups).step_by(GROUPS) {
                let some = first..groups.min(first + GROUPS);
                for block in 0..blocks {
                    for g in some.clone() {
                        // SAFETY: there are so many blocks and groups.
                        let to = unsafe { &mut (&mut (*scratch).tokens)[block][g - first] };
                        widen_tokens(x, run.start + block * TOKENS..run.end, g, to);
                    }
                }
                for tile in some_tiles.clone() {
                    let lines = &weights.lines[tile * weights.pairs * PAIR_LINES..][..weights.pairs * PAIR_LINES];
                    for g in some.clone() {
                        let lines = lines[g / PAIR * PAIR_LINES..][..PAIR_LINES].as_ptr().cast();
                        // SAFETY: there are so many groups, and the lines are those of a pair of them.
                        unsafe { widen_rows(lines, g % PAIR, &mut (&mut (*scratch).panel)[g - first]) };
                    }
                    let next = lines.as_ptr().wrapping_add((weights.pairs + first / PAIR) * PAIR_LINES);
                    for block in 0..blocks {
                        // SAFETY: tokens and panel are written; there are so many tiles and blocks.
                        unsafe {
                            let tokens = (&raw const (*scratch).tokens).cast::<[Tokens; GROUPS]>().add(block);
                            let panel = (&raw const (*scratch).panel).cast::<Rows>();
                            let sums = (&raw mut (*scratch).sums).cast::<[Sums; BLOCKS]>().add(tile - first_tile);
                            let sums = sums.cast::<Sums>().add(block);
                            if first == 0 {
                                sums.write([[_mm256_setzero_ps(); 2]; TOKENS]);
                            }
                            match run.len() - block * TOKENS {
                                1 => multiply::<1>(panel, tokens.cast(), some.len(), &mut *sums),
                                2 => multiply::<2>(panel, tokens.cast(), some.len(), &mut *sums),
                                3 => multiply::<3>(panel, tokens.cast(), some.len(), &mut *sums),
                                4 => multiply::<4>(panel, tokens.cast(), some.len(), &mut *sums),
                                5 => multiply::<5>(panel, tokens.cast(), some.len(), &mut *sums),
                                _ => multiply::<6>(panel, tokens.cast(), some.len(), &mut *sums),
                            }
                        }
                        // The next panel's lines arrive while this one is multiplied.
                        let lines = GROUPS / PAIR * PAIR_LINES;
                        for line in block * lines / blocks..(block + 1) * lines / blocks {
                            prefetch(next.wrapping_add(line), 0);
                        }
                    }
                }
            }
            for tile in some_tiles {
                // SAFETY: the sums of so many tiles and blocks are written.
                let sums = unsafe { &(&(*scratch).sums)[tile - first_tile][..blocks] };
                let rows = tile * TILE_ROWS..weights.rows.min((tile + 1) * TILE_ROWS);
                write(sums.as_flattened(), rows, run.clone(), tokens, out);
            }
        }
    }
}

/// Bytes 0 and 2 of each dword, and bytes 1 and 3, as words.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn words(bytes: __m256i) -> [__m256i; 2] {
    [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(bytes)), _mm256_srai_epi16::<8>(bytes)]
}

/// Group g of up to [`TOKENS`] tokens.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn widen_tokens(x: Activations<'_>, tokens: Range<usize>, g: usize, to: &mut Tokens) {
    for ((codes, scale), t) in to.codes.iter_mut().zip(&mut to.scales).zip(tokens) {
        let from: &[i8; GROUP] = x.codes[t * x.stride + g * GROUP..][..GROUP].try_into().expect("a group");
        // SAFETY: a group is a register; sixteen dwords are two.
        unsafe {
            let [even, odd] = words(_mm256_loadu_si256(from.as_ptr().cast()));
            _mm256_storeu_si256(codes.as_mut_ptr().cast(), even);
            _mm256_storeu_si256(codes.as_mut_ptr().add(STEPS / 2).cast(), odd);
        }
        *scale = x.scales[t * x.groups() + g];
    }
}

/// A group of a tile.
///
/// # Safety
/// `lines` are those of the group's pair.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn widen_rows(lines: *const __m256i, group: usize, to: &mut Rows) {
    // SAFETY: a line of scales, then the lines of both groups, two registers each.
    unsafe {
        to.scales = tile_scales(lines, group);
        let lines = lines.add(2 * (1 + group * CODE_LINES));
        for k in 0..CODE_LINES {
            for half in 0..2 {
                let [even, odd] = words(_mm256_load_si256(lines.add(2 * k + half)));
                to.steps[k][half] = even;
                to.steps[CODE_LINES + k][half] = odd;
            }
        }
    }
}

/// Adds the products of a panel of so many groups and T tokens. The steps are a loop that is not unrolled: the compiler
/// would regroup the additions of several steps and spill twelve accumulators.
///
/// # Safety
/// There are so many groups of rows and of tokens.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn multiply<const T: usize>(panel: *const Rows, tokens: *const Tokens, groups: usize, sums: &mut Sums) {
    let turns = turns(STEPS);
    for g in 0..groups {
        // SAFETY: the caller's.
        let (rows, tokens) = unsafe { (&*panel.add(g), &*tokens.add(g)) };
        let (steps, codes) = (rows.steps.as_ptr(), tokens.codes.as_ptr().cast::<i32>());
        let mut dots = [[_mm256_setzero_si256(); 2]; T];
        for step in 0..turns {
            // SAFETY: a group has sixteen steps, and as many dwords of each token.
            let w = unsafe { *steps.add(step) };
            for (t, dots) in dots.iter_mut().enumerate() {
                // SAFETY: as above.
                let q = _mm256_set1_epi32(unsafe { *codes.add(t * STEPS + step) });
                dots[0] = _mm256_add_epi32(dots[0], _mm256_madd_epi16(w[0], q));
                dots[1] = _mm256_add_epi32(dots[1], _mm256_madd_epi16(w[1], q));
            }
        }
        for t in 0..T {
            let scale = _mm256_set1_ps(tokens.scales[t]);
            for half in 0..2 {
                let product = _mm256_mul_ps(rows.scales[half], scale);
                sums[t][half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[t][half]), product, sums[t][half]);
            }
        }
    }
}

/// Writes the results of a tile: a token's rows lie side by side in `sums`, a row's tokens in `out`.
#[target_feature(enable = "avx2,fma,f16c")]
fn write(sums: &[Halves<__m256>], rows: Range<usize>, tokens: Range<usize>, width: usize, out: &mut [f32]) {
    for (i, first) in tokens.clone().step_by(8).enumerate() {
        let sums = &sums[8 * i..];
        let count = (tokens.end - first).min(8);
        for (half, first_row) in [rows.start, rows.start + 8].into_iter().enumerate() {
            let columns: [__m256; 8] = array::from_fn(|t| if t < count { sums[t][half] } else { _mm256_setzero_ps() });
            for (row, results) in (first_row..rows.end).zip(square8(columns)) {
                let out = &mut out[row * width + first..][..count];
                let mut eight = [0.0; 8];
                // SAFETY: eight numbers.
                unsafe { _mm256_storeu_ps(eight.as_mut_ptr(), results) };
                out.copy_from_slice(&eight[..count]);
            }
        }
    }
}
