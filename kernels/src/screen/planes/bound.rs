//! How far a score of one plane or of two can be from the exact logit: the proof, and the numbers that it needs.
//!
//! Of a row, w are the head's weights and w = v1 + c m + d1 = v1 + v2 + c m + d2, where m is the common row, c the row's
//! coefficient and v1, v2 the levels of the planes times their scales; these are identities of real numbers, in which d1
//! and d2 are what is left. Of a token, x is what the exact product reads and y the codes times their scale, which the
//! planes read. e is the exact logit as computed, s a score as computed, u = 2^-24, gamma(n) = n u / (1 - n u).
//!
//! ```text
//! |e - s| <= |e - w.x| + |d.x| + |v.x - v.y| + |v.y + c (m.x) - s|
//! ```
//!
//! 1. |e - w.x| <= gamma(n) |w| |x|, as in [`super::super::bound`].
//! 2. |d.x| <= |d| |x| (Cauchy-Schwarz).
//! 3. |v.x - v.y| <= |v| |x - y|.
//! 4. s adds three terms. The integers in two of them are exact: below 3 · 128 · C, under 2^24 for C <= 2^15. So v1.y and
//!    v2.y pass four roundings at most and c (m.x) five, of which the rounding of m.x from f64 counts twice: all together
//!    at most gamma(8) (|v1| |y| + |v2| |y| + |c| |m| |x|).
//!
//! With N the larger of |w| and |v1| + |v2| + |c| |m|, the bound is |d| |x| + N slope. Underflow adds 2^-150 for each
//! operation, times |c| for m.x: [`TINY`] and the last summand of `slope` cover it. Overflow is excluded by [`LIMIT`].
//! Numbers of rows are bf16 rounded up, the bound passes five roundings, which `INFLATION` outweighs; the last addition,
//! s + bound, errs by at most u (|s| + bound), and 2 u N (|x| + |y|) >= u |s| is part of `slope`.

use super::super::bound::{LIMIT, NORM, TINY, UNIT, above, gamma};
use half::bf16;

/// Columns are at most this many.
pub(crate) const MAX_COLUMNS: usize = 1 << 15;
const _: () = assert!(3 * 128 * MAX_COLUMNS < 1 << 24, "sums of a plane are exact in f32");
/// Outweighs the roundings of the bound itself.
const INFLATION: f32 = 1.0 + 1.0 / (1 << 19) as f32;
/// Outweighs the roundings of a residual in f64, beside [`NORM`]: cancellation leaves errors in proportion to its terms.
const CANCELLED: f64 = 1.0 / (1u64 << 48) as f64;

/// The smallest bf16 that is not below `value`, which is not negative.
fn above16(value: f64) -> bf16 {
    let near = bf16::from_f64(value);
    if near.to_f64() < value { bf16::from_bits(near.to_bits() + 1) } else { near }
}

/// Of a plane, what each row's levels are multiplied by and |d| behind it.
#[derive(Clone, Debug, Default)]
pub(crate) struct PlaneBounds {
    scales: Vec<bf16>,
    residuals: Vec<bf16>,
}

/// What scores and bounds need of each row.
#[derive(Clone, Debug, Default)]
pub(crate) struct RowBounds {
    planes: [PlaneBounds; 2],
    /// c.
    coefficients: Vec<bf16>,
    /// N.
    norms: Vec<bf16>,
}

/// The sizes of a row and of its parts, in f64.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// |w|.
    pub(crate) exact: f64,
    /// |v1| and |v2|.
    pub(crate) planes: [f64; 2],
    /// |c| |m|.
    pub(crate) common: f64,
    /// |d1| and |d2|.
    pub(crate) residuals: [f64; 2],
}

impl RowBounds {
    /// Bytes that a row takes, of which the first plane needs all but [`RowBounds::SECOND_BYTES`].
    pub(crate) const ROW_BYTES: usize = 6 * size_of::<bf16>();
    /// Bytes of a row that the second plane needs alone.
    pub(crate) const SECOND_BYTES: usize = 2 * size_of::<bf16>();

    pub(crate) fn push(&mut self, scales: [bf16; 2], coefficient: bf16, sizes: Sizes) {
        let parts = sizes.planes[0] + sizes.planes[1] + sizes.common;
        let lost = (sizes.exact + parts) * CANCELLED;
        for (plane, (scale, residual)) in self.planes.iter_mut().zip(scales.into_iter().zip(sizes.residuals)) {
            plane.scales.push(scale);
            plane.residuals.push(above16(residual * NORM + lost));
        }
        self.coefficients.push(coefficient);
        self.norms.push(above16(sizes.exact.max(parts) * NORM));
    }

    /// The largest norm.
    pub(crate) fn largest(&self) -> f32 {
        self.norms.iter().fold(0.0, |largest: f32, norm| largest.max(norm.to_f32()))
    }
}

/// What scores and bounds need of a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TokenBound {
    /// |x|.
    norm: f32,
    /// What is multiplied by N.
    slope: f32,
    /// What codes are multiplied by.
    scale: f32,
    /// m.x.
    common: f32,
    /// The sum of the codes.
    sum: f32,
}

/// A token as the products read it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reads<'a> {
    /// x `[C]`.
    pub(crate) exact: &'a [f32],
    /// Roundings of the exact product.
    pub(crate) roundings: usize,
    /// `[C]` or longer.
    pub(crate) codes: &'a [i8],
    /// The sum of the codes.
    pub(crate) sum: i32,
    /// What codes are multiplied by.
    pub(crate) scale: f32,
}

impl TokenBound {
    /// Of one token, for a common row m `[C]`. `None` if rows up to `largest` in norm cannot be screened for it.
    pub(crate) fn new(token: Reads<'_>, common: &[f32], largest: f32) -> Option<TokenBound> {
        let (mut x_square, mut y_square, mut d_square, mut product) = (0.0f64, 0.0f64, 0.0f64, 0.0f64);
        for ((x, q), m) in token.exact.iter().zip(token.codes).zip(common) {
            let (x, y) = (f64::from(*x), f64::from(*q) * f64::from(token.scale));
            x_square += x * x;
            y_square += y * y;
            d_square += (x - y) * (x - y);
            product += x * f64::from(*m);
        }
        let [x, y, d] = [x_square, y_square, d_square].map(|square| square.sqrt() * NORM);
        let rounded = gamma(token.roundings) * x + (gamma(8) + 2.0 * UNIT) * (x + y);
        // False as well where a norm is not a number.
        let provable = x + y + d < LIMIT && f64::from(largest) * (x + y + d) < LIMIT;
        provable.then(|| TokenBound {
            norm: above(x),
            slope: above((d + rounded) * NORM + f64::from(TINY)),
            scale: token.scale,
            common: product as f32,
            sum: token.sum as f32,
        })
    }

    /// Of all rows: in the place of the sums over the first plane's codes less 1 the scores `[V]`, and what exact logits
    /// cannot exceed.
    pub(crate) fn first(&self, rows: &RowBounds, sums: &mut [f32], uppers: &mut [f32]) {
        let RowBounds { planes: [first, _], coefficients, norms } = rows;
        let rows = first.scales.iter().zip(&first.residuals).zip(coefficients.iter().zip(norms));
        for ((score, upper), ((scale, residual), (coefficient, norm))) in sums.iter_mut().zip(uppers).zip(rows) {
            *score = self.plane(*scale, *score) + widen(*coefficient) * self.common;
            *upper = *score + self.bound(*residual, *norm);
        }
    }

    /// A row's score of both planes, from that of the first and the sum over the second's codes less 1.
    pub(crate) fn second(&self, rows: &RowBounds, row: usize, score: f32, sum: f32) -> f32 {
        score + self.plane(rows.planes[1].scales[row], sum)
    }

    /// What the exact logit of a row cannot exceed, from its score of both planes.
    pub(crate) fn upper(&self, rows: &RowBounds, row: usize, score: f32) -> f32 {
        score + self.bound(rows.planes[1].residuals[row], rows.norms[row])
    }

    /// Levels are 2 (code - 1) - 1: -3, -1, 1 and 3.
    #[inline(always)]
    fn plane(&self, scale: bf16, sum: f32) -> f32 {
        widen(scale) * self.scale * (2.0 * sum - self.sum)
    }

    #[inline(always)]
    fn bound(&self, residual: bf16, norm: bf16) -> f32 {
        (widen(residual) * self.norm + widen(norm) * self.slope) * INFLATION + TINY
    }
}

/// Exact; all of these are finite or infinite, never NaN.
#[inline(always)]
fn widen(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}
