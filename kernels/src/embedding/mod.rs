//! Embedding gather.
//!
//! **Computes** `out[t] = table[ids[t]]`, widened to f32.
//!
//! **Shapes** table `[V, D]`, ids `[T]`, out `[T, D]`.
//!
//! **Exactness** the same bits everywhere: widening is exact.
//!
//! **Cost** T·D times (the stored bytes + 4).
//!
//! **Variants** AVX2 for bf16 and f16: eight numbers at a time. f32 is a copy, which the scalar variant does as fast.
//!
//! **Not done** AVX-512: a token's row is a few cache lines, and fetching them is what takes the time.

use crate::probe::{Op, Shape, Work};
use crate::{Element, Kernels, Rng};
use std::marker::PhantomData;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
pub(crate) mod scalar;

/// table `[V, D]`, ids `[T]` (each below V), D, out `[T, D]`.
pub(crate) type Variant<E> = unsafe fn(&[E], &[u32], usize, &mut [f32]);

impl Kernels {
    /// Rows `ids` of `table` `[V, width]` into `out` `[T, width]`. See [`crate::embedding`].
    ///
    /// # Panics
    /// If shapes disagree or an id is not below V.
    pub fn embed<E: Element>(&self, table: &[E], ids: &[u32], width: usize, out: &mut [f32]) {
        assert!(width > 0 && table.len().is_multiple_of(width), "table [V, {width}] has {} elements", table.len());
        assert_eq!(out.len(), ids.len() * width, "out [{}, {width}]", ids.len());
        let vocabulary = table.len() / width;
        for id in ids {
            assert!((*id as usize) < vocabulary, "token {id} of a vocabulary of {vocabulary}");
        }
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { E::embedding(self)(table, ids, width, out) }
    }
}

/// The op for one format of the table, for [`OPS`](crate::probe::OPS). A shape is V × D × T.
pub(crate) struct Embedding<E>(PhantomData<E>);

/// A table, ids and the place for the rows.
pub(crate) struct Case<E> {
    width: usize,
    table: Vec<E>,
    ids: Vec<u32>,
    out: Vec<f32>,
}

impl<E: Element> Op for Embedding<E> {
    const NAME: &'static str = match E::NAME.as_bytes() {
        b"f32" => "embedding/f32",
        b"bf16" => "embedding/bf16",
        b"f16" => "embedding/f16",
        _ => panic!("a format without a name for its op"),
    };
    type Case = Case<E>;

    fn shapes() -> Vec<Shape> {
        let widths = [1, 7, 8, 9, 15, 16, 17, 31, 33, 256];
        let models = [Shape::new(500, 2560, 1), Shape::new(500, 2560, 64)];
        widths.into_iter().map(|d| Shape::new(11, d, 5)).chain([Shape::new(1, 20, 0)]).chain(models).collect()
    }

    fn model_shapes() -> Vec<Shape> {
        vec![Shape::new(500, 2560, 1), Shape::new(500, 2560, 64)]
    }

    fn admit(shape: Shape) -> Shape {
        Shape::new(shape.r.max(1), shape.c.max(1), shape.t)
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case<E> {
        Case {
            width: shape.c,
            // Any bits: subnormals, infinities and NaNs among them.
            table: (0..shape.r * shape.c).map(|_| E::narrow(f32::from_bits(rng.next_u64() as u32))).collect(),
            ids: (0..shape.t).map(|_| rng.below(shape.r) as u32).collect(),
            out: vec![f32::NAN; shape.c * shape.t],
        }
    }

    fn run(kernels: &Kernels, case: &mut Case<E>) {
        kernels.embed(&case.table, &case.ids, case.width, &mut case.out);
    }

    fn output(case: &Case<E>) -> Vec<f32> {
        case.out.clone()
    }

    fn work(shape: &Shape) -> Work {
        let numbers = (shape.c * shape.t) as u64;
        Work { bytes: numbers * (size_of::<E>() as u64 + 4), operations: numbers }
    }

    fn variant(kernels: &Kernels) -> usize {
        E::embedding(kernels) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn every_sixteen_bit_pattern_widens_alike_on_every_isa() {
        let bf16s: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
        let f16s: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        for kernels in Kernels::available() {
            let mut out = vec![0.0; 1 << 16];
            kernels.embed(&bf16s, &[0], 1 << 16, &mut out);
            assert!(out.iter().zip(&bf16s).all(|(got, stored)| got.to_bits() == stored.to_f32().to_bits()));
            kernels.embed(&f16s, &[0], 1 << 16, &mut out);
            assert!(out.iter().zip(&f16s).all(|(got, stored)| got.to_bits() == stored.to_f32().to_bits()));
        }
    }
}
