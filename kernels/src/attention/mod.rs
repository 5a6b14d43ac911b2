//! Softmax attention of G queries that share one key/value head, over a cache.
//!
//! **Computes** for each query g: `s_i = (q_g · k_i) * scale`; p = softmax(s); `out_g = sum over i of p_i * v_i`.
//!
//! **Shapes** q `[G, K]`; keys and values `[n, K]`, n >= 1; scores `[G, n]` scratch; out `[G, K]`.
//!
//! **Numbers** f32; cached numbers widen exactly.
//!
//! **Exactness** the same bits everywhere, however the queries are grouped: dot products and the softmax keep the
//! sixteen-lane rule; each element of the output is one chain of fused multiply-adds in ascending i.
//!
//! **Cost** 2·n·K times the cache's bytes; 4·G·n·K operations beside G·n exponentials.
//!
//! **Source** Vaswani et al. (arXiv 1706.03762), eq. 1; grouped queries: Ainslie et al. (arXiv 2305.13245).
//!
//! **Variants** AVX2 and AVX-512. Up to four queries read (and widen) each row once. Keys are read in four streams, and
//! sixteen dot products (AVX2: four) run side by side and are folded together, the additions of neighbours sharing
//! registers. The weighted sum keeps a tile of the output in registers while it walks a block of rows that fits the
//! first-level cache, and asks for the next block meanwhile.
//!
//! **Not done** one-pass (online) softmax: it would make the bits depend on the block size.

use crate::probe::{Op, Shape, Work};
use crate::{CacheElement, Kernels, Rng};
use std::marker::PhantomData;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub mod causal;
pub mod int8;
pub(crate) mod scalar;

/// One call's inputs.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a, E> {
    /// Queries `[G, K]`.
    pub queries: &'a [f32],
    /// Keys `[n, K]`.
    pub keys: &'a [E],
    /// Values `[n, K]`.
    pub values: &'a [E],
    /// Head width K.
    pub width: usize,
    /// What dot products are multiplied by, usually 1 / sqrt(K).
    pub scale: f32,
}

/// Panics if shapes disagree or nothing is cached; gives n.
fn check<E>(heads: &Heads<'_, E>, scores: &[f32], out: &[f32]) -> usize {
    let (count, cached) = check_cache(heads, out);
    assert_eq!(scores.len(), count * cached, "scores [{count}, {cached}]");
    cached
}

/// The same without scores; gives the number of queries and n.
fn check_cache<E>(heads: &Heads<'_, E>, out: &[f32]) -> (usize, usize) {
    let Heads { queries, keys, values, width, .. } = *heads;
    assert!(width > 0 && queries.len().is_multiple_of(width), "queries [G, {width}]: {}", queries.len());
    assert!(!keys.is_empty() && keys.len().is_multiple_of(width), "keys [n, {width}]: {}", keys.len());
    assert_eq!(keys.len(), values.len(), "keys and values");
    let (count, cached) = (queries.len() / width, keys.len() / width);
    assert_eq!(out.len(), queries.len(), "out [{count}, {width}]");
    (count, cached)
}

/// inputs, scores `[G, n]`, out `[G, K]`.
pub(crate) type Variant<E> = unsafe fn(Heads<'_, E>, &mut [f32], &mut [f32]);

impl Kernels {
    /// Attention of G queries over n cached positions; `scores` `[G, n]` is scratch and holds the probabilities after.
    /// See [`crate::attention`].
    ///
    /// # Panics
    /// If shapes disagree, or nothing is cached.
    pub fn attention<E: CacheElement>(&self, heads: Heads<'_, E>, scores: &mut [f32], out: &mut [f32]) {
        check(&heads, scores, out);
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { E::attention(self)(heads, scores, out) }
    }
}

/// The op for one cache format, for [`OPS`](crate::probe::OPS). A shape is G × K × n.
pub(crate) struct Attention<E>(PhantomData<E>);

/// Queries, cache and the places for probabilities and result.
pub(crate) struct Case<E> {
    width: usize,
    queries: Vec<f32>,
    keys: Vec<E>,
    values: Vec<E>,
    scores: Vec<f32>,
    out: Vec<f32>,
}

impl<E: CacheElement> Op for Attention<E> {
    const NAME: &'static str = match E::NAME.as_bytes() {
        b"f32" => "attention/f32",
        b"bf16" => "attention/bf16",
        _ => panic!("a cache format without a name for its op"),
    };
    type Case = Case<E>;

    fn shapes() -> Vec<Shape> {
        let mut shapes = Vec::new();
        // Columns: 16 a lane set, 64 or 128 a tile. Rows: 4, 8 or 16 side by side.
        for k in [1, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 128, 129, 144] {
            for g in 1..=5 {
                shapes.push(Shape::new(g, k, 19));
            }
        }
        for n in [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129, 257] {
            shapes.extend([1, 2, 4].map(|g| Shape::new(g, 72, n)));
        }
        shapes.extend([(0, 16, 3), (9, 64, 67), (4, 600, 21), (1, 5000, 18)].map(|(g, k, n)| Shape::new(g, k, n)));
        for n in [128, 512, 2048] {
            shapes.push(Shape::new(4, 128, n));
        }
        shapes.extend([Shape::new(1, 100, 512), Shape::new(1, 128, 2048), Shape::new(2, 8, 512)]);
        shapes
    }

    fn model_shapes() -> Vec<Shape> {
        // Four queries to a shared head, as a 2B model has; short, ordinary and long contexts.
        [128, 512, 2048].map(|n| Shape::new(4, 128, n)).to_vec()
    }

    fn admit(shape: Shape) -> Shape {
        Shape::new(shape.r, shape.c.max(1), shape.t.max(1))
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case<E> {
        let (g, k, n) = (shape.r, shape.c, shape.t);
        let mut stored = || (0..n * k).map(|_| E::narrow(rng.normal())).collect();
        let (keys, values) = (stored(), stored());
        Case {
            width: k,
            queries: (0..g * k).map(|_| rng.normal()).collect(),
            keys,
            values,
            scores: vec![f32::NAN; g * n],
            out: vec![f32::NAN; g * k],
        }
    }

    fn run(kernels: &Kernels, case: &mut Case<E>) {
        let scale = 1.0 / (case.width as f32).sqrt();
        let heads = Heads { queries: &case.queries, keys: &case.keys, values: &case.values, width: case.width, scale };
        kernels.attention(heads, &mut case.scores, &mut case.out);
    }

    fn output(case: &Case<E>) -> Vec<f32> {
        [case.scores.as_slice(), &case.out].concat()
    }

    fn work(shape: &Shape) -> Work {
        let (g, k, n) = (shape.r as u64, shape.c as u64, shape.t as u64);
        Work { bytes: 2 * n * k * size_of::<E>() as u64 + 8 * g * k, operations: 4 * g * n * k + 16 * g * n }
    }

    fn variant(kernels: &Kernels) -> usize {
        E::attention(kernels) as usize
    }
}
