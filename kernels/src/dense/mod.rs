//! Dense product: f32, bf16 or f16 weights and f32 activations.
//!
//! **Computes** `out[r, t] = sum over c of w[r, c] * x[t, c]`.
//!
//! **Shapes** w `[R, C]`, x `[T, C]`, out `[R, T]`.
//!
//! **Numbers** f32; stored weights widen exactly.
//!
//! **Exactness** the same bits everywhere: each output is one sixteen-lane sum of fused multiply-adds.
//!
//! **Cost** R·C times the weight's bytes; 2·R·C·T operations.
//!
//! **Variants** AVX-512: one register of sixteen lanes a product; one token walks eight rows far apart as memory
//! streams of their own, more take blocks of four rows and six tokens; sums are folded four at a time. AVX2: two
//! registers a product, four rows far apart with their sums folded together, blocks of three rows and two tokens; from
//! twenty tokens on panels (`panel.rs`): weights are widened once for all tokens, and the sixteen lanes of every
//! product wait between two pieces of columns.
//!
//! **Tried and dropped** blocks of two, six and eight rows (10 to 30 % slower than four: activations come from the
//! second-level cache, weights pay for widening); prefetching in blocks of many tokens (5 % slower). In panels: tokens
//! read where they lie (a third slower where their rows are a multiple of 4 KiB apart); prefetches of the tokens' next
//! piece and of sums (no difference).
//!
//! **Not done** bf16 arithmetic, which wants activations in bf16 (`dense/bf16_dp`).

use crate::probe::{Op, Shape, Work};
use crate::{Element, Kernels, Rng};
use std::marker::PhantomData;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub mod bf16_dp;
pub mod int8;
#[cfg(target_arch = "x86_64")]
pub(crate) mod panel;
pub(crate) mod scalar;

/// w `[R, C]`, x `[T, C]`, C, out `[R, T]`.
pub(crate) type Variant<E> = unsafe fn(&[E], &[f32], usize, &mut [f32]);

impl Kernels {
    /// `out = w · x^T`: w `[R, cols]`, x `[T, cols]`, out `[R, T]`. See [`crate::dense`].
    ///
    /// # Panics
    /// If shapes disagree or `cols` is 0.
    pub fn dense_matmul<E: Element>(&self, weights: &[E], x: &[f32], cols: usize, out: &mut [f32]) {
        assert!(cols > 0, "0 columns");
        assert!(weights.len().is_multiple_of(cols), "weights [R, {cols}] have {} elements", weights.len());
        assert!(x.len().is_multiple_of(cols), "x [T, {cols}] has {} elements", x.len());
        assert_eq!(
            out.len(),
            weights.len() / cols * (x.len() / cols),
            "out [{}, {}]",
            weights.len() / cols,
            x.len() / cols
        );
        if out.is_empty() {
            return;
        }
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { E::dense(self)(weights, x, cols, out) }
    }
}

/// The op for one format of weights, for [`OPS`](crate::probe::OPS). A shape is R × C × T.
pub(crate) struct Dense<E>(PhantomData<E>);

/// Weights, tokens and the place for the products.
pub(crate) struct Case<E> {
    cols: usize,
    weights: Vec<E>,
    x: Vec<f32>,
    out: Vec<f32>,
}

impl<E: Element> Op for Dense<E> {
    const NAME: &'static str = match E::NAME.as_bytes() {
        b"f32" => "dense/f32",
        b"bf16" => "dense/bf16",
        b"f16" => "dense/f16",
        _ => panic!("a format without a name for its op"),
    };
    type Case = Case<E>;

    fn shapes() -> Vec<Shape> {
        // Boundaries: 16 lanes; up to eight rows and six tokens a block; in panels 8 of 128 rows, 512 columns, 48
        // tokens.
        let mut shapes = Vec::new();
        for r in [0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31] {
            for c in [1, 8, 15, 16, 17, 31, 33, 64, 100] {
                shapes.push(Shape::new(r, c, 1));
            }
        }
        for t in [0, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 25] {
            shapes.extend([Shape::new(13, 37, t), Shape::new(24, 48, t)]);
        }
        shapes.extend(
            [(3, 16, 20), (66, 37, 19), (130, 37, 22), (9, 530, 21), (5, 48, 49), (3, 1030, 97)]
                .map(|(r, c, t)| Shape::new(r, c, t)),
        );
        shapes.extend([Shape::new(1024, 256, 1), Shape::new(256, 2560, 1), Shape::new(256, 256, 64)]);
        shapes
    }

    fn model_shapes() -> Vec<Shape> {
        // The last is a quarter of a large model's head: far beyond every cache.
        [(2048, 256, 1), (2560, 2560, 1), (256, 256, 128), (2560, 2560, 16), (32064, 2560, 1)]
            .map(|(r, c, t)| Shape::new(r, c, t))
            .to_vec()
    }

    fn admit(shape: Shape) -> Shape {
        Shape::new(shape.r, shape.c.max(1), shape.t)
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case<E> {
        // Sizes far apart, so that the order of additions shows in the bits and small formats have subnormals.
        let mut number = || rng.normal() * [1.0, 1e-3, 1e-6, 1e3][rng.below(4)];
        Case {
            cols: shape.c,
            weights: (0..shape.r * shape.c).map(|_| E::narrow(number())).collect(),
            x: (0..shape.t * shape.c).map(|_| number()).collect(),
            out: vec![f32::NAN; shape.r * shape.t],
        }
    }

    fn run(kernels: &Kernels, case: &mut Case<E>) {
        kernels.dense_matmul(&case.weights, &case.x, case.cols, &mut case.out);
    }

    fn output(case: &Case<E>) -> Vec<f32> {
        case.out.clone()
    }

    fn work(shape: &Shape) -> Work {
        let (r, c, t) = (shape.r as u64, shape.c as u64, shape.t as u64);
        Work { bytes: r * c * size_of::<E>() as u64 + 4 * c * t + 4 * r * t, operations: 2 * r * c * t }
    }

    fn variant(kernels: &Kernels) -> usize {
        E::dense(kernels) as usize
    }
}
