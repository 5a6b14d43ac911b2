//! Ternary product by table lookup: two bit planes, a table of subset sums for every four activations.
//!
//! **Computes** `out[r, t] = (sum over c of w[r, c] * q[t, c]) * scale[t]`: the sum in integers, then one conversion to
//! `f32` and one multiplication.
//!
//! **Layout** two bits a weight. Tiles of 32 rows; a tile is a run of cache lines, one for each group of 8 columns:
//!
//! ```text
//! line g of a tile (r = 0..32 row of the tile, bit j = 0..8 of a byte is column 8 g + j)
//!
//!   byte 2 r        bit j is set where the weight is +1          high nibble: columns 8 g + 4 .. + 8
//!   byte 2 r + 1    bit j is set where the weight is -1          low nibble:  columns 8 g .. + 4
//! ```
//!
//! So a nibble says which of four activations to add (even bytes) or to subtract (odd bytes), and is the index of a
//! table of sixteen sums. Both planes of a row lie side by side, since one `vpmaddubsw` with 1, -1, 1, -1, .. then
//! takes one from the other and widens. The zero matrix is all zeros, and no sum of activations has to be subtracted.
//!
//! **Tables** a line for each group of 8 columns and token: for each half of the group the sums of all subsets of its
//! four activations, plus 512 so that none is negative (it cancels between the planes), as two digits in base 32:
//!
//! ```text
//!   bytes 0..16   entry i: low digit of the sum of the columns 8 g + j whose bit j is set in i (j = 0..4)
//!   bytes 16..32           high digit
//!   bytes 32..64  the same for columns 8 g + 4 + j
//! ```
//!
//! **Shapes** weights `R × C` in [`Layout::Tmac`]; codes `[T, stride]`; scales `[T]`; out `[R, T]`.
//!
//! **Numbers** Digits are at most 31, so eight of them add up in a byte. A group of four columns adds at most 4 · 128
//! in magnitude, so 16 bits hold 63 of them; 56 add up before they are widened to 32 bits. A bit set in both planes is
//! never written; it would mean 0.
//!
//! **Exactness** integers throughout, one rounding to `f32` and one in the product: the same bits everywhere.
//!
//! **Cost** R·C/4 bytes of weights and 8·C·T of tables, which all rows share; 2·R·C·T operations, of which a lookup of
//! two digits does eight.
//!
//! **Source** T-MAC (Wei et al., arXiv 2407.00088): bit planes and lookups in registers. Its signed tables, mirrored to
//! eight entries, serve weights of any number of bits; subsets of the positive and the negative weights are what
//! ternary ones need, at the same number of lookups. Digits that add up in bytes are ours.
//!
//! **Variants** AVX2: sixteen rows and both planes to a register; eight streams for one token, two at a time. The
//! planes of a line are taken apart once for two tokens; beyond that, table lookup has nothing to share between tokens.
//! AVX-512: a line to a register, eight tiles at once.
//!
//! **Tried and dropped** long runs of two streams before the next two (28 lines, as long as 16 bits allow: 0.8 of the
//! speed from memory and the same in cache; runs of 4 lines take turns and keep the 16-bit sums in the first-level
//! cache); prefetching 2 KiB ahead or more as the other layout does (eight streams and the tables then crowd each other
//! out of the first-level cache: 4 KiB loses a tenth in cache, 2 KiB a hundredth and more from memory).
//!
//! **Not done** more than eight lookups before digits are put together (base 23 and a bias for each table would allow
//! eleven, a few per cent); anything for prompts, where unpacked products win: tables do not add up over tokens.

use super::format::Format;
use super::product::Packed;
use super::{Activations, Layout, Weights};
use crate::{Kernels, Line};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

/// Rows to a tile: two bytes of a line each.
pub(super) const TILE_ROWS: usize = 32;
/// Columns to a line.
pub(super) const COLUMNS: usize = 8;

pub(crate) const FORMAT: Format =
    Format { name: "tmac", tile_rows: TILE_ROWS, group_columns: COLUMNS, group_lines: 1, header: None, pack, unpack };

fn pack(trits: &[i8], line: &mut [Line]) {
    let bits = |row: &[i8], trit: i8| row.iter().enumerate().fold(0, |bits, (c, w)| bits | u8::from(*w == trit) << c);
    for (row, planes) in trits.chunks_exact(COLUMNS).zip(line[0].0.chunks_exact_mut(2)) {
        planes.copy_from_slice(&[bits(row, 1), bits(row, -1)]);
    }
}

fn unpack(line: &[Line], trits: &mut [i8]) {
    for (row, planes) in trits.chunks_exact_mut(COLUMNS).zip(line[0].0.chunks_exact(2)) {
        for (c, trit) in row.iter_mut().enumerate() {
            *trit = (planes[0] >> c & 1) as i8 - (planes[1] >> c & 1) as i8;
        }
    }
}

/// The op.
pub(crate) struct Tmac;

impl Packed for Tmac {
    const NAME: &'static str = "ternary/tmac";
    const LAYOUT: Layout = Layout::Tmac;

    fn variant(kernels: &Kernels) -> usize {
        kernels.ternary_tmac.matmul as usize
    }
}
