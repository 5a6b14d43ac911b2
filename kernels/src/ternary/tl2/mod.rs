//! Ternary product by table lookup at 1.67 bits a weight: three weights are an index of four bits and a sign.
//!
//! **Computes** `out[r, t] = (sum over c of w[r, c] * q[t, c]) * scale[t]`: the sum in integers, then one conversion to
//! `f32` and one multiplication.
//!
//! **Layout** five bits for three weights a, b, c: the number v = 9 a + 3 b + c is in -13..=13; its magnitude is the
//! index, its sign the fifth bit. Tiles of 64 rows; a tile is a run of five cache lines for each group of 24 columns:
//!
//! ```text
//! group g of a tile (r = 0..64 row of the tile; triplet j = 0..8 is columns 24 g + 3 j .. + 3)
//!
//!   line l = 0..4, byte r    bits 3..0: magnitude of triplet 2 l      (14 and 15 are never written; they would mean 0)
//!                            bits 7..4: magnitude of triplet 2 l + 1
//!   line 4,        byte r    bit 7 - j: triplet j is negative
//! ```
//!
//! **Tables** four lines for each group and token: for each triplet the sums a q0 + b q1 + c q2 of the magnitudes
//! 0..14, as two signed digits in base 31, sixteen bytes of low digits and sixteen of high ones.
//!
//! **Shapes** weights `R × C` in [`Layout::Tl2`]; codes `[T, stride]`; scales `[T]`; out `[R, T]`.
//!
//! **Numbers** A sum of a table is at most 3 · 128 in magnitude, so a low digit is at most 15 and a high one at most
//! 12: the eight of a group add up in a signed byte, negated or not. A group adds at most 24 · 128 = 3072, so 16 bits
//! hold ten of them before they are widened to 32; 32 bits hold 2^31 / 128 columns. (The kernel of bitnet.cpp keeps
//! 16-bit sums of too many groups, which overflow: its issue 629.)
//!
//! **Exactness** integers throughout, one rounding to `f32` and one in the product: the same bits everywhere.
//!
//! **Cost** R·C·5/24 bytes of weights and 32·C·T/3 of tables, which all rows share; 2·R·C·T operations, of which a
//! lookup of two digits does six.
//!
//! **Source** bitnet.cpp (Wang et al., arXiv 2502.11880), whose TL2 has the index and the sign; the drawing, the digits
//! and the bounds are ours.
//!
//! **Variants** AVX2: 32 rows to a register; eight streams for one token, one after the other for a group each. The
//! indices and signs of a group are taken apart once for two tokens. AVX-512: `vpermb`, whose table of 64 entries takes
//! the sign as a bit of the index.
//!
//! **Tried and dropped** the eight triplets of a group unrolled (the compiler adds all low digits before the high ones
//! and spills: 0.9 of the speed, and 0.7 for four tokens); both halves of a tile for two tokens (spills too); signs as
//! shifts by a constant each, instead of one register that moves by a bit a triplet; even and odd rows widened by
//! themselves (six instructions where interleaving the digits takes four); prefetching 2 KiB ahead (0.95 of the speed
//! in cache, less from memory).
//!
//! **Not done** AVX2 signs without `vpsignb` on both digits: they are a third of its instructions.

use super::format::Format;
use super::product::Packed;
use super::{Activations, Layout, Weights};
use crate::{Kernels, Line};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

/// Rows to a tile: a byte of a line each.
const TILE_ROWS: usize = 64;
/// Triplets to a group of columns: a bit of the signs each.
const TRIPLETS: usize = 8;
/// Columns to a group.
const COLUMNS: usize = 3 * TRIPLETS;
/// Lines to a group of a tile: two magnitudes to a byte, then the signs.
const LINES: usize = TRIPLETS / 2 + 1;
/// The largest magnitude: 9 + 3 + 1.
const LARGEST: i8 = 13;

pub(crate) const FORMAT: Format = Format {
    name: "tl2",
    tile_rows: TILE_ROWS,
    group_columns: COLUMNS,
    group_lines: LINES,
    header: None,
    pack,
    unpack,
};

fn pack(trits: &[i8], lines: &mut [Line]) {
    lines.fill(Line([0; 64]));
    for (r, row) in trits.chunks_exact(COLUMNS).enumerate() {
        for (j, trits) in row.chunks_exact(3).enumerate() {
            let value = 9 * trits[0] + 3 * trits[1] + trits[2];
            lines[j / 2].0[r] |= value.unsigned_abs() << (j % 2 * 4);
            lines[LINES - 1].0[r] |= u8::from(value < 0) << (7 - j);
        }
    }
}

fn unpack(lines: &[Line], trits: &mut [i8]) {
    for (r, row) in trits.chunks_exact_mut(COLUMNS).enumerate() {
        for (j, trits) in row.chunks_exact_mut(3).enumerate() {
            trits.copy_from_slice(&triplet(lines, r, j));
        }
    }
}

/// Triplet j of row r of a group.
fn triplet(lines: &[Line], r: usize, j: usize) -> [i8; 3] {
    let magnitude = (lines[j / 2].0[r] >> (j % 2 * 4) & 15) as i8;
    let negative = lines[LINES - 1].0[r] >> (7 - j) & 1 == 1;
    weights(if negative { -magnitude } else { magnitude })
}

/// The weights of a value.
const fn weights(value: i8) -> [i8; 3] {
    if value.unsigned_abs() > LARGEST.unsigned_abs() {
        return [0; 3];
    }
    let digits = value + LARGEST;
    [digits / 9 - 1, digits / 3 % 3 - 1, digits % 3 - 1]
}

/// The op.
pub(crate) struct Tl2;

impl Packed for Tl2 {
    const NAME: &'static str = "ternary/tl2";
    const LAYOUT: Layout = Layout::Tl2;

    fn variant(kernels: &Kernels) -> usize {
        kernels.ternary_tl2.matmul as usize
    }
}
