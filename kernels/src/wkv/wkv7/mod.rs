//! The recurrence of RWKV-7: a matrix of keys and values from which each token takes before it adds.
//!
//! **Computes** for each head and token, where j counts keys, i values and S is before the token, the removal
//! a_i = sum_j S_ji kk_j; then S_ji = w_j S_ji - a_i (kk_j rate_j) + v_i k_j; y_i = sum_j S_ji r_j with the new S. In
//! the model's letters S = S diag(w) - (S kk)(kk · a)^T + v k^T and y = S r.
//!
//! **Shapes** r, w, k, v, kk, rate and out `[T, H, N]` with a stride; S `[H, N keys, N values]`, zero before the first
//! token: the transpose of the model's `[H, N values, N keys]`, see [`Kernels::wkv7_state`].
//!
//! **Numbers** f32. With w in 0..1, |kk| = 1 and rate in 0..1 no state grows beyond T · max|k v|.
//!
//! **Exactness** the same bits everywhere: vectors run over values, both sums over keys in ascending order by fused
//! multiply-adds from 0. The new state is `fma(w, S, fma(-a, kk rate, v k))`.
//!
//! **Cost** 8·H·N² bytes of state, from the first-level cache for all tokens but the first; five vector operations of
//! the multiplying units (four of them fused) for each number of the state and token.
//!
//! AVX2 on Zen 4 reaches 83% of those units' peak with one head in the first-level cache, 73% with 32 heads of 16
//! tokens each, 67% with one token of 32 heads, whose states come from the second level.
//!
//! **Source** Peng et al., "RWKV-7 Goose with Expressive Dynamic State Evolution" (arXiv 2503.14456), section 4.
//!
//! **Variants** AVX2 and AVX-512: a pass for the removal, eight or four vectors of values in registers, which leaves it
//! in the row of the result; a pass that makes the new state and the result, four vectors. The tail is masked on
//! AVX-512.
//!
//! **Tried and dropped** on AVX2, one head: two vectors at a time in the second pass (0.92 of the speed), eight (0.84);
//! four in the first (0.94); the second pass as part of the caller, which then keeps pointers in memory (0.93); both
//! sums from the state before the token, with the rest of y by two dot products (0.84). Fetching the next token's rows
//! ahead gains nothing with 32 heads either (0.97).
//!
//! **Not done** the form that turns a run of tokens into products of matrices: its sums would depend on the runs.

use crate::probe::{Op, Shape, Work};
use crate::transpose::Grid;
use crate::{Kernels, Rng, Rows, RowsMut};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

/// What comes in, `[T, H, N]` each, for H heads of width N side by side.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// T.
    pub tokens: usize,
    /// N.
    pub width: usize,
    /// r.
    pub r: Rows<'a>,
    /// w in 0..1.
    pub decay: Rows<'a>,
    /// k, as it is added.
    pub k: Rows<'a>,
    /// v.
    pub v: Rows<'a>,
    /// kk: what is looked up and removed, of length 1 in each head.
    pub removal: Rows<'a>,
    /// a in 0..1: how much of it is removed.
    pub rate: Rows<'a>,
}

/// One head, the state `[N, N]`, out `[T, N]`.
pub(crate) type Variant = unsafe fn(Inputs<'_>, &mut [f32], RowsMut<'_>);

/// What one token brings to all keys of a head.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Keys<'a> {
    r: &'a [f32],
    decay: &'a [f32],
    k: &'a [f32],
    removal: &'a [f32],
    rate: &'a [f32],
}

#[cfg(target_arch = "x86_64")]
impl<'a> Keys<'a> {
    /// r, w, k, kk and rate, of lengths that the compiler knows to be equal: they need no checks in a loop.
    #[inline]
    fn rows(self, n: usize) -> [&'a [f32]; 5] {
        [&self.r[..n], &self.decay[..n], &self.k[..n], &self.removal[..n], &self.rate[..n]]
    }
}

impl<'a> Inputs<'a> {
    /// What token t brings to the keys of a head that is alone in the rows' first N columns.
    #[inline]
    #[cfg(target_arch = "x86_64")]
    fn keys(self, t: usize) -> Keys<'a> {
        let n = self.width;
        Keys {
            r: self.r.row(t, n),
            decay: self.decay.row(t, n),
            k: self.k.row(t, n),
            removal: self.removal.row(t, n),
            rate: self.rate.row(t, n),
        }
    }

    fn each(self) -> [(Rows<'a>, &'static str); 6] {
        let Inputs { r, decay, k, v, removal, rate, .. } = self;
        [(r, "r"), (decay, "decay"), (k, "k"), (v, "v"), (removal, "removal"), (rate, "rate")]
    }

    fn columns_from(self, column: usize) -> Inputs<'a> {
        let [r, decay, k, v, removal, rate] = self.each().map(|(rows, _)| rows.columns_from(column));
        Inputs { r, decay, k, v, removal, rate, ..self }
    }
}

impl Kernels {
    /// Takes the states `[H, N keys, N values]` past T tokens. See [`crate::wkv::wkv7`].
    ///
    /// # Panics
    /// If shapes disagree or N is 0.
    pub fn wkv7(&self, x: Inputs<'_>, state: &mut [f32], mut out: RowsMut<'_>) {
        let square = x.width * x.width;
        assert!(square > 0 && state.len().is_multiple_of(square), "state [H, {0}, {0}]: {1}", x.width, state.len());
        let all = state.len() / x.width;
        for (rows, what) in x.each() {
            rows.check(x.tokens, all, what);
        }
        out.check(x.tokens, all, "out");
        if x.tokens == 0 {
            return;
        }
        for (h, state) in state.chunks_exact_mut(square).enumerate() {
            // SAFETY: this table exists only if the CPU has the variant's features.
            unsafe { (self.wkv7)(x.columns_from(h * x.width), state, out.columns_from(h * x.width)) }
        }
    }

    /// Copies states from the model's `[H, N values, N keys]` to [`Kernels::wkv7`]'s `[H, N keys, N values]`, or back.
    ///
    /// # Panics
    /// If shapes disagree or `width`, N, is 0.
    pub fn wkv7_state(&self, state: &[f32], width: usize, out: &mut [f32]) {
        let square = width * width;
        assert!(square > 0 && state.len().is_multiple_of(square), "state [H, {width}, {width}]: {}", state.len());
        assert_eq!(state.len(), out.len(), "out is as long as the state");
        let grid = Grid { rows: width, cols: width, stride: width, out_stride: width };
        for (state, out) in state.chunks_exact(square).zip(out.chunks_exact_mut(square)) {
            self.transpose(state, grid, out);
        }
    }
}

/// The op, for [`OPS`](crate::probe::OPS). A shape is H × N × T.
pub(crate) struct Wkv7;

/// Inputs, states and the place for the result.
pub(crate) struct Case {
    shape: Shape,
    /// r, decay, k, v, removal, rate.
    inputs: [Vec<f32>; 6],
    state: Vec<f32>,
    out: Vec<f32>,
}

impl Op for Wkv7 {
    const NAME: &'static str = "wkv/wkv7";
    type Case = Case;

    fn shapes() -> Vec<Shape> {
        let widths = [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40, 63, 65, 100, 130];
        let mut shapes: Vec<Shape> = widths.into_iter().map(|n| Shape::new(2, n, 3)).collect();
        shapes.extend([(0, 8, 2), (2, 8, 0), (1, 64, 1), (4, 64, 6)].map(|(h, n, t)| Shape::new(h, n, t)));
        shapes
    }

    fn model_shapes() -> Vec<Shape> {
        // One head, whose state stays in the first-level cache; the heads of a 1.5B model.
        [(1, 64, 64), (32, 64, 1), (32, 64, 64)].map(|(h, n, t)| Shape::new(h, n, t)).to_vec()
    }

    fn admit(shape: Shape) -> Shape {
        // States are squares: few of the widest.
        let width = shape.c.clamp(1, 160);
        Shape::new(shape.r.min(2560 / width), width, shape.t)
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case {
        let (t, w) = (shape.t, shape.r * shape.c);
        // A removal of length about 1, or repeated runs would make the state grow.
        let short = 1.0 / (shape.c as f32).sqrt();
        let inputs = std::array::from_fn(|which| match which {
            1 | 5 => super::random_rows(t, w, rng, Rng::unit),
            4 => super::random_rows(t, w, rng, |rng| (2.0 * rng.unit() - 1.0) * short),
            _ => super::random_rows(t, w, rng, Rng::normal),
        });
        let state = (0..w * shape.c).map(|_| rng.normal()).collect();
        Case { shape: *shape, inputs, state, out: vec![f32::NAN; t * (w + super::GAP)] }
    }

    fn run(kernels: &Kernels, case: &mut Case) {
        let Shape { r: heads, c: width, t: tokens } = case.shape;
        let [r, decay, k, v, removal, rate] = std::array::from_fn(|i| super::rows(&case.inputs[i], heads * width));
        let x = Inputs { tokens, width, r, decay, k, v, removal, rate };
        kernels.wkv7(x, &mut case.state, super::rows_mut(&mut case.out, heads * width));
    }

    fn output(case: &Case) -> Vec<f32> {
        [case.state.clone(), case.out.clone()].concat()
    }

    fn work(shape: &Shape) -> Work {
        let (h, n, t) = (shape.r as u64, shape.c as u64, shape.t as u64);
        Work { bytes: 8 * h * n * n + 28 * t * h * n, operations: 9 * t * h * n * n }
    }

    fn variant(kernels: &Kernels) -> usize {
        kernels.wkv7 as usize
    }
}
