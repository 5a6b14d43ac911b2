//! Ternary product on five trits to a byte.
//!
//! **Computes** `out[r, t] = (sum over c of w[r, c] * q[t, c]) * scale[t]`: the sum in integers, then one conversion to
//! `f32` and one multiplication.
//!
//! **Layout** 1.6 bits a weight. Tiles of 64 rows, groups of 20 columns; a group of a tile is four cache lines, and byte r
//! of line j holds row r of five columns:
//!
//! ```text
//! line j of group g (j = 0..4), byte r = row r of the tile
//!
//!   trits w0 .. w4 of columns 20 g + j, 20 g + 4 + j, .. , 20 g + 16 + j
//!   v = 81 w0 + 27 w1 + 9 w2 + 3 w3 + w4                                   -121 ..= 121
//!   m = ceil(256 (121 + |v|) / 243) - 128, or 0 for v = 0                  0 ..= 127
//!
//!   bit 7: v < 0 | bits 6 .. 0: m
//! ```
//!
//! A tile begins with four lines of header: 64 numbers, how many bytes of each row are negative.
//!
//! So f = 128 ± m is a fraction f / 256 whose first five digits to base three are the codes w + 1: multiplying by three
//! pushes one after the other out at the top, on any ISA. And the seven lower bits by themselves are an index into a table of
//! 122 sums, mirrored by the sign. Digit i of the four lines of a group are the columns 20 g + 4 i .. + 4 of a row, in just
//! the order that `vpdpbusd` wants once the lines are interleaved.
//!
//! **Shapes** weights `R × C` in [`Layout::T5`]; codes `[T, stride]`; sums and scales `[T]`; out `[R, T]`.
//!
//! **Numbers** Variants that multiply codes form sum((w + 1) q) and subtract sum(q). A 16-bit sum of two products (AVX2) is
//! at most 512 in magnitude, and 60 of them add up before it is widened. Only the 243 bytes that packing writes mean
//! anything.
//!
//! **Exactness** integers throughout, one rounding to `f32` and one in the product: the same bits everywhere, and those of
//! [`Layout::I2`].
//!
//! **Cost** R·C/5 bytes of weights; 2·R·C·T operations.
//!
//! **Source** five trits a byte as a fraction: TQ1_0 of ggml (Compilade 2024); the mirrored table of 122 sums: as
//! published for Zen 5 by tommyyliu's `lut_mm` (2026), from the description alone.
//!
//! **Variants** AVX2: digits are pushed out and multiplied by `vpmaddubsw`; one token walks eight tiles far apart, more
//! tokens share a panel of unpacked codes (`panel`). AVX-512 (VBMI): one token looks up sums of five
//! activations in tables of 122, more tokens share a panel. The same packed weights by arithmetic, as an op of its own:
//! [`digits`].
//!
//! **Tried and dropped** AVX2 with the five digits unrolled: the compiler turns three times three times a fraction into a
//! product with nine, with 27 and with 81, and a loop over digits is 1.26 times as fast in cache (2560 × 2560, Zen 4).
//!
//! **Not done** timing of the AVX-512 variant, which so far was run on an emulated CPU alone.

use super::format::{Format, Header};
use super::product::Packed;
use super::{Activations, Layout, Weights};
use crate::{Kernels, Line};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub mod digits;
pub(crate) mod scalar;

/// Rows to a tile: one byte of a line each.
const TILE_ROWS: usize = 64;
/// Lines to a group, each with every fourth column of it.
const LINES: usize = 4;
/// Trits to a byte.
const TRITS: usize = 5;
/// Columns to a group.
const COLUMNS: usize = LINES * TRITS;

/// Lines to a tile's header: a 32-bit number for each row.
const HEADER: usize = 4;

pub(crate) const FORMAT: Format = Format {
    name: "t5",
    tile_rows: TILE_ROWS,
    group_columns: COLUMNS,
    group_lines: LINES,
    header: Some(Header { lines: HEADER, fill: count_negatives }),
    pack,
    unpack,
};

/// Counts the negative bytes of every row: what a lookup that negates by complement is short of.
fn count_negatives(groups: &[Line], header: &mut [Line]) {
    for (r, count) in bytemuck::cast_slice_mut::<Line, i32>(header).iter_mut().enumerate() {
        *count = groups.iter().filter(|line| line.0[r] >= 0x80).count() as i32;
    }
}

impl<'a> Weights<'a> {
    /// The header of a tile and its lines, four to a group.
    fn t5_tile(&self, tile: usize) -> (&'a [i32; TILE_ROWS], &'a [[Line; LINES]]) {
        let length = HEADER + self.groups * LINES;
        let (header, lines) = self.lines[tile * length..][..length].split_at(HEADER);
        (bytemuck::cast_slice(header).first_chunk().expect("four lines of header"), lines.as_chunks().0)
    }
}

/// The byte of five trits.
const fn byte(trits: [i8; TRITS]) -> u8 {
    let mut v = 0;
    let mut i = 0;
    while i < TRITS {
        v = 3 * v + trits[i] as i32;
        i += 1;
    }
    let magnitude = if v == 0 { 0 } else { (256 * (121 + v.unsigned_abs())).div_ceil(243) - 128 };
    magnitude as u8 | if v < 0 { 0x80 } else { 0 }
}

/// The five trits of a byte.
const fn trits(byte: u8) -> [i8; TRITS] {
    let magnitude = (byte & 0x7F) as u32;
    let mut fraction = if byte < 0x80 { 128 + magnitude } else { 128 - magnitude };
    let mut trits = [0; TRITS];
    let mut i = 0;
    while i < TRITS {
        fraction *= 3;
        trits[i] = (fraction >> 8) as i8 - 1;
        fraction &= 0xFF;
        i += 1;
    }
    trits
}

/// Every combination of trits survives its byte.
const _: () = {
    let mut number = 0;
    while number < 243 {
        let mut wanted = [0; TRITS];
        let (mut i, mut rest) = (0, number);
        while i < TRITS {
            wanted[i] = (rest % 3) as i8 - 1;
            rest /= 3;
            i += 1;
        }
        let found = trits(byte(wanted));
        let mut i = 0;
        while i < TRITS {
            assert!(found[i] == wanted[i]);
            i += 1;
        }
        number += 1;
    }
};

fn pack(weights: &[i8], lines: &mut [Line]) {
    for (r, row) in weights.chunks_exact(COLUMNS).enumerate() {
        for (j, line) in lines.iter_mut().enumerate() {
            line.0[r] = byte(std::array::from_fn(|i| row[LINES * i + j]));
        }
    }
}

fn unpack(lines: &[Line], weights: &mut [i8]) {
    for (r, row) in weights.chunks_exact_mut(COLUMNS).enumerate() {
        for (j, line) in lines.iter().enumerate() {
            for (i, trit) in trits(line.0[r]).into_iter().enumerate() {
                row[LINES * i + j] = trit;
            }
        }
    }
}

/// The op.
pub(crate) struct T5;

impl Packed for T5 {
    const NAME: &'static str = "ternary/t5";
    const LAYOUT: Layout = Layout::T5;

    fn variant(kernels: &Kernels) -> usize {
        kernels.ternary_t5.matmul as usize
    }
}
