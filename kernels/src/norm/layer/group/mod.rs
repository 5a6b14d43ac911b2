//! Group norm: LayerNorm of each head apart.
//!
//! **Computes** for each token and each group of N numbers what [`crate::norm::layer`] computes, with the group's own
//! slice of gain and bias.
//!
//! **Shapes** x and out `[T, H, N]`, gain and bias `[H, N]`.
//!
//! **Numbers** those of [`crate::norm::layer`].
//!
//! **Exactness** that of [`crate::norm::layer`]: the sixteen-lane rule within a group.
//!
//! **Cost** 8·T·H·N bytes beside gain and bias; 7·T·H·N operations. A group of 64 is so short that the latency of its
//! two folds, root and division counts; groups overlap.
//!
//! **Source** Wu and He, "Group Normalization" (arXiv 1803.08494), eq. 2, over a position's own channels.
//!
//! **Variants** those of [`crate::norm::layer`].

use crate::probe::{Op, Shape, Work};
use crate::{Kernels, Rng};

impl Kernels {
    /// Normalises each group of `width` numbers of each row of `x` `[T, H, N]` into `out`; `gain` and `bias` `[H, N]`.
    /// See [`crate::norm::layer::group`].
    ///
    /// # Panics
    /// If shapes disagree or N, H or both are 0.
    pub fn group_norm(&self, x: &[f32], width: usize, gain: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
        let row = gain.len();
        assert!(width > 0 && row > 0 && row.is_multiple_of(width), "gain [H, {width}] has {row} elements");
        assert_eq!(row, bias.len(), "gain and bias");
        assert!(x.len().is_multiple_of(row), "x [T, {row}] has {} elements", x.len());
        assert_eq!(x.len(), out.len(), "out is as long as x");
        for (x, out) in x.chunks_exact(row).zip(out.chunks_exact_mut(row)) {
            let groups = x.chunks_exact(width).zip(out.chunks_exact_mut(width));
            for ((x, out), (gain, bias)) in groups.zip(gain.chunks_exact(width).zip(bias.chunks_exact(width))) {
                // SAFETY: this table exists only if the CPU has the variant's features.
                unsafe { (self.layer_norm)(x, gain, bias, eps, out) }
            }
        }
    }
}

/// The op, for [`OPS`](crate::probe::OPS). A shape is H × N × T.
pub(crate) struct GroupNorm;

/// Tokens, gains, biases and the place for the result.
pub(crate) struct Case {
    width: usize,
    x: Vec<f32>,
    gain: Vec<f32>,
    bias: Vec<f32>,
    out: Vec<f32>,
}

impl Op for GroupNorm {
    const NAME: &'static str = "norm/group";
    type Case = Case;

    fn shapes() -> Vec<Shape> {
        let widths = [1, 15, 16, 17, 33, 64].map(|n| Shape::new(3, n, 2));
        widths.into_iter().chain([Shape::new(2, 8, 0), Shape::new(32, 64, 1), Shape::new(32, 64, 16)]).collect()
    }

    fn admit(shape: Shape) -> Shape {
        Shape::new(shape.r.max(1), shape.c.max(1), shape.t)
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case {
        let row = shape.r * shape.c;
        Case {
            width: shape.c,
            // A mean far from zero, or the first pass would hardly matter.
            x: (0..row * shape.t).map(|_| rng.normal() + 3.0).collect(),
            gain: (0..row).map(|_| rng.normal()).collect(),
            bias: (0..row).map(|_| rng.normal()).collect(),
            out: vec![f32::NAN; row * shape.t],
        }
    }

    fn run(kernels: &Kernels, case: &mut Case) {
        kernels.group_norm(&case.x, case.width, &case.gain, &case.bias, 64e-5, &mut case.out);
    }

    fn output(case: &Case) -> Vec<f32> {
        case.out.clone()
    }

    fn work(shape: &Shape) -> Work {
        let (row, t) = ((shape.r * shape.c) as u64, shape.t as u64);
        Work { bytes: 8 * row * t + 8 * row, operations: 7 * row * t }
    }

    fn variant(kernels: &Kernels) -> usize {
        kernels.layer_norm as usize
    }
}
