//! Activation quantisation in groups: absmax int8 per 32 columns of a token.
//!
//! **Computes** for each group of 32 columns m = max|x|; scale = m / 127; q = round(x · (127 / m)), ties to even; the
//! sum of the q. A group with m below [`SMALLEST`] becomes zeros of scale 0.
//!
//! **Shapes** x `[C]`, one token; codes `[stride]` with stride a multiple of 64 and at least C, zero from C on; scales
//! and sums `[stride / 32]`.
//!
//! **Numbers** |q| <= 127: x · (127 / m) exceeds 127 by two roundings at most. |x - q · scale| <= scale / 2 and three
//! roundings of f32. Below [`SMALLEST`] the quotient would overflow.
//!
//! **Exactness** the same bits everywhere: the maximum does not depend on order, all else is exact IEEE operations. x
//! must be finite; a NaN counts as 0 and becomes code 0.
//!
//! **Cost** 4·C bytes read, C + C/4 written; about 4·C operations.
//!
//! **Source** llama.cpp's Q8_0 and Q8_1 are the same idea with f16 scales; f32 spares activations the range of f16.
//!
//! **Variants** AVX2: a group in four registers, the last group through a padded copy.
//!
//! **Not done** AVX-512: a group is two registers, and the horizontal steps decide either way.

use super::Activations;
use super::format::GROUP;
use crate::probe::{Op, Shape, Work};
use crate::{Kernels, Rng};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
pub(crate) mod scalar;

/// 2^-100: a group whose largest magnitude is below it is taken for zeros.
pub const SMALLEST: f32 = f32::from_bits((127 - 100) << 23);

/// x, codes, scales, sums.
pub(crate) type Variant = unsafe fn(&[f32], &mut [i8], &mut [f32], &mut [i32]);

/// Scale and its inverse for a group's largest magnitude.
#[inline(always)]
pub(crate) fn scale_for(max: f32) -> (f32, f32) {
    if max < SMALLEST { (0.0, 0.0) } else { (max / 127.0, 127.0 / max) }
}

impl Kernels {
    /// Quantises one token for [`Kernels::grouped_matmul`]. See [`crate::grouped::codes`].
    ///
    /// # Panics
    /// If shapes disagree.
    pub fn quantise_groups(&self, x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
        assert!(codes.len() >= x.len(), "{} codes for {} activations", codes.len(), x.len());
        assert!(codes.len().is_multiple_of(Activations::MULTIPLE), "{} codes: no multiple of 64", codes.len());
        let groups = codes.len() / GROUP;
        assert!(scales.len() == groups && sums.len() == groups, "scales and sums of {groups} groups");
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { (self.quantise_groups)(x, codes, scales, sums) }
    }
}

/// Quantised tokens that own their numbers. All have the same number of columns.
#[derive(Clone, Debug, Default)]
pub struct Codes {
    codes: Vec<i8>,
    stride: usize,
    scales: Vec<f32>,
    sums: Vec<i32>,
}

impl Codes {
    /// Room for tokens of so many columns.
    pub fn new(tokens: usize, columns: usize) -> Codes {
        let stride = Activations::stride_for(columns);
        let groups = tokens * stride / GROUP;
        Codes { codes: vec![0; tokens * stride], stride, scales: vec![0.0; groups], sums: vec![0; groups] }
    }

    /// Quantises x `[T, C]`, as many tokens as there is room for.
    ///
    /// # Panics
    /// If x has another shape.
    pub fn fill(&mut self, kernels: &Kernels, x: &[f32], columns: usize) {
        assert_eq!(self.stride, Activations::stride_for(columns), "codes of tokens of {columns} columns");
        assert_eq!(x.len() * self.stride, columns * self.codes.len(), "x [T, {columns}]");
        let groups = self.stride / GROUP;
        for (t, x) in x.chunks_exact(columns.max(1)).enumerate() {
            let of_token = t * groups..(t + 1) * groups;
            let codes = &mut self.codes[t * self.stride..][..self.stride];
            kernels.quantise_groups(x, codes, &mut self.scales[of_token.clone()], &mut self.sums[of_token]);
        }
    }

    /// Takes all tokens away and keeps the room.
    pub fn clear(&mut self) {
        self.codes.clear();
        self.scales.clear();
        self.sums.clear();
    }

    /// Quantises one more token `[C]`.
    ///
    /// # Panics
    /// If the tokens before it have another number of columns, as far as their padded width tells.
    pub fn push(&mut self, kernels: &Kernels, row: &[f32]) {
        let stride = Activations::stride_for(row.len());
        assert!(self.codes.is_empty() || self.stride == stride, "a token of {} columns", row.len());
        self.stride = stride;
        let (codes, groups) = (self.codes.len(), self.scales.len());
        self.codes.resize(codes + stride, 0);
        self.scales.resize(groups + stride / GROUP, 0.0);
        self.sums.resize(groups + stride / GROUP, 0);
        kernels.quantise_groups(row, &mut self.codes[codes..], &mut self.scales[groups..], &mut self.sums[groups..]);
    }

    /// Adds the tokens of another.
    ///
    /// # Panics
    /// If both have tokens, of different padded widths.
    pub fn append(&mut self, other: &Codes) {
        if other.codes.is_empty() {
            return;
        }
        assert!(self.codes.is_empty() || self.stride == other.stride, "tokens of another width");
        self.stride = other.stride;
        self.codes.extend_from_slice(&other.codes);
        self.scales.extend_from_slice(&other.scales);
        self.sums.extend_from_slice(&other.sums);
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        self.codes.capacity() + 4 * (self.scales.capacity() + self.sums.capacity())
    }

    /// What a product reads.
    pub fn view(&self) -> Activations<'_> {
        Activations { codes: &self.codes, stride: self.stride, scales: &self.scales, sums: &self.sums }
    }
}

/// The op, for [`OPS`](crate::probe::OPS). A shape is 1 × C × T.
pub(crate) struct QuantiseGroups;

/// Tokens and the places for their codes.
pub(crate) struct Case {
    columns: usize,
    x: Vec<f32>,
    codes: Codes,
}

impl Op for QuantiseGroups {
    const NAME: &'static str = "quantise/groups";
    type Case = Case;

    fn shapes() -> Vec<Shape> {
        // Eight kinds of group (see `case`).
        let widths = [1, 2, 7, 8, 9, 31, 32, 33, 63, 64, 65, 96, 97, 127, 256, 1000];
        let models = [Shape::new(1, 2560, 1), Shape::new(1, 6912, 1), Shape::new(1, 2560, 16)];
        widths.into_iter().map(|c| Shape::new(1, c, 8)).chain(models).collect()
    }

    fn model_shapes() -> Vec<Shape> {
        vec![Shape::new(1, 2560, 1), Shape::new(1, 6912, 1), Shape::new(1, 2560, 16)]
    }

    fn admit(shape: Shape) -> Shape {
        Shape::new(1, shape.c.max(1), shape.t)
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case {
        let mut x = Vec::with_capacity(shape.t * shape.c);
        while x.len() < shape.t * shape.c {
            // Ordinary groups, zeros, groups near SMALLEST and of denormals, huge ones, groups full of ties, a NaN.
            let kind = rng.below(8);
            let number = |rng: &mut Rng| match kind {
                0 => 0.0,
                1 => rng.normal() * SMALLEST,
                2 => rng.normal() * 1e-40,
                3 => rng.normal() * 5e37,
                4 => (rng.below(509) as f32 - 254.0) / 2.0,
                5 if rng.below(GROUP) == 0 => f32::NAN,
                _ => rng.normal(),
            };
            x.extend((0..GROUP).map(|_| number(rng)));
            if kind == 4 {
                *x.last_mut().expect("32 numbers") = -127.0;
            }
        }
        x.truncate(shape.t * shape.c);
        Case { columns: shape.c, x, codes: Codes::new(shape.t, shape.c) }
    }

    fn run(kernels: &Kernels, case: &mut Case) {
        case.codes.fill(kernels, &case.x, case.columns);
    }

    fn output(case: &Case) -> Vec<f32> {
        let Codes { codes, scales, sums, .. } = &case.codes;
        let exact = codes.iter().map(|code| f32::from(*code)).chain(sums.iter().map(|sum| *sum as f32));
        exact.chain(scales.iter().copied()).collect()
    }

    fn work(shape: &Shape) -> Work {
        let (c, t) = (shape.c as u64, shape.t as u64);
        Work { bytes: (5 * c + c / 4) * t, operations: 4 * c * t }
    }

    fn variant(kernels: &Kernels) -> usize {
        kernels.quantise_groups as usize
    }
}

/// Codes of random numbers, for the other ops.
pub(crate) fn random(kernels: &Kernels, tokens: usize, columns: usize, rng: &mut Rng) -> Codes {
    let x: Vec<f32> = (0..tokens * columns).map(|_| rng.normal() * [1.0, 0.01, 30.0][rng.below(3)]).collect();
    let mut codes = Codes::new(tokens, columns);
    codes.fill(kernels, &x, columns);
    codes
}
