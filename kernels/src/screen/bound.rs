//! How far a screened score can be from the exact logit: the proof, and the numbers that it needs of rows and tokens.
//!
//! Of a row, w are the head's weights, v the coarse ones and d = w - v; of a token, x are the activations that the
//! exact product reads and y the codes times their scales, which the coarse one reads. e is the exact logit as
//! computed, s the score as computed. C columns in G groups, u = 2^-24, gamma(n) = n u / (1 - n u).
//!
//! ```text
//! |e - s| <= |e - w.x| + |w.x - v.x| + |v.x - v.y| + |v.y - s|
//! ```
//!
//! 1. A product passes at most m roundings on its way into the sum, so |e - w.x| <= gamma(m) sum |w_i x_i| <= gamma(m)
//!    |w| |x| (Higham, Accuracy and Stability of Numerical Algorithms, §3.1, and Cauchy-Schwarz). By the sixteen-lane
//!    rule m is C / 16 rounded up, and four foldings; of a head in groups m = G + 1: one rounding for the product of
//!    two scales, one for each fused multiply-add; integers and their conversion are exact.
//! 2. |w.x - v.x| = |d.x| <= |d| |x|. Group by group it is also at most the sum of |d_g| |x_g|, and so of k |scale_g|
//!    |x_g| with k the largest |d_g| / |scale_g| of the row: scales are read anyway, so this bound costs no memory. It
//!    is the smaller one where few groups hold most of a token, as in models with outlying channels. The smaller of the
//!    two counts.
//! 3. |v.x - v.y| <= |v| |x - y|.
//! 4. |v.y - s| <= gamma(G + 1) |v| |y|, as in 1.
//!
//! Underflow adds at most 2^-150 for each operation; for the product of two scales it is multiplied by a dot product
//! below 2^19. [`TINY`] a group covers that for e, s and the bound itself. Overflow is excluded by [`LIMIT`]: all
//! partial sums are below |w| |x|. A token beyond it, or one that is not finite, is not screened at all.
//!
//! The bound itself is computed in f32, from norms in f64 that are rounded up: sums and products of positive numbers,
//! at most G + 8 roundings on any path, which [`TokenBound::inflation`] outweighs. The last addition, s + bound, errs
//! by at most u (|s| + bound); 2 u |v| |y| >= u |s| is part of the token's `slope`.

use crate::grouped::{Activations, GroupedMatrix};

/// What underflow can add to the difference for each group.
pub(crate) const TINY: f32 = f32::from_bits((127 - 120) << 23);
/// 2^100: norms of tokens stay below it, alone and times norms of rows.
pub(crate) const LIMIT: f64 = (1u128 << 100) as f64;
/// The largest ratio of residual and scale that is worth keeping; a scale of 0 has none.
const RATIO: f64 = 1024.0;
/// The unit roundoff of f32.
pub(crate) const UNIT: f64 = 1.0 / (1 << 24) as f64;
/// Outweighs the roundings of a norm in f64: half a unit of 2^-52 for each of at most [`MAX_COLUMNS`] additions.
pub(crate) const NORM: f64 = 1.0 + 1.0 / (1 << 30) as f64;
/// Columns are fewer than this.
pub(crate) const MAX_COLUMNS: usize = 1 << 20;

/// Higham's gamma.
pub(crate) fn gamma(roundings: usize) -> f64 {
    let n = roundings as f64 * UNIT;
    n / (1.0 - n)
}

/// The smallest f32 that is not below `value`, which is not negative.
pub(crate) fn above(value: f64) -> f32 {
    let near = value as f32;
    if f64::from(near) < value { near.next_up() } else { near }
}

/// What the bound needs of each row.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RowBounds {
    /// |d|.
    residuals: Vec<f32>,
    /// k, infinite where a group with a scale of 0 has a residual.
    ratios: Vec<f32>,
    /// The larger of |w| and |v|.
    norms: Vec<f32>,
}

impl RowBounds {
    /// Adds a row: its weights in the head, its coarse codes times their scales, and the scales of its groups.
    pub(crate) fn push(&mut self, exact: &[f32], coarse: &[f32], scales: impl Iterator<Item = f32>) {
        let norm = |row: &[f32]| row.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt() * NORM;
        let (mut square, mut ratio) = (0.0, 0.0f64);
        let groups = exact.chunks(GroupedMatrix::GROUP).zip(coarse.chunks(GroupedMatrix::GROUP));
        for ((exact, coarse), scale) in groups.zip(scales) {
            let differences = exact.iter().zip(coarse).map(|(w, v)| f64::from(*w) - f64::from(*v));
            let of_group: f64 = differences.map(|d| d * d).sum();
            square += of_group;
            if of_group > 0.0 {
                ratio = ratio.max(of_group.sqrt() * NORM / f64::from(scale.abs()));
            }
        }
        self.residuals.push(above(square.sqrt() * NORM));
        self.ratios.push(if ratio <= RATIO { above(ratio) } else { f32::INFINITY });
        self.norms.push(above(norm(exact).max(norm(coarse))));
    }

    /// The largest norm.
    pub(crate) fn largest(&self) -> f32 {
        self.norms.iter().fold(0.0, |largest: f32, norm| largest.max(*norm))
    }

    /// Bytes of all rows.
    pub(crate) fn bytes(&self) -> usize {
        3 * size_of_val(&self.norms[..])
    }
}

/// What the bound needs of a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TokenBound {
    /// |x|.
    norm: f32,
    /// What is multiplied by a row's norm: |x - y| and the roundings of both products.
    slope: f32,
    inflation: f32,
    tiny: f32,
}

/// Which numbers the exact product reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reads<'a> {
    /// The activations `[C]`.
    Activations(&'a [f32]),
    /// The codes, as the coarse product does.
    Codes,
}

impl TokenBound {
    /// Of one token; writes |x_g| to `norms` `[G]`. `None` if rows up to `largest` in norm cannot be screened for it.
    pub(crate) fn new(reads: Reads<'_>, codes: Activations<'_>, norms: &mut [f32], largest: f32) -> Option<TokenBound> {
        let groups = norms.len();
        let (mut x_square, mut y_square, mut d_square) = (0.0f64, 0.0f64, 0.0f64);
        for (g, norm) in norms.iter_mut().enumerate() {
            let scale = f64::from(codes.scales[g]);
            let first = g * GroupedMatrix::GROUP;
            let mut of_group = 0.0;
            for (c, q) in codes.codes[first..first + GroupedMatrix::GROUP].iter().enumerate() {
                let y = f64::from(*q) * scale;
                let x = match reads {
                    Reads::Activations(x) => x.get(first + c).map_or(0.0, |x| f64::from(*x)),
                    Reads::Codes => y,
                };
                of_group += x * x;
                y_square += y * y;
                d_square += (x - y) * (x - y);
            }
            x_square += of_group;
            *norm = above(of_group.sqrt() * NORM);
        }
        let [x_norm, y_norm, d_norm] = [x_square, y_square, d_square].map(|square| square.sqrt() * NORM);
        let roundings = match reads {
            Reads::Activations(x) => x.len().div_ceil(16) + 4,
            Reads::Codes => groups + 1,
        };
        // False as well where a norm is not a number.
        let length = x_norm + y_norm + d_norm;
        let provable = length < LIMIT && f64::from(largest) * length < LIMIT;
        provable.then(|| TokenBound {
            norm: above(x_norm),
            slope: above((d_norm + gamma(roundings) * x_norm + (gamma(groups + 1) + 2.0 * UNIT) * y_norm) * NORM),
            inflation: above(1.0 + (groups + 16) as f64 * 2.0 * UNIT),
            tiny: TINY * groups as f32,
        })
    }

    /// What the exact logits cannot exceed, in the place of the reaches: the sums of |scale_g| |x_g|.
    pub(crate) fn uppers(&self, rows: &RowBounds, scores: &[f32], reaches: &mut [f32]) {
        let rows = rows.residuals.iter().zip(&rows.ratios).zip(&rows.norms);
        for ((reach, score), ((residual, ratio), norm)) in reaches.iter_mut().zip(scores).zip(rows) {
            let (of_norms, of_reach) = (residual * self.norm, ratio * *reach);
            // An infinite ratio times a reach of 0 is no number, and the other is taken.
            let difference = if of_reach < of_norms { of_reach } else { of_norms };
            *reach = score + ((difference + norm * self.slope) * self.inflation + self.tiny);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DenseHead, Head, Scratch, Screen};
    use super::*;
    use crate::grouped::Layout;
    use crate::{Isa, Kernels, Rng};

    /// For each row |logit - score| and what the bound makes of it, in f64.
    fn differences<H: Head>(head: &H, screen: &Screen, x: &[f32]) -> Vec<(f64, f64)> {
        let kernels = Kernels::best();
        let mut scratch = Scratch::new(head.rows(), head.cols());
        scratch.codes.fill(kernels, x, head.cols());
        let codes = scratch.codes.view();
        let reads = if head.reads_codes() { Reads::Codes } else { Reads::Activations(x) };
        let bound = TokenBound::new(reads, codes, &mut scratch.norms, screen.bounds.largest()).expect("a finite token");
        kernels.score(screen.coarse(), codes, &scratch.norms, &mut scratch.out);
        let mut logits = vec![0.0; head.rows()];
        head.logits(kernels, x, codes, 0..head.rows(), &mut logits);
        let (scores, uppers) = scratch.out.split_at_mut(head.rows());
        bound.uppers(&screen.bounds, scores, uppers);
        (0..head.rows())
            .map(|r| {
                let upper = uppers[r];
                let difference = f64::from(logits[r]) - f64::from(scores[r]);
                assert!(upper >= logits[r], "row {r}: {} above {upper}", logits[r]);
                // What the proof says of one side it says of the other; `upper` was rounded.
                let bound = f64::from(upper) - f64::from(scores[r]) + f64::from(scores[r].abs()) * 2.0 * UNIT;
                (difference.abs(), bound)
            })
            .collect()
    }

    #[test]
    fn no_logit_is_farther_from_its_score_than_the_bound_and_the_worst_token_comes_near() {
        let mut rng = Rng::new(6);
        for (rows, cols) in [(37, 1), (40, 31), (40, 64), (33, 100), (20, 700)] {
            for size in [1.0f32, 1e-3, 1e3] {
                let head: Vec<f32> = (0..rows * cols).map(|_| rng.normal() * size).collect();
                let head = DenseHead { weights: &head, cols };
                for layout in Layout::ALL {
                    let screen = Screen::of_dense(head, layout).expect("finite weights");
                    let mut nearest = 0.0f64;
                    for token in 0..60 {
                        // Residuals of rows are the worst that a token can be; then noise of many sizes.
                        let mut x = vec![0.0; cols];
                        if token < rows {
                            screen.coarse.unpack_row(token, &mut x);
                            let row = &head.weights[token * cols..][..cols];
                            x.iter_mut().zip(row).for_each(|(x, w)| *x = w - *x);
                        } else {
                            let size = [1.0, 1e-20, 1e-33, 1e20, 1e-40][token % 5];
                            x.fill_with(|| rng.normal() * size * [1.0, 1e-4, 100.0][rng.below(3)]);
                        }
                        for (r, (difference, bound)) in differences(&head, &screen, &x).into_iter().enumerate() {
                            assert!(
                                difference <= bound,
                                "{layout}, {cols} columns, row {r}: {difference:e} > {bound:e}"
                            );
                            nearest = nearest.max(difference / bound);
                        }
                    }
                    // In eight bits half of the bound is for the codes of the token, which err in another direction.
                    let near = if layout == Layout::Q4 { 0.8 } else { 0.5 };
                    assert!(nearest > near || cols == 1, "{layout}, {cols} columns: {nearest} of the bound at most");
                }
                let grouped = GroupedMatrix::pack(head.weights, rows, cols, Layout::Q8).expect("finite weights");
                let screen = Screen::of_grouped(&grouped, Layout::Q4).expect("finite weights");
                for _ in 0..20 {
                    let x: Vec<f32> = (0..cols).map(|_| rng.normal()).collect();
                    for (difference, bound) in differences(&&grouped, &screen, &x) {
                        assert!(difference <= bound, "{cols} columns: {difference:e} > {bound:e}");
                    }
                }
            }
        }
    }

    #[test]
    fn reaches_bound_a_token_with_an_outlying_channel_better_than_norms() {
        let mut rng = Rng::new(7);
        let cols = 1024;
        let head: Vec<f32> = (0..64 * cols).map(|_| rng.normal()).collect();
        let head = DenseHead { weights: &head, cols };
        let screen = Screen::of_dense(head, Layout::Q4).expect("finite weights");
        let mut x: Vec<f32> = (0..cols).map(|_| rng.normal() * 0.01).collect();
        x[77] = 50.0;
        let of_norms = f64::from(screen.bounds.residuals[0]) * 50.0;
        assert!(differences(&head, &screen, &x).iter().all(|(_, bound)| *bound < of_norms / 3.0));
    }

    #[test]
    fn tokens_beyond_the_proof_are_not_screened() {
        let kernels = Kernels::for_isa(Isa::Scalar).expect("every machine has the scalar level");
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e37, f32::MAX] {
            let mut codes = crate::grouped::codes::Codes::new(1, 64);
            let mut x = [1.0f32; 64];
            x[40] = wrong;
            codes.fill(kernels, &x, 64);
            assert_eq!(TokenBound::new(Reads::Activations(&x), codes.view(), &mut [0.0; 2], 1.0), None, "{wrong}");
        }
    }
}
