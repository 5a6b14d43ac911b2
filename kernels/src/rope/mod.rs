//! Rotary position embedding.
//!
//! **Computes** for each head and pair i the rotation `(a, b) -> (a cos_i - b sin_i, b cos_i + a sin_i)`, each
//! component one product and one fused multiply-add: `fma(a, cos, -(b sin))` and `fma(b, cos, a sin)`.
//!
//! **Shapes** x `[H, K]` in place; cos and sin `[K / 2]` of one position. A pair is (i, i + K/2) in the half-split form
//! (Hugging Face, NEOX) and (2i, 2i + 1) in the interleaved form (the paper, llama2.c, GGUF llama).
//!
//! **Numbers** f32; a rotation enlarges no component beyond sqrt 2 times the larger of its pair.
//!
//! **Exactness** the same bits everywhere: element-wise.
//!
//! **Cost** 8·H·K bytes; 3·H·K operations.
//!
//! **Source** Su et al., "RoFormer" (arXiv 2104.09864), eq. 34.
//!
//! **Variants** AVX2 and AVX-512. The half-split form loads both components of eight or sixteen pairs; the interleaved
//! form swaps neighbours in a register and subtracts in even lanes where it adds in odd ones.
//!
//! **Not done** computing the angles: the caller keeps a table of them.

use crate::probe::{Op, Shape, Work};
use crate::{Kernels, Rng};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

/// x `[H, K]`, cos `[K / 2]`, sin `[K / 2]`.
pub(crate) type Variant = unsafe fn(&mut [f32], &[f32], &[f32]);

/// Which elements of a head form a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pairs {
    /// (i, i + K/2).
    HalfSplit,
    /// (2i, 2i + 1).
    Interleaved,
}

impl Kernels {
    /// Rotates each head of `x` `[H, K]` by the angles whose cosines and sines are given, `[K / 2]`. See [`crate::rope`].
    ///
    /// # Panics
    /// If shapes disagree.
    pub fn rope(&self, pairs: Pairs, x: &mut [f32], cos: &[f32], sin: &[f32]) {
        assert_eq!(cos.len(), sin.len(), "cosines and sines");
        if x.is_empty() {
            return;
        }
        assert!(!cos.is_empty() && x.len().is_multiple_of(2 * cos.len()), "x [H, {}]: {}", 2 * cos.len(), x.len());
        let variant = match pairs {
            Pairs::HalfSplit => self.rope_half,
            Pairs::Interleaved => self.rope_interleaved,
        };
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { variant(x, cos, sin) }
    }
}

/// The op of one form, for [`OPS`](crate::probe::OPS). A shape is H × K × 1.
pub(crate) struct Rope<const INTERLEAVED: bool>;

/// Heads and angles, and where the heads are rotated.
pub(crate) struct Case {
    heads: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
    x: Vec<f32>,
}

impl<const INTERLEAVED: bool> Op for Rope<INTERLEAVED> {
    const NAME: &'static str = if INTERLEAVED { "rope/interleaved" } else { "rope/half_split" };
    type Case = Case;

    fn shapes() -> Vec<Shape> {
        let widths = [2, 4, 6, 8, 10, 14, 16, 18, 30, 32, 34, 62, 64, 66, 100, 128];
        let heads = [(0, 8), (4, 48), (5, 128), (20, 128), (32, 100)];
        widths.into_iter().map(|k| (1, k)).chain(heads).map(|(h, k)| Shape::new(h, k, 1)).collect()
    }

    fn admit(shape: Shape) -> Shape {
        Shape::new(shape.r, (shape.c / 2 * 2).max(2), 1)
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case {
        // Points of the circle by the rational parametrisation: no function that differs between machines.
        let (cos, sin) = (0..shape.c / 2)
            .map(|_| {
                let t = rng.normal();
                ((1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t))
            })
            .unzip();
        let heads: Vec<f32> = (0..shape.r * shape.c).map(|_| rng.normal()).collect();
        Case { x: heads.clone(), heads, cos, sin }
    }

    fn run(kernels: &Kernels, case: &mut Case) {
        case.x.copy_from_slice(&case.heads);
        let pairs = if INTERLEAVED { Pairs::Interleaved } else { Pairs::HalfSplit };
        kernels.rope(pairs, &mut case.x, &case.cos, &case.sin);
    }

    fn output(case: &Case) -> Vec<f32> {
        case.x.clone()
    }

    fn work(shape: &Shape) -> Work {
        let n = (shape.r * shape.c) as u64;
        Work { bytes: 8 * n + 4 * shape.c as u64, operations: 3 * n }
    }

    fn variant(kernels: &Kernels) -> usize {
        if INTERLEAVED { kernels.rope_interleaved as usize } else { kernels.rope_half as usize }
    }
}
