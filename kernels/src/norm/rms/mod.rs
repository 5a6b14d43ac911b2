//! RMSNorm.
//!
//! **Computes** for each token `out = (x * (1 / sqrt(sum(x^2) / D + eps))) * gain`.
//!
//! **Shapes** x `[T, D]`, gain `[D]`, out `[T, D]`.
//!
//! **Numbers** f32; where the sum of squares overflows (|x| near 1.8e19) the row is computed again from x · 2^-80, so every
//! finite row has a finite result.
//!
//! **Exactness** the same bits everywhere: the sum keeps the sixteen-lane rule, square root and division are IEEE.
//!
//! **Cost** 8·T·D bytes beside the gain; 4·T·D operations.
//!
//! **Source** Zhang and Sennrich, "Root Mean Square Layer Normalization" (arXiv 1910.07467), eq. 4.
//!
//! **Variants** AVX2: eight lanes twice. AVX-512: sixteen lanes in one register, masked tail. Joined with the quantisation
//! that follows it in a BitLinear: [`crate::norm::rms_quantise`].

use crate::probe::{Op, Shape, Work};
use crate::{Kernels, Rng};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

pub(crate) type Variant = unsafe fn(&[f32], &[f32], f32, &mut [f32]);

impl Kernels {
    /// Normalises each row of `x` `[T, D]` into `out`; `gain` `[D]`. See [`crate::norm::rms`].
    ///
    /// # Panics
    /// If shapes disagree or D is 0.
    pub fn rms_norm(&self, x: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) {
        assert!(!gain.is_empty(), "width 0");
        assert!(x.len().is_multiple_of(gain.len()), "x [T, {}] has {} elements", gain.len(), x.len());
        assert_eq!(x.len(), out.len(), "out is as long as x");
        for (x, out) in x.chunks_exact(gain.len()).zip(out.chunks_exact_mut(gain.len())) {
            // SAFETY: this table exists only if the CPU has the variant's features.
            unsafe { (self.rms_norm)(x, gain, eps, out) }
        }
    }
}

/// The op, for [`OPS`](crate::probe::OPS). A shape is 1 × D × T.
pub(crate) struct RmsNorm;

/// Tokens, gains and the place for the result.
pub(crate) struct Case {
    x: Vec<f32>,
    gain: Vec<f32>,
    out: Vec<f32>,
}

impl Op for RmsNorm {
    const NAME: &'static str = "norm/rms";
    type Case = Case;

    fn shapes() -> Vec<Shape> {
        let widths = [1, 2, 15, 16, 17, 31, 32, 33, 127, 256, 2560, 6912];
        widths.into_iter().map(|d| Shape::new(1, d, 1)).chain([Shape::new(1, 67, 0), Shape::new(1, 67, 5)]).collect()
    }

    fn admit(shape: Shape) -> Shape {
        Shape::new(1, shape.c.max(1), shape.t)
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case {
        Case {
            x: (0..shape.c * shape.t).map(|_| rng.normal()).collect(),
            gain: (0..shape.c).map(|_| rng.normal()).collect(),
            out: vec![f32::NAN; shape.c * shape.t],
        }
    }

    fn run(kernels: &Kernels, case: &mut Case) {
        kernels.rms_norm(&case.x, &case.gain, 1e-5, &mut case.out);
    }

    fn output(case: &Case) -> Vec<f32> {
        case.out.clone()
    }

    fn work(shape: &Shape) -> Work {
        let (d, t) = (shape.c as u64, shape.t as u64);
        Work { bytes: 8 * d * t + 4 * d, operations: 4 * d * t }
    }

    fn variant(kernels: &Kernels) -> usize {
        kernels.rms_norm as usize
    }
}
