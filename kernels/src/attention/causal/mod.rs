//! Causal attention of a run of T tokens, of which each sees what was cached before the run, those before it, and itself.
//!
//! **Computes** for token i of T, over the first n - T + i + 1 of n positions, what [`crate::attention`] computes.
//!
//! **Shapes** q `[T, G, K]`; keys and values `[n, K]`, n >= T, the last T of them the run's own; scores `[ROWS, n]`
//! scratch; out `[T, G, K]`.
//!
//! **Numbers** f32; cached numbers widen exactly. What a token does not see has no influence, NaN and infinities included.
//!
//! **Exactness** the bits of T calls of [`crate::attention`], one for each token: dot products and the softmax keep the
//! sixteen-lane rule, and each element of the output is one chain of fused multiply-adds in ascending order of positions.
//!
//! **Cost** 2·n·K times the cache's bytes from memory, once; from the second-level cache (and widened) once for every
//! [`ROWS`] queries. 4·K operations and an exponential for each query and position that it sees.
//!
//! **Source** as [`crate::attention`]; queries in blocks: Dao et al., "FlashAttention" (arXiv 2205.14135), without its
//! running softmax, which would make the bits depend on the blocks.
//!
//! **Variants** AVX2 and AVX-512: a block of keys or values is widened into the first-level cache and meets [`ROWS`]
//! queries there. AVX2 multiplies three queries with four keys, eight lanes and then the other eight, so that twelve sums
//! stay in registers; AVX-512 four with four. Weighted sums of six queries stay in registers while they walk a block;
//! what only some of the six see follows query by query. Heads wider than [`WIDEST`] are done one query at a time.
//!
//! **Tried and dropped** on AVX2, against separate calls for 64 tokens over 512 positions (as it is: 1.23 in f32, 1.12 in
//! bf16): the tiles of [`crate::attention`], which widen in the innermost loop, prefetch and hold eight sums (1.13 and
//! 1.15, with tails of its own); both halves of the products in one function (the compiler keeps sums in memory: 1.15
//! and 1.07).
//!
//! **Not done** int8 caches.

use super::{Heads, check_cache};
use crate::probe::{Op, Shape, Work};
use crate::{CacheElement, Kernels, Rng};
use std::marker::PhantomData;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

/// Queries that meet each block of keys and values while it is in the first-level cache.
pub const ROWS: usize = 24;
/// Numbers of a block: 12 KiB.
const BLOCK: usize = 3072;
/// The widest head of which a block holds four rows.
pub const WIDEST: usize = BLOCK / 4;

/// inputs, T, scores `[ROWS, n]`, out `[T, G, K]`.
pub(crate) type Variant<E> = unsafe fn(Heads<'_, E>, usize, &mut [f32], &mut [f32]);

/// How many positions each query sees.
#[derive(Clone, Copy)]
struct Limits {
    /// Positions before the run.
    before: usize,
    /// Queries of a token.
    group: usize,
}

impl Limits {
    fn new<E>(heads: &Heads<'_, E>, tokens: usize) -> Limits {
        let rows = heads.queries.len() / heads.width;
        Limits { before: heads.keys.len() / heads.width - tokens, group: (rows / tokens.max(1)).max(1) }
    }

    fn of(self, row: usize) -> usize {
        self.before + row / self.group + 1
    }
}

/// The plain way: a call of [`crate::attention`] for each query.
///
/// # Safety
/// The CPU has what the variant needs.
unsafe fn one_by_one<E>(
    attention: super::Variant<E>,
    heads: Heads<'_, E>,
    tokens: usize,
    scores: &mut [f32],
    out: &mut [f32],
) {
    let width = heads.width;
    let limits = Limits::new(&heads, tokens);
    for (row, (queries, out)) in heads.queries.chunks_exact(width).zip(out.chunks_exact_mut(width)).enumerate() {
        let limit = limits.of(row);
        let (keys, values) = (&heads.keys[..limit * width], &heads.values[..limit * width]);
        // SAFETY: the caller's.
        unsafe { attention(Heads { queries, keys, values, ..heads }, &mut scores[..limit], out) };
    }
}

/// Scores of queries `[m, K]` and a block of keys: queries, keys, K, scale, first, scores.
#[cfg(target_arch = "x86_64")]
type Dots = unsafe fn(&[f32], &[f32], usize, f32, usize, &mut [f32]);

/// Adds a block of values as far as each query sees them: scores, first, values, K, limits `[m]`, out `[m, K]`.
#[cfg(target_arch = "x86_64")]
type Sums = unsafe fn(&[f32], usize, &[f32], usize, &[usize], &mut [f32]);

/// What the walk over blocks is made of. Scores are `[ROWS, n]`; `first` is a block's first position.
#[cfg(target_arch = "x86_64")]
struct Steps<E> {
    /// Widens as many numbers as there are.
    widen: unsafe fn(&[E], &mut [f32]),
    dots: Dots,
    softmax: unsafe fn(&mut [f32]),
    sums: Sums,
}

/// Takes the queries in parts of at most [`ROWS`] past all blocks.
///
/// # Safety
/// The CPU has what the steps need.
#[cfg(target_arch = "x86_64")]
unsafe fn walk<E: CacheElement>(
    steps: &Steps<E>,
    heads: Heads<'_, E>,
    tokens: usize,
    scores: &mut [f32],
    out: &mut [f32],
) {
    let width = heads.width;
    let cached = heads.keys.len() / width;
    let limits = Limits::new(&heads, tokens);
    let mut buffer = [0.0; BLOCK];
    let mut widened = |rows: &[E], work: &mut dyn FnMut(&[f32])| match E::plain(rows) {
        Some(rows) => work(rows),
        None => {
            let buffer = &mut buffer[..rows.len()];
            // SAFETY: the caller's.
            unsafe { (steps.widen)(rows, buffer) };
            work(buffer);
        }
    };
    let parts = heads.queries.chunks(ROWS * width).zip(out.chunks_mut(ROWS * width));
    for (part, (queries, out)) in parts.enumerate() {
        let limits: [usize; ROWS] = std::array::from_fn(|row| limits.of(part * ROWS + row));
        let limits = &limits[..queries.len() / width];
        let last = limits[limits.len() - 1];
        let blocks = (0..last).step_by(BLOCK / width).map(|first| (first, last.min(first + BLOCK / width)));
        for (first, end) in blocks.clone() {
            widened(&heads.keys[first * width..end * width], &mut |keys| {
                // SAFETY: the caller's.
                unsafe { (steps.dots)(queries, keys, width, heads.scale, first, scores) };
            });
        }
        for (scores, limit) in scores.chunks_exact_mut(cached).zip(limits) {
            // SAFETY: the caller's.
            unsafe { (steps.softmax)(&mut scores[..*limit]) };
        }
        out.fill(0.0);
        for (first, end) in blocks {
            widened(&heads.values[first * width..end * width], &mut |values| {
                // SAFETY: the caller's.
                unsafe { (steps.sums)(scores, first, values, width, limits, out) };
            });
        }
    }
}

impl Kernels {
    /// Causal attention of T tokens with G queries each, `[T, G, K]`, whose own keys and values are the last T of the n
    /// cached; `scores` `[ROWS, n]` is scratch. See [`crate::attention::causal`].
    ///
    /// # Panics
    /// If shapes disagree, nothing is cached, or fewer than T positions are.
    pub fn attention_causal<E: CacheElement>(
        &self,
        heads: Heads<'_, E>,
        tokens: usize,
        scores: &mut [f32],
        out: &mut [f32],
    ) {
        let (rows, cached) = check_cache(&heads, out);
        assert!(if tokens == 0 { rows == 0 } else { rows.is_multiple_of(tokens) }, "{rows} queries of {tokens} tokens");
        assert!(tokens <= cached, "{cached} positions for {tokens} tokens");
        assert_eq!(scores.len(), ROWS * cached, "scores [{ROWS}, {cached}]");
        // SAFETY: this table exists only if the CPU has the variants' features.
        unsafe {
            if heads.width > WIDEST {
                one_by_one(E::attention(self), heads, tokens, scores, out);
            } else {
                E::attention_causal(self)(heads, tokens, scores, out);
            }
        }
    }
}

/// The op for one cache format, for [`OPS`](crate::probe::OPS). A shape is T × K × n; a token has [`GROUP`] queries.
pub(crate) struct Causal<E>(PhantomData<E>);

/// Queries of a token in [`Causal`]; `tests/attention.rs` tries others.
const GROUP: usize = 4;

/// Queries, cache, scratch and the place for the result.
pub(crate) struct Case<E> {
    tokens: usize,
    width: usize,
    queries: Vec<f32>,
    keys: Vec<E>,
    values: Vec<E>,
    scores: Vec<f32>,
    out: Vec<f32>,
}

impl<E: CacheElement> Op for Causal<E> {
    const NAME: &'static str = match E::NAME.as_bytes() {
        b"f32" => "attention/causal/f32",
        b"bf16" => "attention/causal/bf16",
        _ => panic!("a cache format without a name for its op"),
    };
    type Case = Case<E>;

    fn shapes() -> Vec<Shape> {
        let mut shapes = Vec::new();
        // Columns: 16 a lane set, 64 a tile. Tokens: four a part. Positions: 3 or 4 a tile.
        for k in [1, 8, 15, 16, 17, 31, 33, 64, 65, 100, 128, 129] {
            shapes.extend([1, 3, 5].map(|t| Shape::new(t, k, 19)));
        }
        for n in [11, 12, 13, 31, 33, 63, 64, 65, 127, 128, 129, 257] {
            shapes.extend([1, 4, 11].map(|t| Shape::new(t, 72, n)));
        }
        shapes.extend([(0, 16, 3), (9, 600, 21), (2, 5000, 18), (40, 16, 40)].map(|(t, k, n)| Shape::new(t, k, n)));
        shapes.push(Shape::new(16, 128, 128));
        shapes
    }

    fn model_shapes() -> Vec<Shape> {
        // A part of a prompt with four queries to a shared head, as a 2B model has.
        [(16, 128), (64, 512), (64, 2048)].map(|(t, n)| Shape::new(t, 128, n)).to_vec()
    }

    fn admit(shape: Shape) -> Shape {
        Shape::new(shape.r, shape.c.max(1), shape.t.max(shape.r).max(1))
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case<E> {
        let (t, k, n) = (shape.r, shape.c, shape.t);
        let mut stored = || (0..n * k).map(|_| E::narrow(rng.normal())).collect();
        let (keys, values) = (stored(), stored());
        Case {
            tokens: t,
            width: k,
            queries: (0..t * GROUP * k).map(|_| rng.normal()).collect(),
            keys,
            values,
            scores: vec![f32::NAN; ROWS * n],
            out: vec![f32::NAN; t * GROUP * k],
        }
    }

    fn run(kernels: &Kernels, case: &mut Case<E>) {
        let scale = 1.0 / (case.width as f32).sqrt();
        let heads = Heads { queries: &case.queries, keys: &case.keys, values: &case.values, width: case.width, scale };
        kernels.attention_causal(heads, case.tokens, &mut case.scores, &mut case.out);
    }

    fn output(case: &Case<E>) -> Vec<f32> {
        case.out.clone()
    }

    fn work(shape: &Shape) -> Work {
        let (t, k, n) = (shape.r as u64, shape.c as u64, shape.t as u64);
        let g = GROUP as u64;
        // Token i sees n - T + i + 1 positions.
        let seen = t * (n - t) + t * (t + 1) / 2;
        Work { bytes: 2 * n * k * size_of::<E>() as u64 + 8 * t * g * k, operations: (4 * k + 16) * g * seen }
    }

    fn variant(kernels: &Kernels) -> usize {
        E::attention_causal(kernels) as usize
    }
}
