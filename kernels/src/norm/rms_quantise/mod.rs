//! RMSNorm and absmax int8 in one op: what a BitLinear with a norm does before its product.
//!
//! **Computes** what [`crate::norm::rms`] and then [`crate::quantise`] compute for one token.
//!
//! **Shapes** x and gain `[D]`; codes `[stride]` with stride >= D, zero from D on.
//!
//! **Numbers** as both: a finite row never overflows, and |sum| <= 128·D is inside 32 bits for D < 2^24.
//!
//! **Exactness** the bits of the two ops, everywhere: the normalised row is computed twice with the same roundings, once
//! for its maximum and once for the codes, and never stored.
//!
//! **Cost** 8·D bytes read, D written; about 8·D operations, of which 2·D are done twice.
//!
//! **Source** BitNet b1.58 (arXiv 2402.17764); Hugging Face `BitLinear` with `use_rms_norm`.
//!
//! **Variants** AVX2: eight numbers at a time, the tail one by one. AVX-512: sixteen, masked tail. In the first-level
//! cache the two ops take AVX2 1.2 to 1.4 times as long.

use crate::probe::{Op, Shape, Work};
use crate::quantise::Quantised;
use crate::{Kernels, Rng};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

pub(crate) type Variant = unsafe fn(&[f32], &[f32], f32, &mut [i8]) -> Quantised;

impl Kernels {
    /// Normalises one token x `[D]` with `gain` `[D]` and quantises the result. See [`crate::norm::rms_quantise`].
    ///
    /// # Panics
    /// If shapes disagree, or D is 0 or at least 2^24.
    pub fn rms_quantise(&self, x: &[f32], gain: &[f32], eps: f32, codes: &mut [i8]) -> Quantised {
        assert!(!gain.is_empty(), "width 0");
        assert_eq!(x.len(), gain.len(), "x and gain");
        assert!(codes.len() >= x.len(), "{} codes for {} activations", codes.len(), x.len());
        assert!(x.len() < 1 << 24, "{} codes could overflow a 32-bit sum", x.len());
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { (self.rms_quantise)(x, gain, eps, codes) }
    }
}

/// The op, for [`OPS`](crate::probe::OPS). A shape is 1 × D × T.
pub(crate) struct RmsQuantise;

/// Tokens, gains and the places for codes, scales and sums.
pub(crate) struct Case {
    stride: usize,
    x: Vec<f32>,
    gain: Vec<f32>,
    codes: Vec<i8>,
    quantised: Vec<Quantised>,
}

impl Op for RmsQuantise {
    const NAME: &'static str = "norm/rms_quantise";
    type Case = Case;

    fn shapes() -> Vec<Shape> {
        let widths = [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 256, 1000];
        widths.into_iter().map(|d| Shape::new(1, d, 8)).chain(Self::model_shapes()).collect()
    }

    fn model_shapes() -> Vec<Shape> {
        vec![Shape::new(1, 2560, 1), Shape::new(1, 6912, 1)]
    }

    fn admit(shape: Shape) -> Shape {
        Shape::new(1, shape.c.max(1), shape.t)
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case {
        let mut x = Vec::with_capacity(shape.c * shape.t);
        for _ in 0..shape.t {
            // Ordinary tokens, zeros, tiny ones, tokens whose squares overflow, tokens with a NaN.
            let kind = rng.below(8);
            let odd = rng.below(shape.c);
            x.extend((0..shape.c).map(|i| match kind {
                0 => 0.0,
                1 => rng.normal() * 1e-20,
                2 => rng.normal() * 1e30,
                3 if i == odd => f32::NAN,
                _ => rng.normal(),
            }));
        }
        let stride = shape.c.next_multiple_of(64);
        Case {
            stride,
            x,
            gain: (0..shape.c).map(|_| rng.normal()).collect(),
            codes: vec![0x55; stride * shape.t],
            quantised: vec![Quantised { scale: f32::NAN, sum: i32::MIN }; shape.t],
        }
    }

    fn run(kernels: &Kernels, case: &mut Case) {
        let tokens = case.x.chunks_exact(case.gain.len()).zip(case.codes.chunks_exact_mut(case.stride));
        for ((x, codes), quantised) in tokens.zip(&mut case.quantised) {
            *quantised = kernels.rms_quantise(x, &case.gain, 1e-5, codes);
        }
    }

    fn output(case: &Case) -> Vec<f32> {
        // A sum in halves, which are exact in `f32`.
        let numbers = |q: &Quantised| [q.scale, (q.sum >> 16) as f32, (q.sum & 0xFFFF) as f32];
        case.codes.iter().map(|code| f32::from(*code)).chain(case.quantised.iter().flat_map(numbers)).collect()
    }

    fn work(shape: &Shape) -> Work {
        let (d, t) = (shape.c as u64, shape.t as u64);
        Work { bytes: 5 * d * t + 4 * d, operations: 8 * d * t }
    }

    fn variant(kernels: &Kernels) -> usize {
        kernels.rms_quantise as usize
    }
}
