//! Promises of the packed ternary matrix and its product that a comparison with the scalar variant cannot show.

use kernels::ternary::{Activations, Layout, TILE_ROWS, TernaryMatrix};
use kernels::{Isa, Kernels, Rng};
use proptest::prelude::*;

/// Quantised tokens that own their numbers.
struct Tokens {
    codes: Vec<i8>,
    stride: usize,
    sums: Vec<i32>,
    scales: Vec<f32>,
}

impl Tokens {
    fn from_fn(columns: usize, tokens: usize, mut code: impl FnMut(usize, usize) -> i8) -> Tokens {
        let stride = Activations::stride_for(columns);
        let mut codes = vec![0; tokens * stride];
        for t in 0..tokens {
            for c in 0..columns {
                codes[t * stride + c] = code(t, c);
            }
        }
        let sum = |t: usize| codes[t * stride..(t + 1) * stride].iter().map(|q| i32::from(*q)).sum();
        let sums = (0..tokens).map(sum).collect();
        Tokens { codes, stride, sums, scales: (0..tokens).map(|t| 1.0 + t as f32 / 7.0).collect() }
    }

    fn random(columns: usize, tokens: usize, rng: &mut Rng) -> Tokens {
        Tokens::from_fn(columns, tokens, |_, _| rng.below(256) as u8 as i8)
    }

    fn view(&self) -> Activations<'_> {
        Activations { codes: &self.codes, stride: self.stride, sums: &self.sums, scales: &self.scales }
    }
}

#[test]
fn no_narrow_lane_overflows_at_the_extremes() {
    // The longest row of the named models, for a block of tokens and for one; then one tile of nearly 2^20 columns.
    let shapes = [(48, 17_280, 1), (32, 17_280, 13), (16, (1 << 20) - 5, 1), (16, (1 << 20) - 5, 3)];
    for (rows, columns, tokens) in shapes {
        for weight in [1i8, -1] {
            let matrix = TernaryMatrix::from_fn(rows, columns, Layout::I2, |_, _| weight);
            for code in [127i8, -128] {
                let x = Tokens::from_fn(columns, tokens, |_, _| code);
                let sum = i32::from(weight) * i32::from(code) * columns as i32;
                for isa in Isa::available() {
                    let mut out = vec![f32::NAN; rows * tokens];
                    Kernels::for_isa(isa).expect("available").ternary_matmul(matrix.view(), x.view(), &mut out);
                    for (i, got) in out.iter().enumerate() {
                        let want = sum as f32 * x.scales[i % tokens];
                        assert_eq!(*got, want, "{weight} times {code} over {columns} columns on {isa}");
                    }
                }
            }
        }
    }
}

#[test]
fn padding_counts_for_nothing() {
    // Random matrices draw whole lines; what lies outside the matrix must be weight 0 even so.
    let mut rng = Rng::new(5);
    for (rows, columns) in [(1, 1), (17, 33), (15, 16), (16, 15), (130, 70)] {
        let matrix = TernaryMatrix::random(rows, columns, Layout::I2, &mut rng);
        let packed = TernaryMatrix::from_fn(rows, columns, Layout::I2, |r, c| matrix.get(r, c));
        assert_eq!(format!("{matrix:?}"), format!("{packed:?}"));
        let x = Tokens::random(columns, 2, &mut rng);
        for kernels in Kernels::available() {
            let product = |matrix: &TernaryMatrix| {
                let mut out = vec![f32::NAN; rows * 2];
                kernels.ternary_matmul(matrix.view(), x.view(), &mut out);
                out
            };
            assert_eq!(product(&matrix), product(&packed));
        }
    }
}

proptest! {
    #[test]
    fn packing_round_trips(rows in 0usize..40, columns in 0usize..70, seed: u64) {
        let mut rng = Rng::new(seed);
        let weights: Vec<i8> = (0..rows * columns).map(|_| rng.below(3) as i8 - 1).collect();
        let matrix = TernaryMatrix::pack(&weights, rows, columns, Layout::I2);
        prop_assert_eq!((matrix.rows(), matrix.cols(), matrix.layout()), (rows, columns, Layout::I2));
        prop_assert_eq!(matrix.bytes(), rows.div_ceil(16) * columns.div_ceil(16) * 64);
        for r in 0..rows {
            for c in 0..columns {
                prop_assert_eq!(matrix.get(r, c), weights[r * columns + c]);
            }
        }
    }

    #[test]
    fn runs_of_rows_give_the_rows_of_the_whole(
        rows in 1usize..600, columns in 1usize..100, tokens in 1usize..16, cut in 0usize..40, seed: u64,
    ) {
        let mut rng = Rng::new(seed);
        let matrix = TernaryMatrix::random(rows, columns, Layout::I2, &mut rng);
        let x = Tokens::random(columns, tokens, &mut rng);
        let cut = (cut * TILE_ROWS).min(rows / TILE_ROWS * TILE_ROWS);
        for kernels in Kernels::available() {
            let mut whole = vec![f32::NAN; rows * tokens];
            kernels.ternary_matmul(matrix.view(), x.view(), &mut whole);
            let mut parts = vec![f32::NAN; rows * tokens];
            let (first, second) = parts.split_at_mut(cut * tokens);
            kernels.ternary_matmul(matrix.row_range(0..cut), x.view(), first);
            kernels.ternary_matmul(matrix.row_range(cut..rows), x.view(), second);
            prop_assert_eq!(whole, parts);
        }
    }

    #[test]
    fn a_token_gets_the_same_product_in_any_company(
        rows in 1usize..70, columns in 1usize..100, tokens in 1usize..60, seed: u64,
    ) {
        let mut rng = Rng::new(seed);
        let matrix = TernaryMatrix::random(rows, columns, Layout::I2, &mut rng);
        let x = Tokens::random(columns, tokens, &mut rng);
        for kernels in Kernels::available() {
            let mut together = vec![f32::NAN; rows * tokens];
            kernels.ternary_matmul(matrix.view(), x.view(), &mut together);
            for t in 0..tokens {
                let one = Activations {
                    codes: &x.codes[t * x.stride..][..x.stride],
                    stride: x.stride,
                    sums: &x.sums[t..=t],
                    scales: &x.scales[t..=t],
                };
                let mut alone = vec![f32::NAN; rows];
                kernels.ternary_matmul(matrix.view(), one, &mut alone);
                prop_assert!(alone.iter().enumerate().all(|(r, v)| v.to_bits() == together[r * tokens + t].to_bits()));
            }
        }
    }

    #[test]
    fn activations_may_lie_anywhere(offset in 0usize..64, rows in 1usize..40, columns in 1usize..200, seed: u64) {
        let mut rng = Rng::new(seed);
        let matrix = TernaryMatrix::random(rows, columns, Layout::I2, &mut rng);
        for tokens in [1, 7] {
            let x = Tokens::random(columns, tokens, &mut rng);
            let shifted: Vec<i8> = vec![99; offset].into_iter().chain(x.codes.iter().copied()).collect();
            let moved = Activations { codes: &shifted[offset..], ..x.view() };
            for kernels in Kernels::available() {
                let (mut here, mut there) = (vec![f32::NAN; rows * tokens], vec![f32::NAN; rows * tokens]);
                kernels.ternary_matmul(matrix.view(), x.view(), &mut here);
                kernels.ternary_matmul(matrix.view(), moved, &mut there);
                prop_assert_eq!(here, there);
            }
        }
    }
}
