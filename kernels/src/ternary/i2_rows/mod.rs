//! Ternary product on rows of two-bit codes, one row after the other: what [`super::i2`] would be without its arrangement.
//!
//! **Computes** `out[r, t] = (sum over c of w[r, c] * q[t, c]) * scale[t]`: the sum in integers, then one conversion to
//! `f32` and one multiplication.
//!
//! **Layout** two bits a weight. A row is a run of cache lines, one for each group of 256 columns; no tiles:
//!
//! ```text
//! line g of a row, byte b  (b = 0..64)
//!
//!   bits 7 6 | 5 4 | 3 2 | 1 0          code = weight + 1, so 0, 1 or 2 (3 is never written; it would mean 2)
//!   column    256 g + 192 + b
//!                   256 g + 128 + b
//!                         256 g + 64 + b
//!                               256 g + b
//! ```
//!
//! Every plane of a line meets 64 activations that lie side by side, so that neither side is shuffled.
//!
//! **Shapes** weights `R × C` in [`Layout::I2Rows`]; codes `[T, stride]`; sums and scales `[T]`; out `[R, T]`.
//!
//! **Numbers** As `i2`: sum((w + 1) q) less sum(q), half of the columns four times too large in AVX-512, below 2^31 while
//! C < 2^21. Two sums of a half line each gather in 16 bits (AVX2): 4 planes of at most 768 a line, widened after 10 lines.
//! Planes of the last line that lie beyond the stride have no activations and are skipped.
//!
//! **Exactness** integers throughout, one rounding to `f32` and one in the product: the same bits everywhere.
//!
//! **Cost** R·C/4 bytes of weights, C rounded up to 256; 2·R·C·T operations, and a horizontal sum for each product.
//!
//! **Source** Rows whose planes are far apart: llama.cpp's TQ2_0 and bitnet.cpp's I2_S (groups of 128 there).
//!
//! **Variants** the instructions of `i2`, one row at a time from first to last: one stream, and no prefetch but the
//! hardware's. AVX-512 (VNNI): blocks of one row and up to four tokens. AVX2: the same.
//!
//! **Not done** on purpose: several rows at a time, streams and prefetches. They are what `i2` is compared for.

use super::format::Format;
use super::product::Packed;
use super::{Activations, Layout, Weights};
use crate::{Kernels, Line};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

/// Columns to a plane of a line.
const PLANE: usize = 64;
/// Columns to a line.
const COLUMNS: usize = 4 * PLANE;

pub(crate) const FORMAT: Format =
    Format { name: "i2_rows", tile_rows: 1, group_columns: COLUMNS, group_lines: 1, header: None, pack, unpack };

fn pack(trits: &[i8], line: &mut [Line]) {
    line[0].0.fill(0);
    for (c, trit) in trits.iter().enumerate() {
        line[0].0[c % PLANE] |= ((trit + 1) as u8) << (c / PLANE * 2);
    }
}

fn unpack(line: &[Line], trits: &mut [i8]) {
    for (c, trit) in trits.iter_mut().enumerate() {
        *trit = (line[0].0[c % PLANE] >> (c / PLANE * 2) & 3) as i8 - 1;
    }
}

/// The op.
pub(crate) struct I2Rows;

impl Packed for I2Rows {
    const NAME: &'static str = "ternary/i2_rows";
    const COMPARATOR: Option<&'static str> = Some(
        "two-bit codes row after row in one stream: what the tiles, streams and prefetches of ternary/i2 are worth",
    );
    const LAYOUT: Layout = Layout::I2Rows;

    fn variant(kernels: &Kernels) -> usize {
        kernels.ternary_i2_rows.matmul as usize
    }
}
