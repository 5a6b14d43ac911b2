//! Ternary product on the two-bit layout.
//!
//! **Computes** `out[r, t] = (sum over c of w[r, c] * q[t, c]) * scale[t]`: the sum in integers, then one conversion to
//! `f32` and one multiplication.
//!
//! **Layout** two bits a weight. Tiles of 16 rows; a tile is a run of cache lines, one for each group of 16 columns:
//!
//! ```text
//! line g of a tile, byte 4 r + j  (r = 0..16 row of the tile, j = 0..4)
//!
//!   bits 7 6 | 5 4 | 3 2 | 1 0          code = weight + 1, so 0, 1 or 2 (3 is never written; it would mean 2)
//!   column    16 g + 12 + j
//!                   16 g + 8 + j
//!                         16 g + 4 + j
//!                               16 g + j
//! ```
//!
//! So plane p of a line (bits 2p, 2p + 1) holds columns 16 g + 4 p .. + 4 of sixteen rows, in just the order that one
//! `vpdpbusd` wants: four columns to a 32-bit lane, a row a lane, and no horizontal sum at the end.
//!
//! **Shapes** weights `R × C` in [`Layout::I2`]; codes `[T, stride]`; sums and scales `[T]`; out `[R, T]`.
//!
//! **Numbers** Weights are stored as codes w + 1 in 0..=2, so a variant forms sum((w + 1) q) and subtracts sum(q). Code 3
//! is never written and loaders refuse it; were it there, every variant would read it as weight 2. AVX-512 keeps half of
//! the columns four times too large in 32 bits: at most 3 · 4 · 128 · C / 2 in magnitude, below 2^31 while C < 2^21, which
//! the front door asserts. A 16-bit partial sum (AVX2: two products, at most 2 · 3 · 128 = 768) holds 42 additions; it is
//! widened after 32.
//!
//! **Exactness** integers throughout, one rounding to `f32` and one in the product: the same bits everywhere.
//!
//! **Cost** R·C/4 bytes of weights; 2·R·C·T operations.
//!
//! **Source** BitNet b1.58 (arXiv 2402.17764); activations as in its equations 4 and 5.
//!
//! **Variants** AVX-512 (VNNI): `vpdpbusd`, eight tiles far apart for one token, blocks of two tiles and twelve tokens for
//! many, a plane at a time by `vpmultishiftqb`. AVX2: `vpmaddubsw` with 16-bit sums, the same eight streams, blocks of one
//! tile and four tokens, panels from 32 tokens on (1.12 times as fast as blocks for 64 tokens on Zen 4, 0.94 times for 16).
//!
//! **Tried and dropped** three shifts a line for one token (AVX-512 sums two planes four times too large instead: nine
//! instructions a line, not eleven); AVX2 with a plane of all lines at a time for one token (the compiler kept the lines
//! in registers and spilled the sums: 83 G weights/s in cache against 91); prefetching anywhere from 0.5 to 2.5 KiB ahead
//! is alike, 4 KiB loses 5 %. AVX-512 with the four planes of a block unrolled: the compiler loads the activations of all of
//! them first and spills up to 50 registers a line.
//!
//! **Not done** panels on AVX-512; a packed copy of the activations (loads are not what holds blocks back); one pass over
//! the weights for prompts whose codes exceed half a mebibyte.

use super::format::Format;
use super::product::Packed;
use super::{Activations, Layout, Weights};
use crate::memory::Purpose;
use crate::{Kernels, Line, Lines, Rng};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

/// Rows to a tile: one 32-bit lane of a 512-bit register each.
const TILE_ROWS: usize = 16;
/// Columns to a line.
const COLUMNS: usize = 16;

pub(crate) const FORMAT: Format =
    Format { name: "i2", tile_rows: TILE_ROWS, group_columns: COLUMNS, group_lines: 1, header: None, pack, unpack };

/// Where the code of (row, column) of a line lies: its byte and the lower of its bits.
const fn place(row: usize, column: usize) -> (usize, usize) {
    (row * 4 + column % 4, column / 4 * 2)
}

fn pack(trits: &[i8], line: &mut [Line]) {
    line[0].0.fill(0);
    for (r, row) in trits.chunks_exact(COLUMNS).enumerate() {
        for (c, trit) in row.iter().enumerate() {
            let (byte, shift) = place(r, c);
            line[0].0[byte] |= ((trit + 1) as u8) << shift;
        }
    }
}

fn unpack(line: &[Line], trits: &mut [i8]) {
    for (r, row) in trits.chunks_exact_mut(COLUMNS).enumerate() {
        for (c, trit) in row.iter_mut().enumerate() {
            let (byte, shift) = place(r, c);
            *trit = (line[0].0[byte] >> shift & 3) as i8 - 1;
        }
    }
}

/// The lines of a random matrix: see [`super::TernaryMatrix::random`].
pub(super) fn random(rows: usize, cols: usize, rng: &mut Rng) -> Lines {
    let groups = cols.div_ceil(COLUMNS);
    let mut lines = Lines::zeroed_for(Purpose::Weights, rows.div_ceil(TILE_ROWS) * groups);
    // A byte of four codes for each 16-bit draw would cost a table of 64 KiB; two weights for each byte drawn need 256
    // entries.
    let pair: [u8; 256] = std::array::from_fn(|byte| {
        let code = |nibble: usize| {
            if nibble < 5 {
                0
            } else if nibble < 11 {
                1u8
            } else {
                2
            }
        };
        code(byte & 15) | code(byte >> 4) << 2
    });
    for line in lines.iter_mut() {
        for chunk in line.0.chunks_exact_mut(4) {
            let draws = rng.next_u64().to_le_bytes();
            for (byte, draw) in chunk.iter_mut().zip(draws.chunks_exact(2)) {
                *byte = pair[usize::from(draw[0])] | pair[usize::from(draw[1])] << 4;
            }
        }
    }
    // Padding keeps weight 0.
    for (i, line) in lines.iter_mut().enumerate() {
        let (rows_left, columns_left) = (rows - i / groups * TILE_ROWS, cols - i % groups * COLUMNS);
        if rows_left >= TILE_ROWS && columns_left >= COLUMNS {
            continue;
        }
        for r in 0..TILE_ROWS {
            for c in (0..COLUMNS).filter(|c| r >= rows_left || *c >= columns_left) {
                let (byte, shift) = place(r, c);
                line.0[byte] = line.0[byte] & !(3 << shift) | 1 << shift;
            }
        }
    }
    lines
}

/// The op.
pub(crate) struct I2;

impl Packed for I2 {
    const NAME: &'static str = "ternary/i2";
    const LAYOUT: Layout = Layout::I2;

    fn variant(kernels: &Kernels) -> usize {
        kernels.ternary_i2.matmul as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn every_packed_byte_means_the_same_on_every_isa() {
        // Every byte in every one of the 64 places of a line: 256 groups, in which byte i of line g is g + i mod 256.
        let (groups, rows) = (256, 16);
        let mut lines = Lines::zeroed(groups);
        for (g, line) in lines.iter_mut().enumerate() {
            for (i, byte) in line.0.iter_mut().enumerate() {
                *byte = (g + i) as u8;
            }
        }
        let weights = Weights { rows, groups, lines: &lines };
        let mut rng = Rng::new(3);
        for tokens in [1, 2, 3, 5, 8, 13] {
            let stride = 16 * groups;
            let codes: Vec<i8> = (0..tokens * stride).map(|_| rng.below(256) as u8 as i8).collect();
            let sums: Vec<i32> = codes.chunks(stride).map(|row| row.iter().map(|q| i32::from(*q)).sum()).collect();
            let x = Activations { codes: &codes, stride, sums: &sums, scales: &vec![1.0; tokens], tables: &[] };
            // Code 3 counts as weight 2, for scalar too.
            let weight = |r: usize, c: usize| i32::from(lines[c / 16].0[4 * r + c % 4] >> (c % 16 / 4 * 2) & 3) - 1;
            for isa in Isa::available() {
                let kernels = Kernels::for_isa(isa).expect("available");
                let mut out = vec![f32::NAN; rows * tokens];
                // SAFETY: the table exists, so the CPU has the variant's features; the shapes agree.
                unsafe { (kernels.ternary_i2.matmul)(weights, x, &mut out) };
                for (r, out) in out.chunks(tokens).enumerate() {
                    for (t, got) in out.iter().enumerate() {
                        let row = &codes[t * stride..][..stride];
                        let sum: i32 = row.iter().enumerate().map(|(c, q)| weight(r, c) * i32::from(*q)).sum();
                        assert_eq!(*got, sum as f32, "row {r}, token {t} of {tokens} on {isa}");
                    }
                }
            }
        }
    }
}
