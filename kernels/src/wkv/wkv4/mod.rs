//! The recurrence of RWKV-4: an exponentially decaying mean of values, weighted by exponentials of keys.
//!
//! **Computes** for each channel and token, with the state aa, bb and pp (numerator and denominator, both times e^-pp):
//! q = max(pp, u + k); out = (e^(pp-q) aa + e^(u+k-q) v) / (e^(pp-q) bb + e^(u+k-q)); then q' = max(pp + w, k);
//! aa = e^(pp+w-q') aa + e^(k-q') v, bb likewise with 1 for v, pp = q'. Of each pair of exponentials one is e^0.
//!
//! **Shapes** k, v and out `[T, W]` with a stride; w (that is -exp(time_decay)) and u `[W]`; aa, bb and pp `[W]`. A
//! sequence starts with aa = bb = 0 and pp = [`START`].
//!
//! **Numbers** f32. Exponents are at most 0, so nothing overflows: |aa| <= max|v| · bb, and 1 <= bb or it was never
//! met.
//!
//! **Exactness** the same bits everywhere: our own exp, element-wise; sums of two products as one product and one fused
//! multiply-add: `fma(e^(u+k-q), v, e^(pp-q) aa)`, `fma(e^(pp-q), bb, e^(u+k-q))`, and the same for the new state.
//!
//! **Cost** 12·T·W bytes, 32·W of state and weights; two exponentials, one division, about 60 operations.
//!
//! **Source** Peng et al., "RWKV: Reinventing RNNs for the Transformer Era" (arXiv 2305.13048), appendix D.
//!
//! **Variants** AVX2 and AVX-512: eight or sixteen channels of a token at a time. Both exponentials of a channel are
//! computed side by side, a fifth faster than each where it is needed.
//!
//! **Not done** keeping the state of a few channels in registers while all tokens pass: the rows of a batch would be
//! walked by columns, and loads are a tenth of the work.

use crate::probe::{Op, Shape, Work};
use crate::{Kernels, Rng, Rows, RowsMut};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

/// What pp is before the first token: so little that its exponential is 0.
pub const START: f32 = -1e30;

/// What comes in.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// T.
    pub tokens: usize,
    /// `[T, W]`.
    pub k: Rows<'a>,
    /// `[T, W]`.
    pub v: Rows<'a>,
    /// w `[W]`: -exp(time_decay).
    pub decay: &'a [f32],
    /// u `[W]`: time_first.
    pub bonus: &'a [f32],
}

/// What the tokens so far have left, `[W]` each.
#[derive(Debug)]
pub struct State<'a> {
    /// Weighted values, times e^-pp.
    pub aa: &'a mut [f32],
    /// Weights, times e^-pp.
    pub bb: &'a mut [f32],
    /// The largest exponent.
    pub pp: &'a mut [f32],
}

/// One token's row of each, `[W]`.
#[derive(Clone, Copy)]
pub(crate) struct Token<'a> {
    k: &'a [f32],
    v: &'a [f32],
    decay: &'a [f32],
    bonus: &'a [f32],
}

/// A token, the state, out `[W]`.
pub(crate) type Variant = unsafe fn(Token<'_>, State<'_>, &mut [f32]);

impl Kernels {
    /// Takes the state past T tokens of W channels. See [`crate::wkv::wkv4`].
    ///
    /// # Panics
    /// If shapes disagree.
    pub fn wkv4(&self, x: Inputs<'_>, state: State<'_>, mut out: RowsMut<'_>) {
        let Inputs { tokens, k, v, decay, bonus } = x;
        let width = decay.len();
        let State { aa, bb, pp } = state;
        assert_eq!(bonus.len(), width, "decay and bonus");
        assert!([aa.len(), bb.len(), pp.len()] == [width; 3], "state of {width} channels");
        k.check(tokens, width, "k");
        v.check(tokens, width, "v");
        out.check(tokens, width, "out");
        for t in 0..tokens {
            let token = Token { k: k.row(t, width), v: v.row(t, width), decay, bonus };
            let state = State { aa: &mut *aa, bb: &mut *bb, pp: &mut *pp };
            // SAFETY: this table exists only if the CPU has the variant's features.
            unsafe { (self.wkv4)(token, state, out.row(t, width)) }
        }
    }
}

/// The op, for [`OPS`](crate::probe::OPS). A shape is 1 × W × T.
pub(crate) struct Wkv4;

/// Inputs, state and the place for the result.
pub(crate) struct Case {
    tokens: usize,
    k: Vec<f32>,
    v: Vec<f32>,
    decay: Vec<f32>,
    bonus: Vec<f32>,
    state: [Vec<f32>; 3],
    out: Vec<f32>,
}

impl Op for Wkv4 {
    const NAME: &'static str = "wkv/wkv4";
    type Case = Case;

    fn shapes() -> Vec<Shape> {
        let widths = [0, 1, 7, 8, 9, 15, 16, 17, 31, 33, 768, 2048];
        let shapes = widths.into_iter().map(|w| Shape::new(1, w, 3));
        shapes.chain([Shape::new(1, 40, 0), Shape::new(1, 768, 1), Shape::new(1, 768, 64)]).collect()
    }

    fn model_shapes() -> Vec<Shape> {
        [(768, 1), (768, 64), (2048, 1)].map(|(w, t)| Shape::new(1, w, t)).to_vec()
    }

    fn admit(shape: Shape) -> Shape {
        Shape::new(1, shape.c, shape.t)
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case {
        let (w, t) = (shape.c, shape.t);
        let k = super::random_rows(t, w, rng, |rng| rng.normal() * 4.0);
        let v = super::random_rows(t, w, rng, Rng::normal);
        // From hardly any decay to nearly all at once; some channels have met no token yet.
        let decay = (0..w).map(|_| -4.0 * rng.unit() * rng.unit()).collect();
        let bonus = (0..w).map(|_| rng.normal()).collect();
        let mut state = [vec![0.0; w], vec![0.0; w], vec![START; w]];
        for i in 0..w {
            if rng.below(4) > 0 {
                state.iter_mut().zip([rng.normal(), 1.0 + rng.unit(), rng.normal()]).for_each(|(x, y)| x[i] = y);
            }
        }
        Case { tokens: t, k, v, decay, bonus, state, out: vec![f32::NAN; t * (w + super::GAP)] }
    }

    fn run(kernels: &Kernels, case: &mut Case) {
        let Case { tokens, k, v, decay, bonus, state: [aa, bb, pp], out } = case;
        let width = decay.len();
        let (k, v) = (super::rows(k, width), super::rows(v, width));
        let x = Inputs { tokens: *tokens, k, v, decay, bonus };
        kernels.wkv4(x, State { aa, bb, pp }, super::rows_mut(out, width));
    }

    fn output(case: &Case) -> Vec<f32> {
        [case.state.concat(), case.out.clone()].concat()
    }

    fn work(shape: &Shape) -> Work {
        let (w, t) = (shape.c as u64, shape.t as u64);
        Work { bytes: 12 * t * w + 32 * w, operations: 60 * t * w }
    }

    fn variant(kernels: &Kernels) -> usize {
        kernels.wkv4 as usize
    }
}
