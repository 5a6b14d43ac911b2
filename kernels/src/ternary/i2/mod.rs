//! Ternary product on the two-bit layout.
//!
//! **Computes** `out[r, t] = (sum over c of w[r, c] * q[t, c]) * scale[t]`: the sum in integers, then one conversion to
//! `f32` and one multiplication.
//!
//! **Shapes** weights `R × C` in [`Layout::I2`]; codes `[T, stride]`; sums and scales `[T]`; out `[R, T]`.
//!
//! **Numbers** Weights are stored as codes w + 1 in 0..=2, so a variant forms sum((w + 1) q) and subtracts sum(q). Code 3
//! is never written and loaders refuse it; were it there, every variant would read it as weight 2. AVX-512 keeps half of
//! the columns four times too large in 32 bits: at most 3 · 4 · 128 · C / 2 in magnitude, below 2^31 while C < 2^21, which
//! the front door asserts. A 16-bit partial sum (AVX2: two products, at most 2 · 3 · 128 = 768) holds 42 additions; it is
//! widened after 32.
//!
//! **Exactness** integers throughout, one rounding to `f32` and one in the product: the same bits everywhere.
//!
//! **Cost** R·C/4 bytes of weights; 2·R·C·T operations.
//!
//! **Source** BitNet b1.58 (arXiv 2402.17764); activations as in its equations 4 and 5.
//!
//! **Variants** AVX-512 (VNNI): `vpdpbusd`, eight tiles far apart for one token, blocks of two tiles and twelve tokens for
//! many. AVX2: `vpmaddubsw` with 16-bit sums, the same eight streams, blocks of one tile and four tokens.
//!
//! **Tried and dropped** three shifts a line for one token (AVX-512 sums two planes four times too large instead: nine
//! instructions a line, not eleven); AVX2 with a plane of all lines at a time for one token (the compiler kept the lines
//! in registers and spilled the sums: 83 G weights/s in cache against 91); prefetching anywhere from 0.5 to 2.5 KiB ahead
//! is alike, 4 KiB loses 5 %.
//!
//! **Not done** the 1.6-bit and table-lookup layouts; a packed copy of the activations (loads are not what holds blocks
//! back); one pass over the weights for prompts whose codes exceed half a mebibyte.

use super::{Activations, Layout, TernaryMatrix, TernaryRows};
use crate::probe::{Op, Shape, Work};
use crate::{Kernels, Line, Rng};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

/// `lines` `[tiles, groups]`; `rows` of the run (the last tile may be part empty); codes, sums and scales as in
/// [`Activations`]; out `[rows, T]`.
pub(crate) type Variant = unsafe fn(Weights<'_>, Activations<'_>, &mut [f32]);

/// The weights as a variant sees them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weights<'a> {
    /// Rows to compute; the last tile may be part empty.
    pub(crate) rows: usize,
    /// Lines to a tile.
    pub(crate) groups: usize,
    /// `[tiles, groups]`.
    pub(crate) lines: &'a [Line],
}

impl Kernels {
    /// `out[r, t] = (w · q)[r, t] * scales[t]`; out `[R, T]`. See [`crate::ternary::i2`].
    ///
    /// # Panics
    /// If shapes disagree.
    pub fn ternary_matmul(&self, weights: TernaryRows<'_>, x: Activations<'_>, out: &mut [f32]) {
        let tokens = x.scales.len();
        assert_eq!(x.stride, Activations::stride_for(weights.cols), "stride of codes for {} columns", weights.cols);
        assert_eq!(x.codes.len(), tokens * x.stride, "codes of {tokens} tokens");
        assert_eq!(x.sums.len(), tokens, "sums of {tokens} tokens");
        assert_eq!(out.len(), weights.rows * tokens, "out [{}, {tokens}]", weights.rows);
        assert!(weights.cols < 1 << 21, "{} columns could overflow 32-bit sums", weights.cols);
        if out.is_empty() {
            return;
        }
        match weights.layout {
            Layout::I2 => {
                let weights = Weights { rows: weights.rows, groups: weights.groups, lines: weights.lines };
                // SAFETY: this table exists only if the CPU has the variant's features.
                unsafe { (self.ternary_i2)(weights, x, out) }
            }
        }
    }
}

/// The op, for [`OPS`](crate::probe::OPS). A shape is R × C × T.
pub(crate) struct TernaryI2;

/// A matrix, quantised tokens and the place for the products.
pub(crate) struct Case {
    matrix: TernaryMatrix,
    codes: Vec<i8>,
    sums: Vec<i32>,
    scales: Vec<f32>,
    out: Vec<f32>,
}

impl Op for TernaryI2 {
    const NAME: &'static str = "ternary/i2";
    const ARITHMETIC: crate::probe::Arithmetic = crate::probe::Arithmetic::Int8;
    type Case = Case;

    fn shapes() -> Vec<Shape> {
        // Boundaries: 16 rows a tile, 8 tiles side by side; 16 columns a line, 64 a padding group; token blocks of 8.
        let mut shapes = Vec::new();
        for r in [0, 1, 15, 16, 17, 31, 127, 128, 129, 257] {
            for c in [0, 1, 15, 16, 17, 63, 64, 65, 131] {
                shapes.push(Shape::new(r, c, 1));
            }
        }
        for t in [0, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 17, 31, 33] {
            shapes.push(Shape::new(37, 67, t));
        }
        for (r, c) in [(2560, 2560), (640, 2560), (6912, 2560), (2560, 6912)] {
            shapes.push(Shape::new(r, c, 1));
        }
        shapes.push(Shape::new(256, 2560, 64));
        shapes
    }

    fn model_shapes() -> Vec<Shape> {
        // The projections of a 2B model for one token and for prompts, then a matrix beyond every cache.
        [
            (640, 2560, 1),
            (2560, 2560, 1),
            (2560, 6912, 1),
            (6912, 2560, 1),
            (2560, 2560, 4),
            (2560, 6912, 64),
            (6912, 2560, 128),
            (204_800, 2560, 1),
        ]
        .map(|(r, c, t)| Shape::new(r, c, t))
        .to_vec()
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case {
        let stride = Activations::stride_for(shape.c);
        let mut codes = vec![0i8; shape.t * stride];
        for row in codes.chunks_exact_mut(stride.max(1)) {
            row[..shape.c].fill_with(|| rng.below(256) as u8 as i8);
        }
        let sums = codes.chunks_exact(stride.max(1)).map(|row| row.iter().map(|q| i32::from(*q)).sum()).collect();
        Case {
            matrix: TernaryMatrix::random(shape.r, shape.c, Layout::I2, rng),
            sums: if stride == 0 { vec![0; shape.t] } else { sums },
            codes,
            scales: (0..shape.t).map(|_| rng.unit() + 0.5).collect(),
            out: vec![f32::NAN; shape.r * shape.t],
        }
    }

    fn run(kernels: &Kernels, case: &mut Case) {
        let stride = Activations::stride_for(case.matrix.cols());
        let x = Activations { codes: &case.codes, stride, sums: &case.sums, scales: &case.scales };
        kernels.ternary_matmul(case.matrix.view(), x, &mut case.out);
    }

    fn output(case: &Case) -> Vec<f32> {
        case.out.clone()
    }

    fn work(shape: &Shape) -> Work {
        let (r, c, t) = (shape.r as u64, shape.c as u64, shape.t as u64);
        Work { bytes: r * c / 4 + c * t + 4 * r * t, operations: 2 * r * c * t }
    }

    fn variant(kernels: &Kernels) -> usize {
        kernels.ternary_i2 as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Isa, Lines};

    #[test]
    fn every_packed_byte_means_the_same_on_every_isa() {
        // Every byte in every one of the 64 places of a line: 256 groups, in which byte i of line g is g + i mod 256.
        let (groups, rows) = (256, 16);
        let mut lines = Lines::zeroed(groups);
        for (g, line) in lines.iter_mut().enumerate() {
            for (i, byte) in line.0.iter_mut().enumerate() {
                *byte = (g + i) as u8;
            }
        }
        let weights = Weights { rows, groups, lines: &lines };
        let mut rng = Rng::new(3);
        for tokens in [1, 2, 3, 5, 8, 13] {
            let stride = 16 * groups;
            let codes: Vec<i8> = (0..tokens * stride).map(|_| rng.below(256) as u8 as i8).collect();
            let sums: Vec<i32> = codes.chunks(stride).map(|row| row.iter().map(|q| i32::from(*q)).sum()).collect();
            let x = Activations { codes: &codes, stride, sums: &sums, scales: &vec![1.0; tokens] };
            // Code 3 counts as weight 2, for scalar too.
            let weight = |r: usize, c: usize| i32::from(lines[c / 16].0[4 * r + c % 4] >> (c % 16 / 4 * 2) & 3) - 1;
            for isa in Isa::available() {
                let kernels = Kernels::for_isa(isa).expect("available");
                let mut out = vec![f32::NAN; rows * tokens];
                // SAFETY: the table exists, so the CPU has the variant's features; the shapes agree.
                unsafe { (kernels.ternary_i2)(weights, x, &mut out) };
                for (r, out) in out.chunks(tokens).enumerate() {
                    for (t, got) in out.iter().enumerate() {
                        let row = &codes[t * stride..][..stride];
                        let sum: i32 = row.iter().enumerate().map(|(c, q)| weight(r, c) * i32::from(*q)).sum();
                        assert_eq!(*got, sum as f32, "row {r}, token {t} of {tokens} on {isa}");
                    }
                }
            }
        }
    }
}
