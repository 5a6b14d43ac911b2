//! A ternary layout of your own, checked, timed and reported beside those of the project: one byte a weight, row by row.

use std::arch::x86_64::*;
use std::process::ExitCode;

use harness::guests::{self, Guests};
use kernels::probe::probe;
use kernels::ternary::{Activations, GuestLayout, GuestProduct};
use kernels::{Isa, Kernels};

struct Bytes;

/// `[R, stride]`, zero beyond the last column.
struct Matrix {
    weights: Vec<i8>,
    stride: usize,
}

impl GuestLayout for Bytes {
    const NAME: &'static str = "mine/bytes";
    const BITS: f64 = 8.0;
    type Matrix = Matrix;

    fn pack(rows: usize, columns: usize, trit: &dyn Fn(usize, usize) -> i8) -> Matrix {
        let stride = Activations::stride_for(columns);
        let weight = |i: usize| if i % stride < columns { trit(i / stride, i % stride) } else { 0 };
        Matrix { weights: (0..rows * stride).map(weight).collect(), stride }
    }

    fn matmul(_: &Kernels, matrix: &Matrix, x: Activations<'_>, out: &mut [f32]) {
        // SAFETY: a table above the scalar one exists only on CPUs with AVX2.
        unsafe { avx2(matrix, x, out) }
    }

    fn variant(_: Isa) -> usize {
        avx2 as *const () as usize
    }
}

/// Sixteen products at a time, added in pairs into lanes of 32 bits.
#[target_feature(enable = "avx2")]
fn avx2(matrix: &Matrix, x: Activations<'_>, out: &mut [f32]) {
    let (stride, tokens) = (matrix.stride, x.scales.len());
    for (r, out) in out.chunks_exact_mut(tokens.max(1)).enumerate() {
        for (t, out) in out.iter_mut().enumerate() {
            let (row, codes) = (&matrix.weights[r * stride..][..stride], &x.codes[t * stride..][..stride]);
            let mut sums = _mm256_setzero_si256();
            for (w, q) in row.as_chunks::<16>().0.iter().zip(codes.as_chunks::<16>().0) {
                // SAFETY: both are sixteen bytes long.
                let (w, q) = unsafe { (_mm_loadu_si128(w.as_ptr().cast()), _mm_loadu_si128(q.as_ptr().cast())) };
                sums = _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_cvtepi8_epi16(w), _mm256_cvtepi8_epi16(q)));
            }
            let mut lanes = [0i32; 8];
            // SAFETY: eight lanes of four bytes.
            unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sums) };
            *out = lanes.iter().sum::<i32>() as f32 * x.scales[t];
        }
    }
}

fn main() -> ExitCode {
    guests::run(&Guests { ops: vec![probe::<GuestProduct<Bytes>>()] })
}

#[test]
fn it_computes_what_the_specification_computes() {
    kernels::conformance::check(&probe::<GuestProduct<Bytes>>(), 10_000).unwrap();
}
