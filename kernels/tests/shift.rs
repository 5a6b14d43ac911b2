//! Token shift against both ways of writing it, group norm against the norm of each group, and what they refuse.

use kernels::mix::shift::Mixes;
use kernels::{Kernels, Rng};
use std::panic::{AssertUnwindSafe, catch_unwind};

fn refuses<R>(part: &str, call: impl FnOnce() -> R) {
    let payload = catch_unwind(AssertUnwindSafe(call)).err().unwrap_or_else(|| panic!("nothing says '{part}'"));
    let text = payload.downcast_ref::<String>().cloned();
    let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_string())).unwrap_or_default();
    assert!(text.contains(part), "'{text}' does not say '{part}'");
}

#[test]
fn rows_are_mixed_with_the_row_before_them() {
    let (ways, tokens, width, mut rng) = (3, 4, 37, Rng::new(1));
    let mut numbers = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal()).collect() };
    let (h, before) = (numbers(tokens * width), numbers(width));
    let (base, own) = (numbers(ways * width), numbers(ways * tokens * width));
    // As RWKV-4 and 5 write it, m of h and 1 - m of the row before.
    let kept: Vec<f32> = base.iter().map(|m| 1.0 - m).collect();
    for kernels in Kernels::available() {
        let run = |mixes| {
            let mut out = vec![f32::NAN; ways * tokens * width];
            kernels.shift(&h, &before, mixes, &mut out);
            out
        };
        let (same, each, old) =
            (run(Mixes::Same(&base)), run(Mixes::Own { base: &base, own: &own }), run(Mixes::Same(&kept)));
        for (at, (f, t, c)) in (0..same.len()).map(|at| (at, (at / width / tokens, at / width % tokens, at % width))) {
            let (x, m) = (f64::from(h[t * width + c]), f64::from(base[f * width + c]));
            let p = f64::from(if t == 0 { before[c] } else { h[(t - 1) * width + c] });
            let close = |got: f32, want: f64| assert!((f64::from(got) - want).abs() < 5e-6, "{got}, expected {want}");
            close(same[at], x + (p - x) * m);
            close(each[at], x + (p - x) * (m + f64::from(own[at])));
            close(old[at], x * m + p * (1.0 - m));
        }
        // The first row's neighbour is all that a run has to be told.
        let mut second = vec![f32::NAN; width];
        kernels.shift(&h[width..2 * width], &h[..width], Mixes::Same(&base[..width]), &mut second);
        assert_eq!(second, same[width..2 * width]);
    }
}

#[test]
fn a_group_norm_is_a_layer_norm_of_each_group() {
    let (heads, width, mut rng) = (3, 20, Rng::new(2));
    let mut numbers = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal()).collect() };
    let (x, gain, bias) = (numbers(2 * heads * width), numbers(heads * width), numbers(heads * width));
    for kernels in Kernels::available() {
        let (mut got, mut want) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
        kernels.group_norm(&x, width, &gain, &bias, 64e-5, &mut got);
        for (i, (x, out)) in x.chunks(width).zip(want.chunks_mut(width)).enumerate() {
            let of = |weights: &[f32]| weights[i % heads * width..][..width].to_vec();
            kernels.layer_norm(x, &of(&gain), &of(&bias), 64e-5, out);
        }
        assert_eq!(got, want, "on {}", kernels.isa());
    }
}

#[test]
fn shapes_that_disagree_are_refused() {
    let x = [0.5f32; 24];
    for kernels in Kernels::available() {
        let shift = |h: usize, before: usize, mixes, out: usize| {
            kernels.shift(&x[..h], &x[..before], mixes, &mut vec![0.0; out]);
        };
        let own = |base: usize, own: usize| Mixes::Own { base: &x[..base], own: &x[..own] };
        shift(8, 4, own(12, 24), 24);
        refuses("width 0", || shift(8, 0, own(12, 24), 24));
        refuses("h [T, 4] has 7", || shift(7, 4, own(12, 24), 24));
        refuses("mixes [F, 4] have 11", || shift(8, 4, Mixes::Same(&x[..11]), 24));
        refuses("out [3, 2, 4]", || shift(8, 4, own(12, 24), 23));
        refuses("own mixes [3, 2, 4]", || shift(8, 4, own(12, 20), 24));
        let group = |x: &[f32], width, gain: &[f32], bias: &[f32], out: usize| {
            kernels.group_norm(x, width, gain, bias, 1e-5, &mut vec![0.0; out]);
        };
        group(&x, 4, &x[..8], &x[..8], 24);
        refuses("gain [H, 0]", || group(&x, 0, &x[..8], &x[..8], 24));
        refuses("gain [H, 3]", || group(&x, 3, &x[..8], &x[..8], 24));
        refuses("gain and bias", || group(&x, 4, &x[..8], &x[..7], 24));
        refuses("x [T, 8]", || group(&x[..23], 4, &x[..8], &x[..8], 23));
        refuses("out is as long as x", || group(&x, 4, &x[..8], &x[..8], 23));
        refuses("x [R, 5]", || kernels.unit_norm(&mut [0.0; 24], 5));
        refuses("x [R, 0]", || kernels.unit_norm(&mut [0.0; 24], 0));
    }
}
