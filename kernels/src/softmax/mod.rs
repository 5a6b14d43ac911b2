//! Softmax.
//!
//! **Computes** `x = exp(x - max x) / sum`, in place; the quotient is a product with 1 / sum.
//!
//! **Shapes** x `[n]`, n >= 1.
//!
//! **Numbers** f32; the largest term is 1, so the sum is in 1..=n. -inf becomes 0. NaN spreads to all, and so does what
//! has no softmax: a row of -inf alone, or one with +inf. Terms below e^-86.9 of the largest are 0.
//!
//! **Exactness** the same bits everywhere: our own exp, the sum by the sixteen-lane rule.
//!
//! **Cost** 8·n bytes; about 16·n operations.
//!
//! **Source** Bridle (1990); the maximum is subtracted so that nothing overflows.
//!
//! **Variants** AVX2: eight lanes twice. AVX-512: sixteen lanes in one register, masked tail. Both find the maximum in a
//! pass of its own, in any order: it makes no difference.
//!
//! **Not done** keeping a running maximum (online softmax): it would make the bits depend on the block size.

use crate::probe::{Op, Shape, Work};
use crate::{Kernels, Rng};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

pub(crate) type Variant = unsafe fn(&mut [f32]);

impl Kernels {
    /// Softmax in place. See [`crate::softmax`].
    pub fn softmax(&self, x: &mut [f32]) {
        if x.is_empty() {
            return;
        }
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { (self.softmax)(x) }
    }
}

/// The op, for [`OPS`](crate::probe::OPS). A shape is 1 × n × 1.
pub(crate) struct Softmax;

/// Scores, and where they become probabilities.
pub(crate) struct Case {
    scores: Vec<f32>,
    x: Vec<f32>,
}

impl Op for Softmax {
    const NAME: &'static str = "softmax";
    type Case = Case;

    fn shapes() -> Vec<Shape> {
        let lengths = [0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 131, 512, 2048, 32000, 128_256];
        lengths.into_iter().map(|n| Shape::new(1, n, 1)).collect()
    }

    fn admit(shape: Shape) -> Shape {
        Shape::new(1, shape.c, 1)
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case {
        let mut scores: Vec<f32> = (0..shape.c).map(|_| rng.normal() * 8.0).collect();
        // One masked position, as samplers leave them, and one far below all.
        if let [_, masked, far, ..] = scores.as_mut_slice() {
            (*masked, *far) = (f32::NEG_INFINITY, -200.0);
        }
        Case { x: scores.clone(), scores }
    }

    fn run(kernels: &Kernels, case: &mut Case) {
        case.x.copy_from_slice(&case.scores);
        kernels.softmax(&mut case.x);
    }

    fn output(case: &Case) -> Vec<f32> {
        case.x.clone()
    }

    fn work(shape: &Shape) -> Work {
        Work { bytes: 8 * shape.c as u64, operations: 16 * shape.c as u64 }
    }

    fn variant(kernels: &Kernels) -> usize {
        kernels.softmax as usize
    }
}
