//! Promises of what our ternary products are compared with.

use kernels::dense::int8::Int8Matrix;
use kernels::probe::{OPS, Probe, Shape};
use kernels::ternary::Activations;
use kernels::{Kernels, Rng};
use proptest::prelude::*;

/// What an op leaves of a shape and seed.
fn result(op: &Probe, kernels: &Kernels, shape: &Shape, seed: u64) -> Vec<f32> {
    let mut case = (op.case)(shape, seed);
    case.run(kernels);
    case.output()
}

#[test]
fn comparators_say_what_they_stand_for() {
    let names: Vec<&str> = OPS.iter().filter(|op| op.comparator.is_some()).map(|op| op.name).collect();
    for name in ["dense/int8", "ternary/i2_rows", "comparator/naive", "comparator/openblas"] {
        assert!(names.contains(&name), "{name} is not marked as a comparator: {names:?}");
    }
    for op in OPS {
        let unmarked = op.name.starts_with("comparator/") && op.comparator.is_none();
        assert!(!unmarked, "{} does not say what it stands for", op.name);
    }
}

proptest! {
    #[test]
    fn comparators_compute_what_ternary_products_compute(r in 0usize..70, c in 0usize..300, t in 0usize..15, seed: u64) {
        let shape = Shape::new(r, c, t);
        let ours = Probe::find(OPS, "ternary/i2").expect("ternary/i2 is an op");
        for kernels in Kernels::available() {
            let want = result(ours, kernels, &shape, seed);
            for op in OPS.iter().filter(|op| op.comparator.is_some()) {
                let got = result(op, kernels, &shape, seed);
                prop_assert!(got == want, "{}@{} at {shape}", op.name, kernels.isa());
            }
        }
    }

    #[test]
    fn dense_weights_of_any_size_give_the_sum_of_products(
        rows in 0usize..40, columns in 0usize..300, tokens in 0usize..15, extreme: bool, seed: u64,
    ) {
        let mut rng = Rng::new(seed);
        let mut number = |least: i32| {
            let any = least + rng.below((128 - least) as usize) as i32;
            (if extreme { [least, 127][any.rem_euclid(2) as usize] } else { any }) as i8
        };
        let weights: Vec<i8> = (0..rows * columns).map(|_| number(-127)).collect();
        let stride = Activations::stride_for(columns);
        let mut codes = vec![0; tokens * stride];
        for row in codes.chunks_exact_mut(stride.max(1)) {
            row[..columns].fill_with(|| number(-128));
        }
        check(&weights, rows, columns, &codes, tokens)?;
    }
}

#[test]
fn no_narrow_lane_of_dense_weights_overflows_at_the_extremes() {
    for (rows, columns, tokens) in [(9, 17_280, 1), (5, 17_280, 7), (3, (1 << 17) - 1, 1), (3, (1 << 17) - 1, 3)] {
        let stride = Activations::stride_for(columns);
        for weight in [127, -127] {
            for code in [127, -128] {
                let mut codes = vec![0; tokens * stride];
                codes.chunks_exact_mut(stride).for_each(|row| row[..columns].fill(code));
                check(&vec![weight; rows * columns], rows, columns, &codes, tokens).expect("the same bits");
            }
        }
    }
}

/// Holds the dense eight-bit product of every level to sums in 64 bits.
fn check(weights: &[i8], rows: usize, columns: usize, codes: &[i8], tokens: usize) -> Result<(), TestCaseError> {
    let stride = Activations::stride_for(columns);
    let row = |t: usize| &codes[t * stride..][..stride];
    let sums: Vec<i32> = (0..tokens).map(|t| row(t).iter().map(|q| i32::from(*q)).sum()).collect();
    let scales: Vec<f32> = (0..tokens).map(|t| 1.0 + t as f32 / 7.0).collect();
    let x = Activations { codes, stride, sums: &sums, scales: &scales, tables: &[] };
    let matrix = Int8Matrix::pack(weights, rows, columns);
    for kernels in Kernels::available() {
        let mut out = vec![f32::NAN; rows * tokens];
        kernels.int8_matmul(&matrix, x, &mut out);
        for (i, got) in out.iter().enumerate() {
            let (r, t) = (i / tokens, i % tokens);
            let weights = &weights[r * columns..][..columns];
            let sum: i64 = weights.iter().zip(row(t)).map(|(w, q)| i64::from(*w) * i64::from(*q)).sum();
            prop_assert_eq!(*got, sum as f32 * scales[t], "row {}, token {} on {}", r, t, kernels.isa());
        }
    }
    Ok(())
}
