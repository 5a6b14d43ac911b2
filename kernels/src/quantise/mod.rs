//! Activation quantisation: absmax int8 per token.
//!
//! **Computes** a = (1 / max(max|x|, 1e-5))·127; q = clamp(round(x·a), -128, 127), ties to even; the sum of q.
//! The quotient is rounded before the product, as upstream's eager mode does, so that scales and codes are upstream's bit
//! for bit.
//!
//! **Shapes** x `[C]`, one token; codes `[stride]` with stride >= C, zero from C on.
//!
//! **Numbers** |sum| <= 128·C, inside 32 bits for C < 2^24.
//!
//! **Exactness** the same bits everywhere: the maximum does not depend on order, the product and the rounding are exact
//! IEEE operations. x must be finite; a NaN counts as 0 in the maximum and becomes code 0.
//!
//! **Cost** 4·C bytes read, C written; about 4·C operations.
//!
//! **Source** BitNet b1.58 (arXiv 2402.17764); Hugging Face `ActQuant`.
//!
//! **Variants** AVX-512: sixteen activations at a time, masked tail. AVX2: eight, the tail one by one.
//! Joined with the norm that precedes it in a BitLinear: [`crate::norm::rms_quantise`].

use crate::probe::{Op, Shape, Work};
use crate::{Kernels, Rng};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub mod row;
pub(crate) mod scalar;

/// The smallest absolute maximum that is divided by, so that a zero token stays zero.
pub const EPSILON: f32 = 1e-5;

/// What the codes of one token stand for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantised {
    /// a: codes are x·a, so x is about q/a.
    pub scale: f32,
    /// The sum of the codes.
    pub sum: i32,
}

/// a, for the largest absolute value of a token.
#[inline(always)]
pub(crate) fn scale_for(max: f32) -> f32 {
    (1.0 / if max > EPSILON { max } else { EPSILON }) * 127.0
}

pub(crate) type Variant = unsafe fn(&[f32], &mut [i8]) -> Quantised;

impl Kernels {
    /// Quantises one token. See [`crate::quantise`].
    ///
    /// # Panics
    /// If `codes` is shorter than `x` or x has 2^24 elements or more.
    pub fn quantise(&self, x: &[f32], codes: &mut [i8]) -> Quantised {
        assert!(codes.len() >= x.len(), "{} codes for {} activations", codes.len(), x.len());
        assert!(x.len() < 1 << 24, "{} codes could overflow a 32-bit sum", x.len());
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { (self.quantise)(x, codes) }
    }
}

/// The op, for [`OPS`](crate::probe::OPS). A shape is 1 × C × T.
pub(crate) struct Quantise;

/// Tokens and the places for their codes, scales and sums.
pub(crate) struct Case {
    width: usize,
    tokens: Vec<Vec<f32>>,
    codes: Vec<i8>,
    quantised: Vec<Quantised>,
}

impl Op for Quantise {
    const NAME: &'static str = "quantise";
    type Case = Case;

    fn shapes() -> Vec<Shape> {
        // Eight kinds of token (see `case`), so that each width meets several of them.
        let widths = [0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 256, 1000];
        let models = [Shape::new(1, 2560, 1), Shape::new(1, 6912, 1), Shape::new(1, 2560, 16)];
        widths.into_iter().map(|c| Shape::new(1, c, 8)).chain(models).collect()
    }

    fn model_shapes() -> Vec<Shape> {
        vec![Shape::new(1, 2560, 1), Shape::new(1, 6912, 1), Shape::new(1, 2560, 16)]
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case {
        let token = |_| {
            // Ordinary tokens, tokens of zeros, tokens below EPSILON, tokens full of ties, tokens with a NaN.
            let kind = rng.below(8);
            let mut x: Vec<f32> = (0..shape.c)
                .map(|_| match kind {
                    0 => 0.0,
                    1 => rng.normal() * 1e-8,
                    2 | 3 => (rng.below(509) as f32 - 254.0) / 2.0,
                    _ => rng.normal(),
                })
                .collect();
            if shape.c > 0 && (2..=4).contains(&kind) {
                x[rng.below(shape.c)] = if kind == 4 { f32::NAN } else { -127.0 };
            }
            x
        };
        let stride = shape.c.next_multiple_of(64);
        Case {
            width: stride,
            tokens: (0..shape.t).map(token).collect(),
            codes: vec![0x55; stride * shape.t],
            quantised: vec![Quantised { scale: f32::NAN, sum: i32::MIN }; shape.t],
        }
    }

    fn run(kernels: &Kernels, case: &mut Case) {
        for (t, (x, quantised)) in case.tokens.iter().zip(&mut case.quantised).enumerate() {
            *quantised = kernels.quantise(x, &mut case.codes[t * case.width..][..case.width]);
        }
    }

    fn output(case: &Case) -> Vec<f32> {
        // A sum in halves, which are exact in `f32`.
        let numbers = |q: &Quantised| [q.scale, (q.sum >> 16) as f32, (q.sum & 0xFFFF) as f32];
        case.codes.iter().map(|code| f32::from(*code)).chain(case.quantised.iter().flat_map(numbers)).collect()
    }

    fn work(shape: &Shape) -> Work {
        let (c, t) = (shape.c as u64, shape.t as u64);
        Work { bytes: 5 * c * t, operations: 4 * c * t }
    }

    fn variant(kernels: &Kernels) -> usize {
        kernels.quantise as usize
    }
}
