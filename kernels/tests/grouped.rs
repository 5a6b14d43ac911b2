//! Promises of weights in groups that a comparison with the scalar variant cannot show.

use half::{bf16, f16};
use kernels::grouped::codes::Codes;
use kernels::grouped::{Activations, GroupedMatrix, Layout, PackError};
use kernels::{Element, Kernels, Rng};
use proptest::prelude::*;

fn layouts() -> impl Strategy<Value = Layout> {
    (0..Layout::ALL.len()).prop_map(|i| Layout::ALL[i])
}

fn numbers(n: usize, rng: &mut Rng) -> Vec<f32> {
    (0..n).map(|_| rng.normal() * [1.0, 1e-3, 0.02, 40.0][rng.below(4)]).collect()
}

/// The largest magnitude of the group that holds column c of a row.
fn group_max(row: &[f32], c: usize) -> f32 {
    let group = c / GroupedMatrix::GROUP * GroupedMatrix::GROUP;
    row[group..(group + GroupedMatrix::GROUP).min(row.len())].iter().fold(0.0, |max, w| max.max(w.abs()))
}

fn product(kernels: &Kernels, matrix: &GroupedMatrix, x: Activations<'_>, tokens: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; matrix.rows() * tokens];
    kernels.grouped_matmul(matrix.view(), x, &mut out);
    out
}

#[test]
fn names_of_layouts_are_unique_and_parse_and_bits_are_as_stated() {
    for layout in Layout::ALL {
        assert_eq!(layout.name().parse(), Ok(layout));
    }
    assert!("q9".parse::<Layout>().unwrap_err().contains("'q9'"));
    assert_eq!(Layout::ALL.map(Layout::bits), [8.5, 4.5]);
    assert_eq!(GroupedMatrix::random(32, 128, Layout::Q8, &mut Rng::new(1)).bytes() * 8, 32 * 128 * 17 / 2);
}

#[test]
fn weights_that_are_not_finite_or_too_large_are_refused() {
    for layout in Layout::ALL {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut weights = vec![1.0f32; 5 * 70];
            weights[3 * 70 + 66] = wrong;
            let error = GroupedMatrix::pack(&weights, 5, 70, layout).unwrap_err();
            assert_eq!(error, PackError::NotFinite { row: 3, column: 66 });
            assert!(error.to_string().contains("row 3, column 66"));
        }
        for large in [1e7f32, -1e20, f32::MAX] {
            let mut weights = vec![1.0f32; 2 * 70];
            weights[70 + 66] = large;
            let error = GroupedMatrix::pack(&weights, 2, 70, layout).unwrap_err();
            assert_eq!(error, PackError::TooLarge { row: 1, column: 64 });
        }
        let small = [1e-40f32, -1e-30, 1e-12, 0.0, -0.0];
        let matrix = GroupedMatrix::pack(&small, 1, 5, layout).expect("finite weights");
        assert!((0..5).all(|c| matrix.get(0, c).0 == 0));
    }
}

#[test]
fn a_weight_half_way_goes_to_the_even_code() {
    // A largest weight of 127 makes a scale of 1.
    let weights = [127.0f32, 0.5, 1.5, 2.5, -0.5, -1.5, -126.5, -127.0];
    let matrix = GroupedMatrix::pack(&weights, 1, 8, Layout::Q8).expect("finite weights");
    assert_eq!(Vec::from_iter((0..8).map(|c| matrix.get(0, c).0)), [127, 0, 2, 2, 0, -2, -126, -127]);
    // -8 times the scale of 1 has no error at all.
    let weights = [-8.0f32, 7.0, 3.0, 0.0, -1.0];
    let matrix = GroupedMatrix::pack(&weights, 1, 5, Layout::Q4).expect("finite weights");
    assert_eq!(Vec::from_iter((0..5).map(|c| matrix.get(0, c))), weights.map(|w| (w as i8, 1.0)));
}

#[test]
fn nothing_overflows_at_the_extremes() {
    for layout in Layout::ALL {
        let largest = if layout == Layout::Q8 { 127.0 } else { -8.0 };
        for (rows, columns, tokens) in [(33, 17_280, 1), (16, 4096, 5), (150, 64, 3)] {
            for sign in [1.0f32, -1.0] {
                let weights = vec![largest * sign; rows * columns];
                let matrix = GroupedMatrix::pack(&weights, rows, columns, layout).expect("finite weights");
                for value in [127.0f32, -127.0] {
                    let mut x = Codes::new(tokens, columns);
                    x.fill(Kernels::best(), &vec![value; tokens * columns], columns);
                    for kernels in Kernels::available() {
                        for got in product(kernels, &matrix, x.view(), tokens) {
                            // Exact while the sum is below 2^24 units of the group's product.
                            let want = f64::from(largest * sign) * f64::from(value) * columns as f64;
                            let error = (f64::from(got) - want).abs();
                            assert!(error <= want.abs() * 1e-5, "{layout}@{}: {got}, not {want}", kernels.isa());
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn the_product_is_near_that_of_the_weights_it_was_made_of() {
    let mut rng = Rng::new(4);
    let (rows, columns) = (40, 2560);
    let weights: Vec<f32> = (0..rows * columns).map(|_| rng.normal()).collect();
    let x: Vec<f32> = (0..columns).map(|_| rng.normal()).collect();
    let mut codes = Codes::new(1, columns);
    codes.fill(Kernels::best(), &x, columns);
    for (layout, limit) in [(Layout::Q8, 0.012), (Layout::Q4, 0.1)] {
        let matrix = GroupedMatrix::pack(&weights, rows, columns, layout).expect("finite weights");
        let got = product(Kernels::best(), &matrix, codes.view(), 1);
        let mut square = 0.0;
        for (got, row) in got.iter().zip(weights.chunks(columns)) {
            let want: f64 = row.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
            square += (f64::from(*got) - want).powi(2);
        }
        // The products themselves are around the root of the number of columns.
        let error = (square / rows as f64 / columns as f64).sqrt();
        assert!(error < limit, "{layout}: a relative error of {error}");
    }
}

proptest! {
    #[test]
    fn packing_keeps_weights_within_its_bound(
        layout in layouts(), rows in 0usize..40, columns in 1usize..140, format in 0..3, seed: u64,
    ) {
        let mut rng = Rng::new(seed);
        let weights = numbers(rows * columns, &mut rng);
        fn narrow<E: Element>(weights: &[f32], rows: usize, columns: usize, layout: Layout) -> (Vec<f32>, GroupedMatrix) {
            let narrow: Vec<E> = weights.iter().map(|w| E::narrow(*w)).collect();
            let wide = narrow.iter().map(|w| w.widen()).collect();
            (wide, GroupedMatrix::pack(&narrow, rows, columns, layout).expect("finite weights"))
        }
        let (weights, matrix) = match format {
            0 => narrow::<f32>(&weights, rows, columns, layout),
            1 => narrow::<bf16>(&weights, rows, columns, layout),
            _ => narrow::<f16>(&weights, rows, columns, layout),
        };
        let mut unpacked = vec![f32::NAN; columns];
        for (r, row) in weights.chunks(columns).enumerate() {
            matrix.unpack_row(r, &mut unpacked);
            let mut square = 0.0;
            for (c, weight) in row.iter().enumerate() {
                let (code, scale) = matrix.get(r, c);
                prop_assert_eq!(unpacked[c], f32::from(code) * scale);
                let max = group_max(row, c);
                let error = (unpacked[c] - weight).abs();
                match layout {
                    Layout::Q8 => {
                        prop_assert!(scale >= max / 127.0 && scale <= max / 127.0 * 1.001 + 6e-8, "{scale} for {max}");
                        prop_assert!(error <= scale * 0.500_001, "{weight} became {code} times {scale}");
                        prop_assert!(code > -128);
                    }
                    _ => {
                        // A clamped code is off by the candidate's excess at most.
                        prop_assert!(error <= max / 7.0 + 6e-7, "{weight} became {code} times {scale}");
                        square += f64::from(error).powi(2);
                        if c % GroupedMatrix::GROUP == GroupedMatrix::GROUP - 1 {
                            let limit = f64::from(max) / 14.0 * 1.001 + 6e-7;
                            prop_assert!((square / 32.0).sqrt() <= limit, "{square} of 32 around {max}");
                            square = 0.0;
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn quantised_weights_pack_to_themselves(rows in 1usize..40, columns in 1usize..140, seed: u64) {
        // Codes that use the whole range are found again, scale and all.
        let mut rng = Rng::new(seed);
        let scale = f16::from_f32(0.5 + rng.unit()).to_f32();
        let weights: Vec<f32> = (0..rows * columns)
            .map(|i| if i % columns % 32 == 0 { 127.0 } else { rng.below(255) as f32 - 127.0 } * scale)
            .collect();
        let matrix = GroupedMatrix::pack(&weights, rows, columns, Layout::Q8).expect("finite weights");
        let mut unpacked = vec![f32::NAN; columns];
        for (r, row) in weights.chunks(columns).enumerate() {
            matrix.unpack_row(r, &mut unpacked);
            prop_assert_eq!(row, &unpacked[..]);
        }
    }

    #[test]
    fn random_matrices_have_zeros_outside(layout in layouts(), rows in 1usize..40, columns in 1usize..140, seed: u64) {
        // Tokens whose padding is not zero see nothing of it but the weights there: a promise that spares masks.
        let mut rng = Rng::new(seed);
        let matrix = GroupedMatrix::random(rows, columns, layout, &mut rng);
        let stride = Activations::stride_for(columns);
        let mut codes = vec![0i8; stride];
        codes[columns..].fill(99);
        let sums: Vec<i32> = codes.chunks(32).map(|group| group.iter().map(|q| i32::from(*q)).sum()).collect();
        let x = Activations { codes: &codes, stride, scales: &vec![1.0; stride / 32], sums: &sums };
        for kernels in Kernels::available() {
            prop_assert!(product(kernels, &matrix, x, 1).iter().all(|v| *v == 0.0), "{}", kernels.isa());
        }
    }

    #[test]
    fn runs_of_rows_and_single_tokens_give_the_numbers_of_the_whole(
        layout in layouts(), rows in 1usize..300, columns in 1usize..140, tokens in 1usize..20, cut in 0usize..20, seed: u64,
    ) {
        let mut rng = Rng::new(seed);
        let matrix = GroupedMatrix::random(rows, columns, layout, &mut rng);
        let cut = (cut * Layout::TILE_ROWS).min(rows / Layout::TILE_ROWS * Layout::TILE_ROWS);
        let x = numbers(tokens * columns, &mut rng);
        let mut all = Codes::new(tokens, columns);
        for kernels in Kernels::available() {
            all.fill(kernels, &x, columns);
            let whole = product(kernels, &matrix, all.view(), tokens);
            let mut parts = vec![f32::NAN; rows * tokens];
            let (first, second) = parts.split_at_mut(cut * tokens);
            kernels.grouped_matmul(matrix.row_range(0..cut), all.view(), first);
            kernels.grouped_matmul(matrix.row_range(cut..rows), all.view(), second);
            prop_assert_eq!(&whole, &parts);
            for (t, x) in x.chunks(columns).enumerate() {
                let mut one = Codes::new(1, columns);
                one.fill(kernels, x, columns);
                let alone = product(kernels, &matrix, one.view(), 1);
                prop_assert!(alone.iter().enumerate().all(|(r, v)| v.to_bits() == whole[r * tokens + t].to_bits()));
            }
        }
    }

    #[test]
    fn codes_are_within_half_a_step_of_the_activations(columns in 1usize..200, exponent in -110i32..120, seed: u64) {
        let mut rng = Rng::new(seed);
        let size = 2f32.powi(exponent);
        let x: Vec<f32> = (0..columns).map(|_| rng.normal() * size).collect();
        let mut codes = Codes::new(1, columns);
        for kernels in Kernels::available() {
            codes.fill(kernels, &x, columns);
            let view = codes.view();
            for (c, x) in x.iter().enumerate() {
                let (code, scale) = (f64::from(view.codes[c]), f64::from(view.scales[c / 32]));
                let error = (code * scale - f64::from(*x)).abs();
                prop_assert!(error <= scale * 0.500_02 || x.abs() < 2f32.powi(-100), "{x:e}: {code} times {scale:e}");
            }
        }
    }
}
