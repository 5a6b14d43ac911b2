//! The short convolution of recurrent models: each channel by itself, over the last few tokens.
//!
//! **Computes** `y[t, w] = f(bias[w] + sum over j of weights[j, w] · x[t - K + 1 + j, w])`, f the identity or silu; then
//! the state becomes the last K - 1 inputs.
//!
//! **Shapes** x and y `[T, W]` with row strides; weights `[K, W]`, row K - 1 for the current token (the transpose of a
//! file's `[W, 1, K]`); bias `[W]` or none; state `[K - 1, W]`, oldest first, zeros at the start of a text.
//!
//! **Numbers** f32; a sum starts at the bias, or at 0.
//!
//! **Exactness** the same bits everywhere, and from one call or many: fused multiply-adds in ascending order of j, silu as in
//! [`crate::activation`].
//!
//! **Cost** 8·T·W bytes beside weights and state; 2·K·T·W operations, and 19·T·W for silu.
//!
//! **Source** Gu and Dao, "Mamba" (arXiv 2312.00752), section 3.4.
//!
//! **Variants** AVX2 and AVX-512: channels in registers, four tokens at a time, so that a weight is loaded for four
//! products and an input read for four tokens while it is in the first-level cache. The specification compiled for AVX2
//! takes 1.55 times as long for 64 tokens, and as long for one, where silu is nearly all there is to do.
//!
//! **Not done** walking down the tokens of a few channels, which would load each input once: rows of models are multiples of
//! 4 KiB apart, so that a column of them falls into one set of the cache. In place: the next token needs the inputs.

use crate::probe::{Op, Shape, Work};
use crate::{Kernels, Rng, Rows, RowsMut};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

/// A convolution of T tokens.
#[derive(Clone, Copy, Debug)]
pub struct Convolution<'a> {
    /// Inputs x `[T, W]`.
    pub x: Rows<'a>,
    /// Tokens, T.
    pub tokens: usize,
    /// Channels, W.
    pub width: usize,
    /// `[K, W]`, K at least 1.
    pub weights: &'a [f32],
    /// `[W]`.
    pub bias: Option<&'a [f32]>,
    /// Whether y goes through silu.
    pub silu: bool,
}

impl<'a> Convolution<'a> {
    /// K.
    pub(crate) fn taps(&self) -> usize {
        self.weights.len() / self.width
    }

    /// Inputs `t - K + 1 + j` of token t, which the state holds where that is negative.
    #[inline]
    pub(crate) fn input<'s>(&self, state: &'s [f32], t: usize, j: usize) -> &'s [f32]
    where
        'a: 's,
    {
        match (t + j).checked_sub(self.taps() - 1) {
            Some(t) => self.x.row(t, self.width),
            None => &state[(t + j) * self.width..][..self.width],
        }
    }

    /// Moves the last K - 1 inputs into the state.
    fn keep(&self, state: &mut [f32]) {
        let kept = self.taps() - 1;
        let old = kept.saturating_sub(self.tokens);
        state.copy_within((kept - old) * self.width.., 0);
        for i in old..kept {
            state[i * self.width..][..self.width].copy_from_slice(self.x.row(self.tokens - (kept - i), self.width));
        }
    }
}

pub(crate) type Variant = unsafe fn(&Convolution<'_>, &[f32], RowsMut<'_>);

impl Kernels {
    /// Convolves T tokens into y `[T, W]` and updates `state` `[K - 1, W]`. See [`crate::conv::causal`].
    ///
    /// # Panics
    /// If shapes disagree, or W or K is 0.
    pub fn causal_conv(&self, conv: &Convolution<'_>, state: &mut [f32], y: RowsMut<'_>) {
        let Convolution { tokens, width, weights, .. } = *conv;
        assert!(width > 0, "0 channels");
        let whole = !weights.is_empty() && weights.len().is_multiple_of(width);
        assert!(whole, "weights [K, {width}] have {} elements", weights.len());
        assert!(conv.bias.is_none_or(|bias| bias.len() == width), "bias [{width}]");
        assert_eq!(state.len(), weights.len() - width, "state [{}, {width}]", conv.taps() - 1);
        conv.x.check(tokens, width, "x");
        y.check(tokens, width, "y");
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { (self.causal_conv)(conv, state, y) }
        conv.keep(state);
    }
}

/// The op, for [`OPS`](crate::probe::OPS). A shape is K × W × T; all K but 2 have a bias, from 3 on silu.
pub(crate) struct CausalConv;

/// Tokens, weights, the state before and now, and the place for the result.
pub(crate) struct Case {
    shape: Shape,
    stride: usize,
    x: Vec<f32>,
    weights: Vec<f32>,
    bias: Vec<f32>,
    before: Vec<f32>,
    state: Vec<f32>,
    y: Vec<f32>,
}

impl Op for CausalConv {
    const NAME: &'static str = "conv/causal";
    type Case = Case;

    fn shapes() -> Vec<Shape> {
        let widths = [1, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100];
        let edges = widths.into_iter().flat_map(|w| [1, 2, 3, 4, 5].map(|k| Shape::new(k, w, 7)));
        let few = [0, 1, 2, 3, 4, 5, 9].map(|t| Shape::new(4, 24, t));
        edges.chain(few).chain(Self::model_shapes()).collect()
    }

    fn model_shapes() -> Vec<Shape> {
        vec![Shape::new(4, 5120, 1), Shape::new(4, 5120, 64)]
    }

    fn admit(shape: Shape) -> Shape {
        let taps = if (1..=6).contains(&shape.r) { shape.r } else { shape.r % 6 + 1 };
        Shape::new(taps, shape.c.max(1), shape.t)
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case {
        let Shape { r: k, c: w, t } = *shape;
        let mut numbers = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal()).collect() };
        let stride = w + w % 3;
        let before = numbers((k - 1) * w);
        Case {
            shape: *shape,
            stride,
            x: numbers(stride * t),
            weights: numbers(k * w),
            bias: numbers(w),
            state: before.clone(),
            before,
            y: vec![f32::NAN; w * t],
        }
    }

    fn run(kernels: &Kernels, case: &mut Case) {
        let Shape { r: k, c: width, t: tokens } = case.shape;
        case.state.copy_from_slice(&case.before);
        let conv = Convolution {
            x: Rows { data: &case.x, stride: case.stride },
            tokens,
            width,
            weights: &case.weights,
            bias: (k != 2).then_some(&case.bias[..]),
            silu: k >= 3,
        };
        kernels.causal_conv(&conv, &mut case.state, RowsMut::dense(&mut case.y, width));
    }

    fn output(case: &Case) -> Vec<f32> {
        [&case.y[..], &case.state].concat()
    }

    fn work(shape: &Shape) -> Work {
        let (k, w, t) = (shape.r as u64, shape.c as u64, shape.t as u64);
        let silu = if k >= 3 { 19 } else { 0 };
        Work { bytes: 8 * w * t + 4 * w * (3 * k - 1), operations: (2 * k + silu) * w * t }
    }

    fn variant(kernels: &Kernels) -> usize {
        kernels.causal_conv as usize
    }
}
