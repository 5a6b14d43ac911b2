//! Rows made to be of length 1.
//!
//! **Computes** for each row `x = x * (1 / max(sqrt(sum(x^2)), 1e-12))`, in place.
//!
//! **Shapes** x `[R, N]`.
//!
//! **Numbers** f32; where the sum of squares overflows (|x| near 1.8e19) the row is computed again from x · 2^-80, so
//! every finite row has a finite result.
//!
//! **Exactness** the same bits everywhere: the sum keeps the sixteen-lane rule, square root and division are IEEE.
//!
//! **Cost** 8·R·N bytes; 3·R·N operations.
//!
//! **Source** Peng et al., "RWKV-7 Goose" (arXiv 2503.14456), which normalises the removal key of each head so; the
//! least divisor is that of PyTorch's `normalize`.
//!
//! **Variants** AVX2: eight lanes twice. AVX-512: sixteen lanes in one register, masked tail.

use crate::probe::{Op, Shape, Work};
use crate::{Kernels, Rng};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

/// The smallest length that is divided by.
pub const LEAST: f32 = 1e-12;

pub(crate) type Variant = unsafe fn(&mut [f32]);

impl Kernels {
    /// Divides each row of `x` `[R, N]` by its length. See [`crate::norm::unit`].
    ///
    /// # Panics
    /// If `width`, N, is 0 or x has no whole rows.
    pub fn unit_norm(&self, x: &mut [f32], width: usize) {
        assert!(width > 0 && x.len().is_multiple_of(width), "x [R, {width}] has {} elements", x.len());
        for x in x.chunks_exact_mut(width) {
            // SAFETY: this table exists only if the CPU has the variant's features.
            unsafe { (self.unit_norm)(x) }
        }
    }
}

/// The op, for [`OPS`](crate::probe::OPS). A shape is R × N × 1.
pub(crate) struct UnitNorm;

/// Rows, and where they become shorter or longer.
pub(crate) struct Case {
    width: usize,
    rows: Vec<f32>,
    x: Vec<f32>,
}

impl Op for UnitNorm {
    const NAME: &'static str = "norm/unit";
    type Case = Case;

    fn shapes() -> Vec<Shape> {
        let widths = [1, 2, 7, 8, 15, 16, 17, 31, 33, 64, 100].map(|n| Shape::new(3, n, 1));
        widths.into_iter().chain([Shape::new(0, 8, 1), Shape::new(32, 64, 1), Shape::new(512, 64, 1)]).collect()
    }

    fn admit(shape: Shape) -> Shape {
        Shape::new(shape.r, shape.c.max(1), 1)
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case {
        let mut rows: Vec<f32> = (0..shape.r * shape.c).map(|_| rng.normal()).collect();
        // One row too short to be divided by its length and one whose squares overflow.
        if let [short, long, _, ..] = rows.chunks_exact_mut(shape.c).collect::<Vec<_>>().as_mut_slice() {
            short.iter_mut().for_each(|x| *x *= 1e-20);
            long.iter_mut().for_each(|x| *x *= 1e30);
        }
        Case { width: shape.c, x: rows.clone(), rows }
    }

    fn run(kernels: &Kernels, case: &mut Case) {
        case.x.copy_from_slice(&case.rows);
        kernels.unit_norm(&mut case.x, case.width);
    }

    fn output(case: &Case) -> Vec<f32> {
        case.x.clone()
    }

    fn work(shape: &Shape) -> Work {
        let n = (shape.r * shape.c) as u64;
        Work { bytes: 8 * n, operations: 3 * n }
    }

    fn variant(kernels: &Kernels) -> usize {
        kernels.unit_norm as usize
    }
}
