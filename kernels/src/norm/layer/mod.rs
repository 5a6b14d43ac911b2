//! LayerNorm.
//!
//! **Computes** for each token m = sum(x)/D, v = sum((x - m)^2)/D, `out = ((x - m) * (1 / sqrt(v + eps))) * gain + bias`
//! (the last step a fused multiply-add).
//!
//! **Shapes** x `[T, D]`, gain and bias `[D]`, out `[T, D]`.
//!
//! **Numbers** f32, two passes: no cancellation in the variance. Where a sum overflows (|x - m| near 1.8e19) the row is
//! computed again from x · 2^-80, so every finite row has a finite result.
//!
//! **Exactness** the same bits everywhere: both sums keep the sixteen-lane rule (the first adds, the second
//! multiply-adds), square root and division are IEEE.
//!
//! **Cost** 8·T·D bytes beside gain and bias; 7·T·D operations.
//!
//! **Source** Ba, Kiros and Hinton, "Layer Normalization" (arXiv 1607.06450), eq. 4.
//!
//! **Variants** AVX2: eight lanes twice. AVX-512: sixteen lanes in one register, masked tail.
//!
//! **Not done** one pass (Welford): its order of additions would not be the sixteen lanes'.

use crate::probe::{Op, Shape, Work};
use crate::{Kernels, Rng};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub mod group;
pub(crate) mod scalar;

pub(crate) type Variant = unsafe fn(&[f32], &[f32], &[f32], f32, &mut [f32]);

impl Kernels {
    /// Normalises each row of `x` `[T, D]` into `out`; `gain` and `bias` `[D]`. See [`crate::norm::layer`].
    ///
    /// # Panics
    /// If shapes disagree or D is 0.
    pub fn layer_norm(&self, x: &[f32], gain: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
        assert!(!gain.is_empty(), "width 0");
        assert_eq!(gain.len(), bias.len(), "gain and bias");
        assert!(x.len().is_multiple_of(gain.len()), "x [T, {}] has {} elements", gain.len(), x.len());
        assert_eq!(x.len(), out.len(), "out is as long as x");
        for (x, out) in x.chunks_exact(gain.len()).zip(out.chunks_exact_mut(gain.len())) {
            // SAFETY: this table exists only if the CPU has the variant's features.
            unsafe { (self.layer_norm)(x, gain, bias, eps, out) }
        }
    }
}

/// The op, for [`OPS`](crate::probe::OPS). A shape is 1 × D × T.
pub(crate) struct LayerNorm;

/// Tokens, gains, biases and the place for the result.
pub(crate) struct Case {
    x: Vec<f32>,
    gain: Vec<f32>,
    bias: Vec<f32>,
    out: Vec<f32>,
}

impl Op for LayerNorm {
    const NAME: &'static str = "norm/layer";
    type Case = Case;

    fn shapes() -> Vec<Shape> {
        let widths = [1, 2, 15, 16, 17, 31, 32, 33, 127, 256, 768, 2560];
        widths.into_iter().map(|d| Shape::new(1, d, 1)).chain([Shape::new(1, 67, 0), Shape::new(1, 67, 5)]).collect()
    }

    fn admit(shape: Shape) -> Shape {
        Shape::new(1, shape.c.max(1), shape.t)
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case {
        Case {
            // A mean far from zero, or the first pass would hardly matter.
            x: (0..shape.c * shape.t).map(|_| rng.normal() + 3.0).collect(),
            gain: (0..shape.c).map(|_| rng.normal()).collect(),
            bias: (0..shape.c).map(|_| rng.normal()).collect(),
            out: vec![f32::NAN; shape.c * shape.t],
        }
    }

    fn run(kernels: &Kernels, case: &mut Case) {
        kernels.layer_norm(&case.x, &case.gain, &case.bias, 1e-5, &mut case.out);
    }

    fn output(case: &Case) -> Vec<f32> {
        case.out.clone()
    }

    fn work(shape: &Shape) -> Work {
        let (d, t) = (shape.c as u64, shape.t as u64);
        Work { bytes: 8 * d * t + 8 * d, operations: 7 * d * t }
    }

    fn variant(kernels: &Kernels) -> usize {
        kernels.layer_norm as usize
    }
}
