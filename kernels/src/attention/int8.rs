//! Attention over a cache of int8 rows, each with a scale of its own.
//!
//! **Computes** for each query g: `s_i = (q_g · k_i) * scale * a_i`; p = softmax(s); `w_i = p_i * b_i`;
//! `out_g = sum over i of w_i * v_i`. Here k and v are codes; a and b are the scales of their rows.
//!
//! **Shapes** q `[G, K]`; keys and values `[n, K]`, n >= 1; their scales `[n]` each; scores `[G, n]` scratch; out
//! `[G, K]`.
//!
//! **Numbers** f32; codes widen exactly. The scale of a key comes in after its dot product and the scale of a value
//! before the sum, so a row costs one product for each and a code is never multiplied by its scale. [`crate::quantise::row`]
//! makes rows whose numbers are within half a scale of what they stand for.
//!
//! **Exactness** the same bits everywhere, as [`crate::attention`]; both products with scales are rounded by themselves,
//! in the order above.
//!
//! **Cost** 2·n·(K + 4) bytes: about half of a bf16 cache's; 4·G·n·K operations beside G·n exponentials.
//!
//! **Source** a scale for each row: LLM.int8() (Dettmers et al., arXiv 2208.07339); for caches KIVI (Liu et al., arXiv
//! 2402.02750), which has values by token as here, and keys by channel.
//!
//! **Variants** AVX2 and AVX-512: the loops of [`crate::attention`], with loads that widen codes, and two passes more
//! over the scores.
//!
//! **Not done** queries in int8 (`vpdpbusd`): the scores would no longer be those of the query; a scale for each channel
//! of the keys, which holds outliers better and must be known before the first token is cached.

use super::{Attention, Heads, check};
use crate::probe::{Op, Shape, Work};
use crate::{Kernels, Rng};

/// The scales of cached rows: what a code of the row stands for.
#[derive(Clone, Copy, Debug)]
pub struct RowScales<'a> {
    /// Of the keys, `[n]`.
    pub keys: &'a [f32],
    /// Of the values, `[n]`.
    pub values: &'a [f32],
}

/// inputs, scales, scores `[G, n]`, out `[G, K]`.
pub(crate) type Variant = unsafe fn(Heads<'_, i8>, RowScales<'_>, &mut [f32], &mut [f32]);

impl Kernels {
    /// Attention of G queries over n cached positions in int8; `scores` `[G, n]` is scratch and holds the probabilities
    /// times the scales of the values after. See [`crate::attention::int8`].
    ///
    /// # Panics
    /// If shapes disagree, or nothing is cached.
    pub fn attention_int8(&self, heads: Heads<'_, i8>, scales: RowScales<'_>, scores: &mut [f32], out: &mut [f32]) {
        let cached = check(&heads, scores, out);
        assert!(scales.keys.len() == cached && scales.values.len() == cached, "scales of {cached} keys and values");
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { (self.attention_int8)(heads, scales, scores, out) }
    }
}

/// The op, for [`OPS`](crate::probe::OPS). A shape is G × K × n.
pub(crate) struct AttentionInt8;

/// Queries, cache and the places for weights and result.
pub(crate) struct Case {
    width: usize,
    queries: Vec<f32>,
    keys: Vec<i8>,
    values: Vec<i8>,
    key_scales: Vec<f32>,
    value_scales: Vec<f32>,
    scores: Vec<f32>,
    out: Vec<f32>,
}

impl Op for AttentionInt8 {
    const NAME: &'static str = "attention/int8";
    type Case = Case;

    fn shapes() -> Vec<Shape> {
        Attention::<f32>::shapes()
    }

    fn model_shapes() -> Vec<Shape> {
        Attention::<f32>::model_shapes()
    }

    fn admit(shape: Shape) -> Shape {
        Attention::<f32>::admit(shape)
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case {
        let (g, k, n) = (shape.r, shape.c, shape.t);
        // Every code there is, -128 too.
        let mut codes = || (0..n * k).map(|_| rng.below(256) as u8 as i8).collect();
        let (keys, values) = (codes(), codes());
        let mut scales = || (0..n).map(|_| rng.normal().abs() / 64.0).collect();
        let (key_scales, value_scales) = (scales(), scales());
        Case {
            width: k,
            queries: (0..g * k).map(|_| rng.normal()).collect(),
            keys,
            values,
            key_scales,
            value_scales,
            scores: vec![f32::NAN; g * n],
            out: vec![f32::NAN; g * k],
        }
    }

    fn run(kernels: &Kernels, case: &mut Case) {
        let scale = 1.0 / (case.width as f32).sqrt();
        let heads = Heads { queries: &case.queries, keys: &case.keys, values: &case.values, width: case.width, scale };
        let scales = RowScales { keys: &case.key_scales, values: &case.value_scales };
        kernels.attention_int8(heads, scales, &mut case.scores, &mut case.out);
    }

    fn output(case: &Case) -> Vec<f32> {
        [case.scores.as_slice(), &case.out].concat()
    }

    fn work(shape: &Shape) -> Work {
        let (g, k, n) = (shape.r as u64, shape.c as u64, shape.t as u64);
        Work { bytes: 2 * n * (k + 4) + 8 * g * k, operations: 4 * g * n * k + 18 * g * n }
    }

    fn variant(kernels: &Kernels) -> usize {
        kernels.attention_int8 as usize
    }
}
