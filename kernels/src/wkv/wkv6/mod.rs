//! The recurrence of RWKV-5.0, 5.2 and 6: a matrix of keys and values that decays key by key.
//!
//! **Computes** for each head and token y_j = sum_i r_i (u_i k_i v_j + S_ij), then S_ij = w_i S_ij + k_i v_j, where i
//! counts keys and j values. What the bonus adds is taken out of the sum: (sum_i r_i u_i k_i) v_j.
//!
//! **Shapes** r, k, v and out `[T, H, N]` with a stride; w `[T, H, N]` (RWKV-6) or one row for all tokens (RWKV-5,
//! where each w is e^-e^time_decay); u `[H, N]`; S `[H, N keys, N values]`, zero before the first token.
//!
//! **Numbers** f32. With w in 0..1 no state grows beyond max|k v| / (1 - w), or T · max|k v|.
//!
//! **Exactness** the same bits everywhere: vectors run over values, sums over keys in ascending order by fused
//! multiply-adds from 0; the sum of the bonus keeps the sixteen-lane rule, `(r u) k`, and is added last by one more.
//! The new state is `fma(w, S, k v)`.
//!
//! **Cost** 8·H·N² bytes of state, from the first-level cache for all tokens but the first; three vector operations of
//! the multiplying units (two of them fused) for each number of the state and token.
//!
//! AVX2 on Zen 4 reaches 91% of those units' peak with one head in the first-level cache, 77% with 32 heads of 16
//! tokens each, 69% with one token of 32 heads, whose states come from the second level.
//!
//! **Source** Peng et al., "Eagle and Finch" (arXiv 2404.05892), section 4.
//!
//! **Variants** AVX2: 32 values at a time, four sums and four values in registers while the keys pass. AVX-512: 64, the
//! tail masked.
//!
//! **Tried and dropped** on AVX2, one head: two vectors at a time (0.75 of the speed), eight, whose values are then
//! read from memory (0.94), the loop as a function of its own (0.93).
//!
//! **Not done** the form that turns a run of tokens into products of matrices: it divides by products of decays, and
//! its sums would depend on the runs.

use crate::probe::{Op, Shape, Work};
use crate::{Kernels, Rng, Rows, RowsMut};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

/// What comes in, for H heads of width N side by side.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// T.
    pub tokens: usize,
    /// N.
    pub width: usize,
    /// `[T, H, N]`.
    pub r: Rows<'a>,
    /// `[T, H, N]`.
    pub k: Rows<'a>,
    /// `[T, H, N]`.
    pub v: Rows<'a>,
    /// w `[T, H, N]`, or [`Rows::same`].
    pub decay: Rows<'a>,
    /// u `[H, N]`.
    pub bonus: &'a [f32],
}

/// One head, the state `[N, N]`, out `[T, N]`.
pub(crate) type Variant = unsafe fn(Inputs<'_>, &mut [f32], RowsMut<'_>);

impl Kernels {
    /// Takes the states `[H, N keys, N values]` past T tokens. See [`crate::wkv::wkv6`].
    ///
    /// # Panics
    /// If shapes disagree or N is 0.
    pub fn wkv6(&self, x: Inputs<'_>, state: &mut [f32], mut out: RowsMut<'_>) {
        let Inputs { tokens, width, r, k, v, decay, bonus } = x;
        assert!(width > 0 && bonus.len().is_multiple_of(width), "bonus [H, {width}] has {} elements", bonus.len());
        assert_eq!(state.len(), bonus.len() * width, "state [H, {width}, {width}]");
        for (rows, what) in [(r, "r"), (k, "k"), (v, "v"), (decay, "decay")] {
            rows.check(tokens, bonus.len(), what);
        }
        out.check(tokens, bonus.len(), "out");
        if tokens == 0 {
            return;
        }
        for (h, state) in state.chunks_exact_mut(width * width).enumerate() {
            let from = h * width;
            let head = Inputs {
                r: r.columns_from(from),
                k: k.columns_from(from),
                v: v.columns_from(from),
                decay: decay.columns_from(from),
                bonus: &bonus[from..][..width],
                ..x
            };
            // SAFETY: this table exists only if the CPU has the variant's features.
            unsafe { (self.wkv6)(head, state, out.columns_from(from)) }
        }
    }
}

/// The op, for [`OPS`](crate::probe::OPS). A shape is H × N × T; an even T has a decay for each token, an odd T one for
/// all.
pub(crate) struct Wkv6;

/// Inputs, states and the place for the result.
pub(crate) struct Case {
    shape: Shape,
    r: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    decay: Vec<f32>,
    bonus: Vec<f32>,
    state: Vec<f32>,
    out: Vec<f32>,
}

impl Op for Wkv6 {
    const NAME: &'static str = "wkv/wkv6";
    type Case = Case;

    fn shapes() -> Vec<Shape> {
        let widths = [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40, 63, 65, 100, 130];
        let mut shapes: Vec<Shape> = widths.into_iter().flat_map(|n| [2, 3].map(|t| Shape::new(2, n, t))).collect();
        shapes.extend([(0, 8, 2), (2, 8, 0), (1, 64, 1), (4, 64, 6)].map(|(h, n, t)| Shape::new(h, n, t)));
        shapes
    }

    fn model_shapes() -> Vec<Shape> {
        // One head, whose state stays in the first-level cache; the heads of a 1.6B model.
        [(1, 64, 64), (32, 64, 1), (32, 64, 64)].map(|(h, n, t)| Shape::new(h, n, t)).to_vec()
    }

    fn admit(shape: Shape) -> Shape {
        // States are squares: few of the widest.
        let width = shape.c.clamp(1, 160);
        Shape::new(shape.r.min(2560 / width), width, shape.t)
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case {
        let (t, w) = (shape.t, shape.r * shape.c);
        let [r, k, v] = std::array::from_fn(|_| super::random_rows(t, w, rng, Rng::normal));
        let decay = super::random_rows(t, w, rng, Rng::unit);
        let [bonus, state] = [w, w * shape.c].map(|n| (0..n).map(|_| rng.normal()).collect());
        Case { shape: *shape, r, k, v, decay, bonus, state, out: vec![f32::NAN; t * (w + super::GAP)] }
    }

    fn run(kernels: &Kernels, case: &mut Case) {
        let Shape { r: heads, c: width, t: tokens } = case.shape;
        let rows = |x| super::rows(x, heads * width);
        let mut decay = rows(&case.decay);
        if tokens % 2 == 1 {
            decay = Rows::same(&decay.data[..heads * width]);
        }
        let (r, k, v) = (rows(&case.r), rows(&case.k), rows(&case.v));
        let x = Inputs { tokens, width, r, k, v, decay, bonus: &case.bonus };
        kernels.wkv6(x, &mut case.state, super::rows_mut(&mut case.out, heads * width));
    }

    fn output(case: &Case) -> Vec<f32> {
        [case.state.clone(), case.out.clone()].concat()
    }

    fn work(shape: &Shape) -> Work {
        let (h, n, t) = (shape.r as u64, shape.c as u64, shape.t as u64);
        Work { bytes: 8 * h * n * n + 20 * t * h * n, operations: 5 * t * h * n * n }
    }

    fn variant(kernels: &Kernels) -> usize {
        kernels.wkv6 as usize
    }
}
