//! Promises of the packed ternary matrix and its product that a comparison with the scalar variant cannot show.

use kernels::ternary::{Activations, Layout, TernaryMatrix};
use kernels::{Kernels, Lines, Rng};
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
        Activations { codes: &self.codes, stride: self.stride, sums: &self.sums, scales: &self.scales, tables: &[] }
    }
}

/// The product of all rows, with the tables that the layout wants.
fn product(kernels: &Kernels, matrix: &TernaryMatrix, x: Activations<'_>) -> Vec<f32> {
    let tokens = x.scales.len();
    let mut tables = Lines::zeroed(kernels.ternary_table_lines(matrix.layout(), matrix.cols(), tokens));
    kernels.ternary_tables(matrix.layout(), matrix.cols(), x.codes, &mut tables);
    let mut out = vec![f32::NAN; matrix.rows() * tokens];
    kernels.ternary_matmul(matrix.view(), Activations { tables: &tables, ..x }, &mut out);
    out
}

/// Any layout.
fn layouts() -> impl Strategy<Value = Layout> {
    (0..Layout::ALL.len()).prop_map(|i| Layout::ALL[i])
}

#[test]
fn no_narrow_lane_overflows_at_the_extremes() {
    // The longest row of the named models, for a block of tokens and for one; then one tile of nearly 2^20 columns.
    let shapes = [(48, 17_280, 1), (32, 17_280, 13), (16, (1 << 20) - 5, 1), (16, (1 << 20) - 5, 3)];
    for layout in Layout::ALL {
        for (rows, columns, tokens) in shapes {
            for weight in [1i8, -1] {
                let matrix = TernaryMatrix::from_fn(rows, columns, layout, |_, _| weight);
                for code in [127i8, -128] {
                    let x = Tokens::from_fn(columns, tokens, |_, _| code);
                    let sum = i32::from(weight) * i32::from(code) * columns as i32;
                    for kernels in Kernels::available() {
                        if layout == Layout::T5 {
                            let mut by_digits = vec![f32::NAN; matrix.rows() * tokens];
                            kernels.ternary_t5_digits_matmul(matrix.view(), x.view(), &mut by_digits);
                            assert_eq!(by_digits, product(kernels, &matrix, x.view()), "digits on {}", kernels.isa());
                        }
                        for (i, got) in product(kernels, &matrix, x.view()).into_iter().enumerate() {
                            let want = sum as f32 * x.scales[i % tokens];
                            let isa = kernels.isa();
                            assert_eq!(got, want, "{layout}@{isa}: {weight} times {code} over {columns} columns");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn padding_holds_zeros() {
    // Random matrices are drawn by whole lines; what lies outside the matrix must be weight 0 even so.
    let mut rng = Rng::new(5);
    for (rows, columns) in [(1, 1), (17, 33), (15, 16), (16, 15), (64, 20), (130, 70)] {
        for layout in Layout::ALL {
            let matrix = TernaryMatrix::random(rows, columns, layout, &mut rng);
            let packed = TernaryMatrix::from_fn(rows, columns, layout, |r, c| matrix.get(r, c));
            assert_eq!(matrix, packed);
            let zeros = TernaryMatrix::zeros(rows, columns, layout);
            assert_eq!(zeros, TernaryMatrix::from_fn(rows, columns, layout, |_, _| 0));
        }
    }
}

#[test]
fn every_five_trits_mean_the_same_in_every_row_on_every_isa() {
    // Line l of the only tile of layout t5 holds in byte r the combination l + r modulo 243.
    let combinations: usize = 243;
    let (rows, columns) = (64, combinations.div_ceil(4) * 20);
    let weight = |r: usize, c: usize| {
        let (line, trit) = (c / 20 * 4 + c % 4, c % 20 / 4);
        ((line + r) % combinations / [1, 3, 9, 27, 81][trit] % 3) as i8 - 1
    };
    let matrix = TernaryMatrix::from_fn(rows, columns, Layout::T5, weight);
    let mut rng = Rng::new(3);
    for tokens in [1, 2, 5, 6, 7, 65] {
        let x = Tokens::random(columns, tokens, &mut rng);
        for kernels in Kernels::available() {
            let mut by_digits = vec![f32::NAN; rows * tokens];
            kernels.ternary_t5_digits_matmul(matrix.view(), x.view(), &mut by_digits);
            assert_eq!(by_digits, product(kernels, &matrix, x.view()), "{tokens} tokens on {}", kernels.isa());
            for (i, got) in product(kernels, &matrix, x.view()).into_iter().enumerate() {
                let (r, t) = (i / tokens, i % tokens);
                let codes = &x.codes[t * x.stride..][..columns];
                let sum: i32 = codes.iter().enumerate().map(|(c, q)| i32::from(weight(r, c)) * i32::from(*q)).sum();
                assert_eq!(got, sum as f32 * x.scales[t], "row {r}, token {t} of {tokens} on {}", kernels.isa());
            }
        }
    }
}

#[test]
fn names_of_layouts_are_unique_and_parse() {
    for layout in Layout::ALL {
        assert_eq!(layout.name().parse(), Ok(layout));
    }
    let message = "i9".parse::<Layout>().unwrap_err();
    assert!(message.contains("'i9'") && message.contains("i2"), "{message}");
}

/// The product with tables of bytes.
fn rounded_product(kernels: &Kernels, matrix: &TernaryMatrix, x: Activations<'_>) -> Vec<f32> {
    let tokens = x.scales.len();
    let mut tables = Lines::zeroed(kernels.ternary_tmac8_table_lines(matrix.cols(), tokens));
    kernels.ternary_tmac8_tables(matrix.cols(), x.codes, &mut tables);
    let mut out = vec![f32::NAN; matrix.rows() * tokens];
    kernels.ternary_tmac8_matmul(matrix.view(), Activations { tables: &tables, ..x }, &mut out);
    out
}

#[test]
fn no_narrow_lane_of_the_rounded_product_overflows() {
    let columns = (1 << 20) - 5;
    for weight in [1i8, -1] {
        let matrix = TernaryMatrix::from_fn(33, columns, Layout::Tmac, |_, _| weight);
        for code in [127i8, -128] {
            let x = Tokens::from_fn(columns, 1, |_, _| code);
            let want = f64::from(weight) * f64::from(code) * columns as f64;
            for kernels in Kernels::available() {
                for got in rounded_product(kernels, &matrix, x.view()) {
                    assert!(
                        (f64::from(got) - want).abs() <= want.abs() * 0.01,
                        "{got} for {want} on {}",
                        kernels.isa()
                    );
                }
            }
        }
    }
}

#[test]
fn the_rounded_product_is_as_near_as_its_module_says() {
    // The root mean square of the error against that of the products, over full rows of random codes.
    let mut rng = Rng::new(8);
    let (rows, columns, tokens) = (320, 2560, 4);
    let matrix = TernaryMatrix::random(rows, columns, Layout::Tmac, &mut rng);
    let x = Tokens::random(columns, tokens, &mut rng);
    let kernels = Kernels::best();
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v) * f64::from(v)).sum::<f64>();
    let exact = product(kernels, &matrix, x.view());
    let rounded = rounded_product(kernels, &matrix, x.view());
    let error = square(&mut exact.iter().zip(&rounded).map(|(a, b)| a - b)) / square(&mut exact.iter().copied());
    assert!((0.004..0.007).contains(&error.sqrt()), "{}", error.sqrt());
}

proptest! {
    #[test]
    fn the_rounded_product_keeps_its_bound(
        rows in 1usize..140, columns in 1usize..300, tokens in 1usize..8, largest in 1usize..=256, seed: u64,
    ) {
        let mut rng = Rng::new(seed);
        let matrix = TernaryMatrix::random(rows, columns, Layout::Tmac, &mut rng);
        let half = largest as i32 / 2;
        let mut x = Tokens::from_fn(columns, tokens, |_, _| (rng.below(largest) as i32 - half) as i8);
        x.scales.fill(1.0);
        for kernels in Kernels::available() {
            let exact = product(kernels, &matrix, x.view());
            let rounded = rounded_product(kernels, &matrix, x.view());
            for (i, (exact, rounded)) in exact.iter().zip(rounded).enumerate() {
                let codes = &x.codes[i % tokens * x.stride..][..x.stride];
                let sums = codes.chunks(4).map(|four| four.iter().map(|q| i32::from(*q).abs()).sum());
                let most = sums.max().unwrap_or(0);
                // A step for each four columns, and a little for the two roundings of the result.
                let multiplier = (255 * 1024 / most.max(1)).min(1024);
                let step = if multiplier == 1024 { 0.0 } else { 1024.0 / multiplier as f32 };
                let bound = columns.div_ceil(4) as f32 * step + exact.abs() * 1e-6;
                prop_assert!((exact - rounded).abs() <= bound, "{rounded} for {exact}, bound {bound}");
            }
        }
    }

    #[test]
    fn packing_round_trips(layout in layouts(), rows in 0usize..140, columns in 0usize..140, seed: u64) {
        let mut rng = Rng::new(seed);
        let weights: Vec<i8> = (0..rows * columns).map(|_| rng.below(3) as i8 - 1).collect();
        let matrix = TernaryMatrix::pack(&weights, rows, columns, layout);
        prop_assert_eq!((matrix.rows(), matrix.cols(), matrix.layout()), (rows, columns, layout));
        for r in 0..rows {
            for c in 0..columns {
                prop_assert_eq!(matrix.get(r, c), weights[r * columns + c]);
            }
        }
        for other in Layout::ALL {
            let packed = TernaryMatrix::pack(&weights, rows, columns, other);
            prop_assert!(matrix.to_layout(other) == packed, "{layout} to {other}");
        }
    }

    #[test]
    fn runs_of_rows_give_the_rows_of_the_whole(
        layout in layouts(), rows in 1usize..600, columns in 1usize..100, tokens in 1usize..16, cut in 0usize..40, seed: u64,
    ) {
        let mut rng = Rng::new(seed);
        let matrix = TernaryMatrix::random(rows, columns, layout, &mut rng);
        let x = Tokens::random(columns, tokens, &mut rng);
        let tile = layout.tile_rows();
        let cut = (cut * tile).min(rows / tile * tile);
        for kernels in Kernels::available() {
            let mut tables = Lines::zeroed(kernels.ternary_table_lines(layout, columns, tokens));
            kernels.ternary_tables(layout, columns, &x.codes, &mut tables);
            let x = Activations { tables: &tables, ..x.view() };
            let mut parts = vec![f32::NAN; rows * tokens];
            let (first, second) = parts.split_at_mut(cut * tokens);
            kernels.ternary_matmul(matrix.row_range(0..cut), x, first);
            kernels.ternary_matmul(matrix.row_range(cut..rows), x, second);
            prop_assert_eq!(product(kernels, &matrix, x), parts);
        }
    }

    #[test]
    fn a_token_gets_the_same_product_in_any_company(
        layout in layouts(), rows in 1usize..140, columns in 1usize..100, tokens in 1usize..60, seed: u64,
    ) {
        let mut rng = Rng::new(seed);
        let matrix = TernaryMatrix::random(rows, columns, layout, &mut rng);
        let x = Tokens::random(columns, tokens, &mut rng);
        for kernels in Kernels::available() {
            let together = product(kernels, &matrix, x.view());
            for t in 0..tokens {
                let one = Activations {
                    codes: &x.codes[t * x.stride..][..x.stride],
                    stride: x.stride,
                    sums: &x.sums[t..=t],
                    scales: &x.scales[t..=t],
                    tables: &[],
                };
                let alone = product(kernels, &matrix, one);
                prop_assert!(alone.iter().enumerate().all(|(r, v)| v.to_bits() == together[r * tokens + t].to_bits()));
            }
        }
    }

    #[test]
    fn layouts_agree(rows in 1usize..300, columns in 1usize..300, tokens in 1usize..20, seed: u64) {
        let mut rng = Rng::new(seed);
        let matrix = TernaryMatrix::random(rows, columns, Layout::I2, &mut rng);
        let x = Tokens::random(columns, tokens, &mut rng);
        for kernels in Kernels::available() {
            let plain = product(kernels, &matrix, x.view());
            for layout in Layout::ALL {
                prop_assert!(product(kernels, &matrix.to_layout(layout), x.view()) == plain, "{layout}@{}", kernels.isa());
            }
        }
    }

    #[test]
    fn activations_may_lie_anywhere(
        layout in layouts(), offset in 0usize..64, rows in 1usize..40, columns in 1usize..200, seed: u64,
    ) {
        let mut rng = Rng::new(seed);
        let matrix = TernaryMatrix::random(rows, columns, layout, &mut rng);
        for tokens in [1, 7] {
            let x = Tokens::random(columns, tokens, &mut rng);
            let shifted: Vec<i8> = vec![99; offset].into_iter().chain(x.codes.iter().copied()).collect();
            let moved = Activations { codes: &shifted[offset..], ..x.view() };
            for kernels in Kernels::available() {
                prop_assert_eq!(product(kernels, &matrix, x.view()), product(kernels, &matrix, moved));
            }
        }
    }
}
