//! The k largest elements, in order.
//!
//! **Computes** the indices of the k largest elements of x, largest first; of equal elements the lower index first. NaN
//! is below everything.
//!
//! **Shapes** x `[n]`; indices `[k]`, k <= n < 2^32.
//!
//! **Numbers** compared, never computed with; -0 and +0 are equal.
//!
//! **Exactness** the same indices everywhere.
//!
//! **Cost** 4·n bytes; about n comparisons while k is small beside n, n log k at worst. No memory beyond the indices: they
//! are the heap.
//!
//! **Source** selection by a heap of the best so far; Knuth, The Art of Computer Programming 3, 5.2.3.
//!
//! **Variants** AVX2 and AVX-512 compare 32 and 64 elements at a time with the lowest of the best; the heap is the same
//! code.
//!
//! **Not done** a selection in linear time for k near n: sampling wants few.

use crate::probe::{Op, Shape, Work};
use crate::{Kernels, Rng};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

/// x `[n]`, indices `[k]` to fill.
pub(crate) type Variant = unsafe fn(&[f32], &mut [u32]);

impl Kernels {
    /// Fills `indices` `[k]` with the positions of the k largest elements of `x`, largest first. See [`crate::top_k`].
    ///
    /// # Panics
    /// If k is above the number of elements, or there are 2^32 elements or more.
    pub fn top_k(&self, x: &[f32], indices: &mut [u32]) {
        assert!(indices.len() <= x.len(), "top {} of {}", indices.len(), x.len());
        assert!(u32::try_from(x.len()).is_ok(), "{} elements", x.len());
        if indices.is_empty() {
            return;
        }
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { (self.top_k)(x, indices) }
    }
}

/// The op, for [`OPS`](crate::probe::OPS). A shape is k × n × 1.
pub(crate) struct TopK;

/// Scores, and the positions of the best.
pub(crate) struct Case {
    x: Vec<f32>,
    indices: Vec<u32>,
}

impl Op for TopK {
    const NAME: &'static str = "top_k";
    type Case = Case;

    fn shapes() -> Vec<Shape> {
        let mut shapes = vec![Shape::new(0, 0, 1), Shape::new(0, 5, 1)];
        for n in [1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 257] {
            for k in [1, 2, 7, n / 2, n - 1, n] {
                if (1..=n).contains(&k) {
                    shapes.push(Shape::new(k, n, 1));
                }
            }
        }
        shapes.extend([(1, 32000), (40, 32000), (1, 128_256), (40, 128_256)].map(|(k, n)| Shape::new(k, n, 1)));
        shapes
    }

    fn admit(shape: Shape) -> Shape {
        Shape::new(shape.r.min(shape.c), shape.c, 1)
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case {
        // Few distinct values where there are few elements, so that ties are common; now and then a NaN.
        let round = |x: f32| if shape.c < 1000 { (x * 4.0).round() / 4.0 } else { x };
        let mut number = || if rng.below(50) == 0 { f32::NAN } else { round(rng.normal()) };
        Case { x: (0..shape.c).map(|_| number()).collect(), indices: vec![u32::MAX; shape.r] }
    }

    fn run(kernels: &Kernels, case: &mut Case) {
        kernels.top_k(&case.x, &mut case.indices);
    }

    fn output(case: &Case) -> Vec<f32> {
        // Exact: positions are below 2^24.
        case.indices.iter().map(|i| *i as f32).collect()
    }

    fn work(shape: &Shape) -> Work {
        Work { bytes: 4 * (shape.c + shape.r) as u64, operations: shape.c as u64 }
    }

    fn variant(kernels: &Kernels) -> usize {
        kernels.top_k as usize
    }
}

#[cfg(test)]
mod tests {
    use super::scalar::above;
    use super::*;

    #[test]
    fn every_isa_finds_the_head_of_a_full_stable_sort() {
        let mut rng = Rng::new(11);
        for shape in TopK::shapes().into_iter().filter(|shape| shape.c < 1000) {
            let mut case = TopK::case(&shape, &mut rng);
            let mut sorted: Vec<u32> = (0..shape.c as u32).collect();
            sorted.sort_by(|i, j| {
                let (a, b) = (case.x[*i as usize], case.x[*j as usize]);
                above(b, a).cmp(&above(a, b))
            });
            for kernels in Kernels::available() {
                TopK::run(kernels, &mut case);
                assert_eq!(case.indices, sorted[..shape.r], "{shape} on {}", kernels.isa());
            }
        }
    }

    #[test]
    fn a_whole_sorted_vocabulary_takes_no_quadratic_time() {
        // Ascending order replaces the lowest at every step; quadratic insertion would need 8e9 moves here.
        let x: Vec<f32> = (0..128_256).map(|i| i as f32).collect();
        for k in [x.len() / 2, x.len()] {
            for kernels in Kernels::available() {
                let mut indices = vec![0; k];
                kernels.top_k(&x, &mut indices);
                assert!(indices.iter().rev().is_sorted() && indices[0] == 128_255);
            }
        }
    }
}
