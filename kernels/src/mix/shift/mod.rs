//! Token shift: each token's row moved towards the row before it, channel by channel, several ways at once.
//!
//! **Computes** for each of F mixes `out_f = fma(p - h, m_f, h)`, where p is the row before h. The mix is one row for
//! all tokens (RWKV-4, 5 and 7) or a row of the token's own (RWKV-6): `m = base_f + own_f`.
//!
//! **Shapes** h `[T, W]`, the row before the first `[W]`, mixes `[F, W]` and own mixes `[F, T, W]`, out `[F, T, W]`.
//!
//! **Numbers** f32. RWKV-4 and 5 write h·m + p·(1 - m): whoever loads their weights stores 1 - m as the mix, which is
//! rounded by at most 2^-25, and so one formula, with one product fewer, serves all.
//!
//! **Exactness** the same bits everywhere: element-wise.
//!
//! **Cost** 4·T·W bytes read, 4·F·T·W written (twice as many of the token's own mixes); 3 operations for each number
//! written, or 4. The first-level cache gives back h and p for all mixes but the first.
//!
//! **Source** Peng et al., "RWKV" (arXiv 2305.13048), eq. 11; "Eagle and Finch" (arXiv 2404.05892), eq. 5.
//!
//! **Variants** AVX2 (eight at a time, the tail one by one) and AVX-512 (sixteen, masked tail).
//!
//! **Not done** all mixes in one walk over h: F streams that lie a power of two apart contend for the same cache sets.

use crate::probe::{Op, Shape, Work};
use crate::{Kernels, Rng};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

/// How far each channel moves towards the row before, F ways.
#[derive(Clone, Copy, Debug)]
pub enum Mixes<'a> {
    /// `[F, W]`: the same for every token.
    Same(&'a [f32]),
    /// base `[F, W]` plus own `[F, T, W]`.
    Own {
        /// What is common to all tokens.
        base: &'a [f32],
        /// What each token adds.
        own: &'a [f32],
    },
}

/// h, p, m, out, all `[W]`.
pub(crate) type Variant = unsafe fn(&[f32], &[f32], &[f32], &mut [f32]);
/// h, p, base, own, out, all `[W]`.
pub(crate) type OwnVariant = unsafe fn(&[f32], &[f32], &[f32], &[f32], &mut [f32]);

impl Kernels {
    /// Mixes each row of `h` `[T, W]` with the one before it, the first with `before` `[W]`, into `out` `[F, T, W]`.
    /// See [`crate::mix::shift`].
    ///
    /// # Panics
    /// If shapes disagree or W is 0.
    pub fn shift(&self, h: &[f32], before: &[f32], mixes: Mixes<'_>, out: &mut [f32]) {
        let width = before.len();
        assert!(width > 0, "width 0");
        assert!(h.len().is_multiple_of(width), "h [T, {width}] has {} elements", h.len());
        let (base, own) = match mixes {
            Mixes::Same(base) => (base, &[][..]),
            Mixes::Own { base, own } => (base, own),
        };
        assert!(base.len().is_multiple_of(width), "mixes [F, {width}] have {} elements", base.len());
        let (ways, tokens) = (base.len() / width, h.len() / width);
        assert_eq!(out.len(), ways * h.len(), "out [{ways}, {tokens}, {width}]");
        if let Mixes::Own { .. } = mixes {
            assert_eq!(own.len(), out.len(), "own mixes [{ways}, {tokens}, {width}]");
        }
        for t in 0..tokens {
            let p = if t == 0 { before } else { &h[(t - 1) * width..][..width] };
            let row = &h[t * width..][..width];
            for (f, base) in base.chunks_exact(width).enumerate() {
                let at = (f * tokens + t) * width;
                let out = &mut out[at..][..width];
                // SAFETY: this table exists only if the CPU has the variants' features.
                unsafe {
                    match mixes {
                        Mixes::Same(_) => (self.shift)(row, p, base, out),
                        Mixes::Own { .. } => (self.shift_own)(row, p, base, &own[at..][..width], out),
                    }
                }
            }
        }
    }
}

/// The op of one form, for [`OPS`](crate::probe::OPS). A shape is F × W × T.
pub(crate) struct Shift<const OWN: bool>;

/// Rows, mixes and the place for the result.
pub(crate) struct Case {
    h: Vec<f32>,
    before: Vec<f32>,
    base: Vec<f32>,
    own: Vec<f32>,
    out: Vec<f32>,
}

impl<const OWN: bool> Op for Shift<OWN> {
    const NAME: &'static str = if OWN { "mix/shift_own" } else { "mix/shift" };
    type Case = Case;

    fn shapes() -> Vec<Shape> {
        let widths = [1, 7, 8, 9, 15, 16, 17, 31, 33, 768].map(|w| Shape::new(2, w, 3));
        widths.into_iter().chain([(0, 8, 2), (3, 8, 0), (5, 2048, 1)].map(|(f, w, t)| Shape::new(f, w, t))).collect()
    }

    fn model_shapes() -> Vec<Shape> {
        [(5, 2048, 1), (5, 768, 64)].map(|(f, w, t)| Shape::new(f, w, t)).to_vec()
    }

    fn admit(shape: Shape) -> Shape {
        Shape::new(shape.r.min(20), shape.c.max(1), shape.t)
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case {
        let Shape { r: f, c: w, t } = *shape;
        let mut numbers = |n: usize| (0..n).map(|_| rng.normal()).collect::<Vec<f32>>();
        let (h, before, base) = (numbers(t * w), numbers(w), numbers(f * w));
        let own = numbers(if OWN { f * t * w } else { 0 });
        Case { h, before, base, own, out: vec![f32::NAN; f * t * w] }
    }

    fn run(kernels: &Kernels, case: &mut Case) {
        let (base, own) = (&case.base, &case.own);
        let mixes = if OWN { Mixes::Own { base, own } } else { Mixes::Same(base) };
        kernels.shift(&case.h, &case.before, mixes, &mut case.out);
    }

    fn output(case: &Case) -> Vec<f32> {
        case.out.clone()
    }

    fn work(shape: &Shape) -> Work {
        let (f, w, t) = (shape.r as u64, shape.c as u64, shape.t as u64);
        let own = u64::from(OWN);
        Work { bytes: 4 * w * (t + 1 + f) + (4 + 4 * own) * f * t * w, operations: (3 + own) * f * t * w }
    }

    fn variant(kernels: &Kernels) -> usize {
        if OWN { kernels.shift_own as usize } else { kernels.shift as usize }
    }
}
