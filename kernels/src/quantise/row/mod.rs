//! Absmax int8 of rows that are read again as numbers: cached keys and values.
//!
//! **Computes** for each row m = max|x|; scale = m / 127; q = round(x · (127 / m)), ties to even. A row with m below
//! [`SMALLEST`] becomes zeros of scale 0.
//!
//! **Shapes** x and codes `[n, K]`; scales `[n]`.
//!
//! **Numbers** |q| <= 127: x · (127 / m) exceeds 127 by two roundings at most. |x - q · scale| <= scale / 2 and three
//! roundings of f32. This is [`crate::grouped::codes`] with a row for a group and no sums; [`crate::quantise`] differs
//! in what it keeps of a row, the factor and not the scale, and in taking 1e-5 for any maximum below it.
//!
//! **Exactness** the same bits everywhere: the maximum does not depend on order, all else is exact IEEE operations. A
//! NaN counts as 0 in the maximum and becomes code 0. A row with an infinity becomes zeros of infinite scale, which is
//! NaN to whoever multiplies the two.
//!
//! **Cost** 4·n·K bytes read, n·(K + 4) written; about 4·n·K operations.
//!
//! **Source** LLM.int8() (Dettmers et al., arXiv 2208.07339) quantises activations by rows like this.
//!
//! **Variants** AVX2 and AVX-512 share both loops with [`crate::quantise`].

use crate::probe::{Op, Shape, Work};
use crate::{Kernels, Rng};

pub(crate) mod scalar;

pub use crate::grouped::codes::SMALLEST;
pub(crate) use crate::grouped::codes::scale_for;

/// One row and its codes; gives its scale.
pub(crate) type Variant = unsafe fn(&[f32], &mut [i8]) -> f32;

impl Kernels {
    /// Quantises rows of so many numbers. See [`crate::quantise::row`].
    ///
    /// # Panics
    /// If shapes disagree or the width is 0.
    pub fn quantise_rows(&self, x: &[f32], width: usize, codes: &mut [i8], scales: &mut [f32]) {
        assert!(width > 0 && x.len().is_multiple_of(width), "rows [n, {width}]: {}", x.len());
        assert_eq!(x.len(), codes.len(), "codes are as many as numbers");
        assert_eq!(x.len() / width, scales.len(), "a scale for each row");
        for ((x, codes), scale) in x.chunks_exact(width).zip(codes.chunks_exact_mut(width)).zip(scales) {
            // SAFETY: this table exists only if the CPU has the variant's features.
            *scale = unsafe { (self.quantise_row)(x, codes) };
        }
    }
}

/// The op, for [`OPS`](crate::probe::OPS). A shape is 1 × K × n.
pub(crate) struct QuantiseRows;

/// Rows and the places for their codes and scales.
pub(crate) struct Case {
    width: usize,
    x: Vec<f32>,
    codes: Vec<i8>,
    scales: Vec<f32>,
}

impl Op for QuantiseRows {
    const NAME: &'static str = "quantise/rows";
    type Case = Case;

    fn shapes() -> Vec<Shape> {
        // Eight kinds of row (see `case`), so that each width meets several of them.
        let widths = [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 1000];
        widths.into_iter().map(|c| Shape::new(1, c, 16)).chain(Self::model_shapes()).collect()
    }

    fn model_shapes() -> Vec<Shape> {
        // One token's key, and a prompt's.
        vec![Shape::new(1, 128, 1), Shape::new(1, 128, 64)]
    }

    fn admit(shape: Shape) -> Shape {
        Shape::new(1, shape.c.max(1), shape.t)
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case {
        let mut x = Vec::with_capacity(shape.c * shape.t);
        for _ in 0..shape.t {
            // Ordinary rows, zeros, rows near SMALLEST and of denormals, huge ones, rows full of ties, a NaN, an infinity.
            let kind = rng.below(9);
            let odd = rng.below(shape.c);
            x.extend((0..shape.c).map(|i| match kind {
                0 => 0.0,
                1 => rng.normal() * SMALLEST,
                2 => rng.normal() * 1e-40,
                3 => rng.normal() * 5e37,
                4 if i == odd => -127.0,
                4 => (rng.below(509) as f32 - 254.0) / 2.0,
                5 if i == odd => f32::NAN,
                6 if i == odd => f32::NEG_INFINITY,
                _ => rng.normal(),
            }));
        }
        Case { width: shape.c, codes: vec![0x55; x.len()], scales: vec![f32::NAN; shape.t], x }
    }

    fn run(kernels: &Kernels, case: &mut Case) {
        kernels.quantise_rows(&case.x, case.width, &mut case.codes, &mut case.scales);
    }

    fn output(case: &Case) -> Vec<f32> {
        case.codes.iter().map(|code| f32::from(*code)).chain(case.scales.iter().copied()).collect()
    }

    fn work(shape: &Shape) -> Work {
        let (c, t) = (shape.c as u64, shape.t as u64);
        Work { bytes: (5 * c + 4) * t, operations: 4 * c * t }
    }

    fn variant(kernels: &Kernels) -> usize {
        kernels.quantise_row as usize
    }
}
