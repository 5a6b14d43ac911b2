//! Dense product of bf16 weights and bf16 activations by the instruction for it: two products a lane and instruction.
//!
//! **Computes** `out[r, t] = sum over c of w[r, c] * x[t, c]`.
//!
//! **Shapes** w `[R, C]`, x `[T, C]`, out `[R, T]`.
//!
//! **Numbers** Both operands are bf16, sums f32. Columns 2 i and 2 i + 1 of every 32 belong to lane i, the odd one is added
//! first; a row is filled up with zeros to a multiple of 32. A product of two bf16 has 16 bits and is exact in f32, so
//! each addition rounds once, to nearest, ties to even. Subnormal operands, sums and results count as zero of their
//! sign, whatever the CPU is set to. Sixteen lanes are folded as everywhere.
//!
//! **Exactness** a tolerance of 0.01 on sums of up to 2560 products of numbers near 1. The specification is Intel's manual
//! to the letter, and an emulated Sapphire Rapids gives its bits. But CPUs of another maker may order the two additions of
//! a pair otherwise: each of them is off by half of the last place then, in partial sums of a lane below 2^7 by 2^-18.
//!
//! **Cost** 2·R·C bytes of weights; 2·R·C·T operations.
//!
//! **Source** Intel, Instruction Set Extensions Programming Reference, VDPBF16PS.
//!
//! **Variants** AVX-512 with BF16 (Cooper Lake, Sapphire Rapids, Zen 4): `vdpbf16ps`, eight rows far apart for one token,
//! blocks of four rows and six tokens for many. The level AVX-512 does not promise that feature: where a CPU lacks it,
//! every level holds the specification and [`Op::missing`] says so. `dense/bf16` keeps activations in f32 and needs no such
//! instruction.
//!
//! **Not done** timing, which so far no machine with the feature was there for; models that use it: activations would have
//! to be rounded to bf16, other numbers than those of `dense/bf16`.

use crate::Kernels;
use crate::Rng;
use crate::probe::{Op, Shape, Tolerance, Work};
use half::bf16;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

/// w `[R, C]`, x `[T, C]`, C, out `[R, T]`.
pub(crate) type Variant = unsafe fn(&[bf16], &[bf16], usize, &mut [f32]);

/// Whether this CPU has bf16 arithmetic, which no level promises.
fn is_available() -> bool {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    return is_x86_feature_detected!("avx512bf16");
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    return false;
}

impl Kernels {
    /// `out = w · x^T`, both bf16: w `[R, cols]`, x `[T, cols]`, out `[R, T]`. See [`crate::dense::bf16_dp`].
    ///
    /// # Panics
    /// If shapes disagree or `cols` is 0.
    pub fn dense_bf16_dp_matmul(&self, weights: &[bf16], x: &[bf16], cols: usize, out: &mut [f32]) {
        assert!(cols > 0, "0 columns");
        assert!(weights.len().is_multiple_of(cols), "weights [R, {cols}] have {} elements", weights.len());
        assert!(x.len().is_multiple_of(cols), "x [T, {cols}] has {} elements", x.len());
        let (rows, tokens) = (weights.len() / cols, x.len() / cols);
        assert_eq!(out.len(), rows * tokens, "out [{rows}, {tokens}]");
        if out.is_empty() {
            return;
        }
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { (self.dense_bf16_dp)(weights, x, cols, out) }
    }
}

/// The op. A shape is R × C × T.
pub(crate) struct Bf16Dp;

/// Weights, tokens and the place for the products.
pub(crate) struct Case {
    cols: usize,
    weights: Vec<bf16>,
    x: Vec<bf16>,
    out: Vec<f32>,
}

impl Op for Bf16Dp {
    const NAME: &'static str = "dense/bf16_dp";
    const TOLERANCE: Tolerance =
        Tolerance::Absolute(0.01, "makers of CPUs may order the two additions of a pair of products differently");
    type Case = Case;

    fn missing() -> Option<&'static str> {
        (!is_available()).then_some("this CPU has no bf16 arithmetic (avx512_bf16)")
    }

    fn shapes() -> Vec<Shape> {
        // Boundaries: 32 columns; up to eight rows and six tokens a block.
        let mut shapes = Vec::new();
        for r in [0, 1, 2, 3, 4, 7, 8, 9, 17] {
            for c in [1, 2, 15, 31, 32, 33, 63, 65, 100] {
                shapes.push(Shape::new(r, c, 1));
            }
        }
        for t in [0, 2, 3, 4, 5, 6, 7, 8, 12, 13, 25] {
            shapes.extend([Shape::new(13, 37, t), Shape::new(24, 96, t)]);
        }
        shapes.extend([Shape::new(1024, 256, 1), Shape::new(256, 2560, 1), Shape::new(256, 256, 64)]);
        shapes
    }

    fn model_shapes() -> Vec<Shape> {
        [(2048, 256, 1), (2560, 2560, 1), (256, 256, 128), (2560, 2560, 16), (32064, 2560, 1)]
            .map(|(r, c, t)| Shape::new(r, c, t))
            .to_vec()
    }

    fn admit(shape: Shape) -> Shape {
        Shape::new(shape.r, shape.c.max(1), shape.t)
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case {
        // Some so small that they or their products are flushed.
        let mut number = || bf16::from_f32(rng.normal() * [1.0, 1.0, 1e-20, 1e-39][rng.below(4)]);
        Case {
            cols: shape.c,
            weights: (0..shape.r * shape.c).map(|_| number()).collect(),
            x: (0..shape.t * shape.c).map(|_| number()).collect(),
            out: vec![f32::NAN; shape.r * shape.t],
        }
    }

    fn run(kernels: &Kernels, case: &mut Case) {
        kernels.dense_bf16_dp_matmul(&case.weights, &case.x, case.cols, &mut case.out);
    }

    fn output(case: &Case) -> Vec<f32> {
        case.out.clone()
    }

    fn work(shape: &Shape) -> Work {
        let (r, c, t) = (shape.r as u64, shape.c as u64, shape.t as u64);
        Work { bytes: 2 * r * c + 2 * c * t + 4 * r * t, operations: 2 * r * c * t }
    }

    fn variant(kernels: &Kernels) -> usize {
        let held = if is_available() { kernels.dense_bf16_dp } else { scalar::matmul };
        held as usize
    }
}
