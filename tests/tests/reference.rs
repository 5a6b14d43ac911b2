//! The oracle is held to the golden files before anything is held to the oracle.

use ndarray::{Array1, Array2};
use promises::external::{fixtures, or_skip, report};
use promises::golden::{Golden, argmax, largest_difference, matrix};
use promises::reference::{LEVELS, Linears, Reference, absmax, absmean, pack, rms_norm, unpack};
use promises::tensors::Tensors;

#[test]
fn the_reference_gives_the_golden_f64_logits() {
    let promise = "the_reference_gives_the_golden_f64_logits";
    for golden in Golden::transformers(promise) {
        let reference = Reference::open(&golden.folder);
        let pass = reference.run(&golden.tokens("main.input_ids"));
        let difference = largest_difference(&pass.logits, &golden.matrix("main.logits_f64"));
        // Two f64 programs that add in another order.
        assert!(difference < 1e-12, "{}: {difference:.2e} from the golden f64 logits", golden.name);
        let upstream = largest_difference(&pass.logits, &golden.matrix("main.logits"));
        report(promise, &format!("{}: {difference:.1e}; upstream f32 is {upstream:.1e} away", golden.name));
        for (index, (hidden, golden_hidden)) in pass.hidden.iter().zip(golden.hidden()).enumerate() {
            let difference = largest_difference(hidden, &golden_hidden);
            assert!(difference < 1e-5, "{}: hidden state {index} is {difference:.2e} away", golden.name);
        }
        assert_eq!(pass.hidden.len(), golden.hidden().len(), "{}: hidden states", golden.name);
        assert!(largest_difference(&pass.normed, &golden.matrix("main.final_norm")) < 1e-5, "{}", golden.name);
    }
}

#[test]
fn the_reference_continues_greedily_as_upstream_does() {
    for golden in Golden::transformers("the_reference_continues_greedily_as_upstream_does") {
        let reference = Reference::open(&golden.folder);
        let mut tokens = golden.tokens("main.input_ids");
        for expected in golden.tokens("main.greedy_ids") {
            let logits = reference.run(&tokens).logits;
            let (next, _) = argmax(logits.row(tokens.len() - 1));
            assert_eq!(next as u32, expected, "{}: token {}", golden.name, tokens.len());
            tokens.push(expected);
        }
    }
}

#[test]
fn the_reference_quantises_activations_to_the_golden_codes() {
    for golden in Golden::transformers("the_reference_quantises_activations_to_the_golden_codes") {
        let reference = Reference::open(&golden.folder);
        if reference.config.linears == Linears::Dense {
            continue;
        }
        let hidden = reference.run(&golden.tokens("main.input_ids")).hidden;
        let last = reference.config.layers - 1;
        let (query, _) = reference.codes(0, &hidden[0]);
        let (_, down) = reference.codes(last, &hidden[last]);
        assert_eq!(query, golden.matrix("main.act_codes.first_q_proj"), "{}: first query codes", golden.name);
        assert_eq!(down, golden.matrix("main.act_codes.last_down_proj"), "{}: last down codes", golden.name);
    }
}

#[test]
fn the_reference_computes_each_linear_class_as_the_operator_fixture_does() {
    let promise = "the_reference_computes_each_linear_class_as_the_operator_fixture_does";
    let Some(folder) = or_skip(promise, fixtures(), "bitlinear_ops") else { return };
    let golden = Tensors::open(&folder.join("golden.safetensors"));
    for case in ["c0", "c1", "c2"] {
        let get = |part: &str| golden.tensor(&format!("{case}.{part}"));
        let (ternary, mean) = absmean(&matrix(get("master_weight")));
        assert_eq!(ternary, matrix(get("ternary_i8")), "{case}: ternary weights");
        assert!((mean / get("mean_abs").f64s()[0] - 1.0).abs() < 1e-6, "{case}: mean|W| {mean}");
        assert_eq!(pack(&ternary), get("packed_weight").bytes, "{case}: packed bytes");
        let (rows, cols) = ternary.dim();
        assert_eq!(unpack(&get("packed_weight").bytes, rows, cols), ternary, "{case}: unpacked weights");

        let (codes, scale) = absmax(&matrix(get("input")), LEVELS);
        assert_eq!(codes, matrix(get("codes_i8")), "{case}: activation codes");
        let sums = codes.dot(&ternary.t());
        assert_eq!(sums, matrix(get("acc_i32")), "{case}: integer sums");
        let out = sums * mean / scale.insert_axis(ndarray::Axis(1));
        for class in ["out_autobitlinear_online", "out_autobitlinear_offline", "out_bitlinear"] {
            let golden = matrix(get(class));
            // The f32 scales of the fixture are 1e-7 away; the row's maximum is the unit.
            let unit = golden.map_axis(ndarray::Axis(1), |row| row.fold(0.0f64, |max, x| max.max(x.abs())));
            let relative = (&out - &golden).mapv(f64::abs) / unit.mapv(|u| u.max(1e-30)).insert_axis(ndarray::Axis(1));
            let worst = relative.fold(0.0f64, |max, x| max.max(*x));
            assert!(worst < 1e-6, "{case}: {class} is {worst:.2e} of the row's maximum away");
        }
    }
    let gain = Array1::from(golden.tensor("rms.weight").f64s());
    let normed = rms_norm(&matrix(golden.tensor("rms.input")), &gain, 1e-5);
    assert!(largest_difference(&normed, &matrix(golden.tensor("rms.out_eps1e-5"))) < 2e-6);
}

#[test]
fn packing_and_unpacking_are_inverse_for_every_row_count() {
    for rows in 1..=13 {
        for cols in [1, 2, 5] {
            let ternary = Array2::from_shape_fn((rows, cols), |(r, c)| ((r * 7 + c * 5 + r * c) % 3) as f64 - 1.0);
            let bytes = pack(&ternary);
            assert_eq!(bytes.len(), rows.div_ceil(4) * cols);
            assert_eq!(unpack(&bytes, rows, cols), ternary, "{rows}×{cols}");
        }
    }
}
