//! Kernels against the operator fixture, on every ISA: integers exactly, floats within 1e-6 of the row's maximum.

use kernels::Kernels;
use kernels::rope::Pairs;
use kernels::ternary::{Activations, Layout, TernaryMatrix};
use promises::external::{fixtures, or_skip, report};
use promises::golden::{matrix, rows};
use promises::tensors::Tensors;

/// Within 1e-6 of each row's maximum; returns the largest share.
fn close(what: &str, found: &[f32], expected: &[f32], cols: usize) -> f64 {
    let (found, expected) = (rows(found, cols), rows(expected, cols));
    assert_eq!(found.dim(), expected.dim(), "{what}: shapes");
    let mut worst = 0.0f64;
    for (row, (found, expected)) in found.outer_iter().zip(expected.outer_iter()).enumerate() {
        let unit = expected.fold(f64::MIN_POSITIVE, |max, x| max.max(x.abs()));
        let difference = (&found - &expected).fold(0.0f64, |max, x| max.max(x.abs()));
        assert!(difference <= 1e-6 * unit, "{what}: row {row} differs by {difference:.2e}, its maximum is {unit:.2e}");
        worst = worst.max(difference / unit);
    }
    worst
}

fn golden(promise: &str) -> Option<Tensors> {
    let folder = or_skip(promise, fixtures(), "bitlinear_ops")?;
    Some(Tensors::open(&folder.join("golden.safetensors")))
}

#[test]
fn codes_sums_and_outputs_of_every_linear_class_are_the_golden_ones_on_every_isa() {
    let promise = "codes_sums_and_outputs_of_every_linear_class_are_the_golden_ones_on_every_isa";
    let Some(golden) = golden(promise) else { return };
    for kernels in Kernels::available() {
        for case in ["c0", "c1", "c2"] {
            let get = |part: &str| golden.tensor(&format!("{case}.{part}"));
            let what = |part: &str| format!("{case}.{part}@{}", kernels.isa());
            let [tokens, cols] = get("input").shape[..] else { panic!("input [T, C]") };
            let rows = get("ternary_i8").shape[0];

            // Activations: codes and scales bit for bit.
            let stride = Activations::stride_for(cols);
            let mut codes = vec![0i8; tokens * stride];
            let input = get("input").f32s();
            let quantised: Vec<_> =
                input.chunks(cols).zip(codes.chunks_mut(stride)).map(|(x, codes)| kernels.quantise(x, codes)).collect();
            let unpadded: Vec<i64> =
                codes.chunks(stride).flat_map(|row| row[..cols].iter().map(|q| i64::from(*q))).collect();
            assert_eq!(unpadded, get("codes_i8").integers(), "{}", what("codes_i8"));
            let scales: Vec<f32> = quantised.iter().map(|token| token.scale).collect();
            assert_eq!(scales, get("act_scale").f32s(), "{}", what("act_scale"));

            // Integer sums: with unit scales the product is the accumulator itself.
            let ternary: Vec<i8> = get("ternary_i8").integers().into_iter().map(|w| w as i8).collect();
            let weights = TernaryMatrix::pack(&ternary, rows, cols, Layout::I2);
            let sums: Vec<i32> = quantised.iter().map(|token| token.sum).collect();
            let product = |scales: &[f32]| {
                let mut out = vec![f32::NAN; rows * tokens];
                let x = Activations { codes: &codes, stride, sums: &sums, scales, tables: &[] };
                kernels.ternary_matmul(weights.view(), x, &mut out);
                // [R, T] to [T, R].
                (0..tokens * rows).map(|i| out[i % rows * tokens + i / rows]).collect::<Vec<f32>>()
            };
            let accumulators: Vec<i64> = product(&vec![1.0; tokens]).into_iter().map(|sum| sum as i64).collect();
            assert_eq!(accumulators, get("acc_i32").integers(), "{}", what("acc_i32"));

            // Outputs of the three classes: what the sum is multiplied by differs.
            let mean = get("mean_abs").f32s()[0];
            let divisor = get("bitlinear_weight_scale").f32s()[0];
            let multiply: Vec<f32> = scales.iter().map(|a| mean / a).collect();
            let divide: Vec<f32> = scales.iter().map(|a| 1.0 / (divisor * a)).collect();
            for (class, scales) in [
                ("out_autobitlinear_online", &multiply),
                ("out_autobitlinear_offline", &multiply),
                ("out_bitlinear", &divide),
            ] {
                let worst = close(&what(class), &product(scales), &get(class).f32s(), rows);
                report(promise, &format!("{}: {worst:.1e}", what(class)));
            }
        }
    }
}

#[test]
fn rms_norm_gives_the_golden_rows_on_every_isa() {
    let promise = "rms_norm_gives_the_golden_rows_on_every_isa";
    let Some(golden) = golden(promise) else { return };
    let (x, gain) = (golden.tensor("rms.input").f32s(), golden.tensor("rms.weight").f32s());
    for kernels in Kernels::available() {
        let mut out = vec![f32::NAN; x.len()];
        kernels.rms_norm(&x, &gain, 1e-5, &mut out);
        let worst = close("rms", &out, &golden.tensor("rms.out_eps1e-5").f32s(), gain.len());
        report(promise, &format!("{}: {worst:.1e}", kernels.isa()));
    }
}

#[test]
fn rotary_embedding_gives_the_golden_heads_on_every_isa() {
    let promise = "rotary_embedding_gives_the_golden_heads_on_every_isa";
    let Some(golden) = golden(promise) else { return };
    for (kernels, case) in Kernels::available().flat_map(|kernels| [(kernels, "rope16"), (kernels, "rope20")]) {
        let get = |part: &str| golden.tensor(&format!("{case}.{part}"));
        let [heads, count, width] = get("q").shape[..] else { panic!("q [H, T, K]") };
        let (positions, theta) = (get("positions").integers(), get("theta").f32s()[0]);
        let (q, expected) = (get("q").f32s(), get("out").f32s());
        let mut worst = 0.0f64;
        for (t, position) in positions.iter().enumerate() {
            // Frequencies and angles in f32, as upstream has them: at position 4095 an f64 angle is 2e-4 away.
            let angle = |pair: usize| {
                let frequency = 1.0 / theta.powf(2.0 * pair as f32 / width as f32);
                *position as f32 * frequency
            };
            let cos: Vec<f32> = (0..width / 2).map(|pair| angle(pair).cos()).collect();
            let sin: Vec<f32> = (0..width / 2).map(|pair| angle(pair).sin()).collect();
            let at = |head: usize| (head * count + t) * width;
            let gather = |x: &[f32]| (0..heads).flat_map(|head| x[at(head)..][..width].to_vec()).collect::<Vec<f32>>();
            let mut x = gather(&q);
            kernels.rope(Pairs::HalfSplit, &mut x, &cos, &sin);
            for (found, expected) in x.iter().zip(gather(&expected)) {
                let difference = f64::from((found - expected).abs());
                assert!(difference <= 1e-6, "{case}@{}: position {position}: {difference:.2e}", kernels.isa());
                worst = worst.max(difference);
            }
        }
        report(promise, &format!("{case}@{}: {worst:.1e}", kernels.isa()));
    }
}

#[test]
fn ternary_weights_survive_packing() {
    let Some(golden) = golden("ternary_weights_survive_packing") else { return };
    for case in ["c0", "c1", "c2"] {
        let ternary = matrix(golden.tensor(&format!("{case}.ternary_i8")));
        let (rows, cols) = ternary.dim();
        let packed = TernaryMatrix::from_fn(rows, cols, Layout::I2, |r, c| ternary[[r, c]] as i8);
        for ((r, c), weight) in ternary.indexed_iter() {
            assert_eq!(f64::from(packed.get(r, c)), *weight, "{case}: row {r}, column {c}");
        }
    }
}
