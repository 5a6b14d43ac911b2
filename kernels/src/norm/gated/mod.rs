//! RMSNorm of gated groups, in place: what Mamba-2 does behind its scan.
//!
//! **Computes** `v = x · silu(z)`, then for each group of `D / G` neighbouring elements of a token
//! `v_i / sqrt(mean(v^2) + eps) · gain_i`. The gate comes first: the norm sees gated values.
//!
//! **Shapes** x `[T, D]`, in place; gate z `[T, D]` with a row stride; gain `[D]`; G divides D.
//!
//! **Numbers** f32; a row whose squares overflow is scaled down first, as in [`crate::norm::rms`].
//!
//! **Exactness** the same bits everywhere: the sum of squares keeps the sixteen-lane rule, silu is that of
//! [`crate::activation`], square root and division are IEEE.
//!
//! **Cost** 12·T·D bytes beside the gain; 24·T·D operations, of which silu is 19.
//!
//! **Source** Dao and Gu, "Transformers are SSMs" (arXiv 2405.21060), section 7.1; `norm_before_gate = False` in the authors'
//! code.
//!
//! **Variants** AVX2: eight elements at a time. AVX-512: sixteen, masked tail. The specification compiled for AVX2 takes
//! 1.35 times as long as the former.

use crate::probe::{Op, Shape, Work};
use crate::{Kernels, Rng, Rows};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

/// One group in place, its gate, its gain, eps.
pub(crate) type Variant = unsafe fn(&mut [f32], &[f32], &[f32], f32);

impl Kernels {
    /// Replaces `x` `[T, D]` by the RMSNorm of `x * silu(gate)` over each of `groups` groups of a row. See
    /// [`crate::norm::gated`].
    ///
    /// # Panics
    /// If shapes disagree, D or the number of groups is 0, or groups do not divide D.
    pub fn gated_rms_norm(&self, x: &mut [f32], gate: Rows<'_>, gain: &[f32], groups: usize, eps: f32) {
        let width = gain.len();
        assert!(width > 0 && groups > 0 && width.is_multiple_of(groups), "{groups} groups of {width}");
        assert!(x.len().is_multiple_of(width), "x [T, {width}] has {} elements", x.len());
        gate.check(x.len() / width, width, "gate");
        let group = width / groups;
        for (t, x) in x.chunks_exact_mut(width).enumerate() {
            let groups = x.chunks_exact_mut(group).zip(gate.row(t, width).chunks_exact(group));
            for ((x, gate), gain) in groups.zip(gain.chunks_exact(group)) {
                // SAFETY: this table exists only if the CPU has the variant's features.
                unsafe { (self.gated_rms_norm)(x, gate, gain, eps) }
            }
        }
    }
}

/// The op, for [`OPS`](crate::probe::OPS). A shape is G × D/G × T.
pub(crate) struct GatedRmsNorm;

/// Tokens, gates and gains, and where the result replaces a copy of the tokens.
pub(crate) struct Case {
    shape: Shape,
    input: Vec<f32>,
    gate: Vec<f32>,
    gain: Vec<f32>,
    x: Vec<f32>,
}

impl Op for GatedRmsNorm {
    const NAME: &'static str = "norm/gated";
    type Case = Case;

    fn shapes() -> Vec<Shape> {
        let widths = [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 127, 256];
        widths
            .into_iter()
            .map(|d| Shape::new(2, d, 3))
            .chain([Shape::new(1, 67, 0)])
            .chain(Self::model_shapes())
            .collect()
    }

    fn model_shapes() -> Vec<Shape> {
        vec![Shape::new(1, 5120, 1), Shape::new(8, 1024, 1)]
    }

    fn admit(shape: Shape) -> Shape {
        Shape::new(shape.r.clamp(1, 9), shape.c.max(1), shape.t)
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case {
        let d = shape.r * shape.c;
        let mut input = Vec::with_capacity(d * shape.t);
        for _ in 0..shape.t {
            // Ordinary tokens, zeros, tokens whose squares overflow.
            let scale = [1.0, 1.0, 1.0, 0.0, 1e30][rng.below(5)];
            input.extend((0..d).map(|_| rng.normal() * scale));
        }
        Case {
            shape: *shape,
            gate: (0..(d + 3) * shape.t).map(|_| rng.normal() * 4.0).collect(),
            gain: (0..d).map(|_| rng.normal()).collect(),
            x: input.clone(),
            input,
        }
    }

    fn run(kernels: &Kernels, case: &mut Case) {
        case.x.copy_from_slice(&case.input);
        let gate = Rows { data: &case.gate, stride: case.gain.len() + 3 };
        kernels.gated_rms_norm(&mut case.x, gate, &case.gain, case.shape.r, 1e-5);
    }

    fn output(case: &Case) -> Vec<f32> {
        case.x.clone()
    }

    fn work(shape: &Shape) -> Work {
        let (d, t) = ((shape.r * shape.c) as u64, shape.t as u64);
        Work { bytes: 12 * d * t + 4 * d, operations: 24 * d * t }
    }

    fn variant(kernels: &Kernels) -> usize {
        kernels.gated_rms_norm as usize
    }
}
