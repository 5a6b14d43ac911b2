//! The recurrences of RWKV against their equations in f64, in the model's own layout, on every ISA; and a run of tokens
//! against the same tokens one by one.

use kernels::wkv::{wkv4, wkv6, wkv7};
use kernels::{Kernels, Rng, Rows, RowsMut};
use std::panic::{AssertUnwindSafe, catch_unwind};

const TOKENS: usize = 23;

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

fn numbers(n: usize, f: impl FnMut() -> f32) -> Vec<f32> {
    std::iter::repeat_with(f).take(n).collect()
}

fn rows(data: &[f32], stride: usize) -> Rows<'_> {
    Rows { data, stride }
}

#[track_caller]
fn close(got: &[f32], want: &[f64], bound: f64, what: &str) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!(
            (f64::from(*got) - want).abs() <= bound * (1.0 + want.abs()),
            "{what}, {i}: {got:e}, expected {want:e}"
        );
    }
}

fn refuses<R>(part: &str, call: impl FnOnce() -> R) {
    let payload = catch_unwind(AssertUnwindSafe(call)).err().unwrap_or_else(|| panic!("nothing says '{part}'"));
    let text = payload.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(text.contains(part), "'{text}' does not say '{part}'");
}

#[test]
fn wkv4_keeps_to_its_equations() {
    let (w, mut rng) = (37, Rng::new(1));
    let [k, v] = [6.0, 1.0].map(|scale| numbers(TOKENS * w, || rng.normal() * scale));
    let decay = numbers(w, || -3.0 * rng.unit());
    let bonus = numbers(w, || rng.normal());
    // The mean itself, without the common factor.
    let want: Vec<f64> = (0..TOKENS * w)
        .map(|at| {
            let (t, c) = (at / w, at % w);
            let weight = |s: usize| {
                let shift = if s == t { f64::from(bonus[c]) } else { (t - s - 1) as f64 * f64::from(decay[c]) };
                libm::exp(shift + f64::from(k[s * w + c]))
            };
            let sum = |f: &dyn Fn(usize) -> f64| (0..=t).map(f).sum::<f64>();
            sum(&|s| weight(s) * f64::from(v[s * w + c])) / sum(&weight)
        })
        .collect();
    for kernels in Kernels::available() {
        let run = |parts: &[usize]| {
            let mut out = vec![f32::NAN; TOKENS * w];
            let (mut aa, mut bb, mut pp) = (vec![0.0; w], vec![0.0; w], vec![wkv4::START; w]);
            let mut from = 0;
            for tokens in parts {
                let (k, v) = (rows(&k[from * w..], w), rows(&v[from * w..], w));
                let x = wkv4::Inputs { tokens: *tokens, k, v, decay: &decay, bonus: &bonus };
                let state = wkv4::State { aa: &mut aa, bb: &mut bb, pp: &mut pp };
                kernels.wkv4(x, state, RowsMut { data: &mut out[from * w..], stride: w });
                from += tokens;
            }
            (out, aa, bb, pp)
        };
        let whole = run(&[TOKENS]);
        close(&whole.0, &want, 3e-6, &format!("wkv4 on {}", kernels.isa()));
        assert_eq!(run(&[1; TOKENS]), whole, "one by one on {}", kernels.isa());
        assert_eq!(run(&[7, 0, 16]), whole, "in parts on {}", kernels.isa());
    }
}

#[test]
fn wkv6_keeps_to_its_equations() {
    let mut rng = Rng::new(2);
    for (heads, n, each) in [(1, 64, true), (3, 20, true), (2, 33, false), (2, 1, false)] {
        let w = heads * n;
        let [r, k, v] = std::array::from_fn(|_| numbers(TOKENS * w, || rng.normal()));
        let decay = numbers(if each { TOKENS * w } else { w }, || rng.unit());
        let bonus = numbers(w, || rng.normal());
        let start = numbers(w * n, || rng.normal());
        let (mut state, mut want) = (wide(&start), vec![0.0; TOKENS * w]);
        for t in 0..TOKENS {
            let at = |x: &[f32], c: usize| f64::from(x[t * w + c]);
            for (h, i, j) in (0..w * n).map(|x| (x / (n * n), x / n % n, x % n)) {
                let (key, value, s) = (h * n + i, h * n + j, &mut state[(h * n + i) * n + j]);
                let kv = at(&k, key) * at(&v, value);
                want[t * w + value] += at(&r, key) * (f64::from(bonus[key]) * kv + *s);
                *s = kv + f64::from(decay[if each { t * w + key } else { key }]) * *s;
            }
        }
        for kernels in Kernels::available() {
            let run = |parts: &[usize]| {
                let (mut out, mut state, mut from) = (vec![f32::NAN; TOKENS * w], start.clone(), 0);
                for tokens in parts {
                    let [r, k, v] = [&r, &k, &v].map(|x| rows(&x[from * w..], w));
                    let decay = if each { rows(&decay[from * w..], w) } else { Rows::same(&decay) };
                    let x = wkv6::Inputs { tokens: *tokens, width: n, r, k, v, decay, bonus: &bonus };
                    kernels.wkv6(x, &mut state, RowsMut { data: &mut out[from * w..], stride: w });
                    from += tokens;
                }
                (out, state)
            };
            let whole = run(&[TOKENS]);
            let what = format!("wkv6 of {heads} heads of {n} on {}", kernels.isa());
            // Sums of up to 64 terms that may cancel.
            close(&whole.0, &want, 2e-5, &what);
            close(&whole.1, &state, 1e-5, &what);
            assert_eq!(run(&[1; TOKENS]), whole, "one by one: {what}");
            assert_eq!(run(&[5, 18]), whole, "in parts: {what}");
        }
    }
}

#[test]
fn wkv7_keeps_to_its_equations_in_the_models_layout() {
    let mut rng = Rng::new(3);
    for (heads, n) in [(1, 64), (3, 20), (2, 33), (2, 1)] {
        let w = heads * n;
        let [r, k, v] = std::array::from_fn(|_| numbers(TOKENS * w, || rng.normal()));
        let [decay, rate] = std::array::from_fn(|_| numbers(TOKENS * w, || rng.unit()));
        let mut removal = numbers(TOKENS * w, || rng.normal());
        for head in removal.chunks_exact_mut(n) {
            let norm = head.iter().map(|x| x * x).sum::<f32>().sqrt();
            head.iter_mut().for_each(|x| *x /= norm);
        }
        // [H, values, keys], as the model has it.
        let start = numbers(w * n, || rng.normal());
        let (mut state, mut want) = (wide(&start), vec![0.0; TOKENS * w]);
        for t in 0..TOKENS {
            let at = |x: &[f32], c: usize| f64::from(x[t * w + c]);
            for value in 0..w {
                let (h, row) = (value / n * n, &mut state[value * n..][..n]);
                let lost: f64 = row.iter().enumerate().map(|(j, s)| s * at(&removal, h + j)).sum();
                for (s, key) in row.iter_mut().zip(h..) {
                    let change = at(&v, value) * at(&k, key) - lost * at(&removal, key) * at(&rate, key);
                    *s = *s * at(&decay, key) + change;
                    want[t * w + value] += *s * at(&r, key);
                }
            }
        }
        for kernels in Kernels::available() {
            let mut own = vec![f32::NAN; start.len()];
            kernels.wkv7_state(&start, n, &mut own);
            let run = |parts: &[usize]| {
                let (mut out, mut state, mut from) = (vec![f32::NAN; TOKENS * w], own.clone(), 0);
                for tokens in parts {
                    let [r, decay, k, v, removal, rate] =
                        [&r, &decay, &k, &v, &removal, &rate].map(|x| rows(&x[from * w..], w));
                    let x = wkv7::Inputs { tokens: *tokens, width: n, r, decay, k, v, removal, rate };
                    kernels.wkv7(x, &mut state, RowsMut { data: &mut out[from * w..], stride: w });
                    from += tokens;
                }
                (out, state)
            };
            let whole = run(&[TOKENS]);
            let mut models = vec![f32::NAN; start.len()];
            kernels.wkv7_state(&whole.1, n, &mut models);
            let what = format!("wkv7 of {heads} heads of {n} on {}", kernels.isa());
            close(&whole.0, &want, 2e-5, &what);
            close(&models, &state, 1e-5, &what);
            assert_eq!(run(&[1; TOKENS]), whole, "one by one: {what}");
            assert_eq!(run(&[5, 18]), whole, "in parts: {what}");
        }
    }
}

#[test]
fn heads_may_be_picked_from_wider_rows() {
    let (heads, n, mut rng) = (3, 24, Rng::new(4));
    let w = heads * n;
    let x: [Vec<f32>; 6] = std::array::from_fn(|_| numbers(TOKENS * w, || rng.unit()));
    for kernels in Kernels::available() {
        let run = |columns: std::ops::Range<usize>| {
            let [r, k, v, decay, removal, rate] = [0, 1, 2, 3, 4, 5].map(|i: usize| rows(&x[i][columns.start..], w));
            let (mut six, mut seven) = (vec![0.0; columns.len() * n], vec![0.0; columns.len() * n]);
            let bonus = &x[0][columns.clone()];
            let mut out = vec![f32::NAN; 2 * TOKENS * w];
            let (a, b) = out.split_at_mut(TOKENS * w);
            let inputs = wkv6::Inputs { tokens: TOKENS, width: n, r, k, v, decay, bonus };
            kernels.wkv6(inputs, &mut six, RowsMut { data: &mut a[columns.start..], stride: w });
            let inputs = wkv7::Inputs { tokens: TOKENS, width: n, r, decay, k, v, removal, rate };
            kernels.wkv7(inputs, &mut seven, RowsMut { data: &mut b[columns.start..], stride: w });
            (six, seven, out)
        };
        let (six, seven, out) = run(0..w);
        let (one_six, one_seven, one_out) = run(n..2 * n);
        assert_eq!(one_six, six[n * n..2 * n * n]);
        assert_eq!(one_seven, seven[n * n..2 * n * n]);
        for (c, (one, all)) in one_out.iter().zip(&out).enumerate() {
            let inside = (n..2 * n).contains(&(c % w));
            assert!(if inside { one.to_bits() == all.to_bits() } else { one.is_nan() }, "number {c} of out");
        }
    }
}

#[test]
fn recurrences_refuse_shapes_that_disagree() {
    let x = [0.5f32; 40];
    for kernels in Kernels::available() {
        let good = rows(&x[..11], 7);
        let four = |k, bonus: usize, pp: usize, out: usize, stride| {
            let (mut aa, mut bb, mut pp, mut out) = ([0.0; 4], [0.0; 4], vec![0.0; pp], vec![0.0; out]);
            let x = wkv4::Inputs { tokens: 2, k, v: good, decay: &x[..4], bonus: &x[..bonus] };
            let state = wkv4::State { aa: &mut aa, bb: &mut bb, pp: &mut pp };
            kernels.wkv4(x, state, RowsMut { data: &mut out, stride });
        };
        four(good, 4, 4, 8, 4);
        refuses("decay and bonus", || four(good, 5, 4, 8, 4));
        refuses("state of 4 channels", || four(good, 4, 3, 8, 4));
        refuses("k [2, 4] with stride 7 has 10 elements", || four(rows(&x[..10], 7), 4, 4, 8, 4));
        refuses("k [2, 4] with stride 18446744073709551615 has 11", || four(rows(&x[..11], usize::MAX), 4, 4, 8, 4));
        refuses("has 7 elements", || four(good, 4, 4, 7, 4));
        refuses("out: rows of 4 cannot be 3 apart", || four(good, 4, 4, 8, 3));
        let six = |width, decay, bonus: usize, state: usize, out: usize| {
            let x = wkv6::Inputs { tokens: 2, width, r: good, k: good, v: good, decay, bonus: &x[..bonus] };
            kernels.wkv6(x, &mut vec![0.0; state], RowsMut { data: &mut vec![0.0; out], stride: 4 });
        };
        six(2, Rows::same(&x[..4]), 4, 8, 8);
        refuses("bonus [H, 0]", || six(0, good, 4, 8, 8));
        refuses("bonus [H, 3]", || six(3, good, 4, 8, 8));
        refuses("state [H, 2, 2]", || six(2, good, 4, 7, 8));
        refuses("has 3 elements", || six(2, Rows::same(&x[..3]), 4, 8, 8));
        refuses("has 7 elements", || six(2, good, 4, 8, 7));
        let seven = |width, rate, state: usize, out: usize| {
            let (r, decay, k, v, removal) = (good, good, good, good, good);
            let x = wkv7::Inputs { tokens: 2, width, r, decay, k, v, removal, rate };
            kernels.wkv7(x, &mut vec![0.0; state], RowsMut { data: &mut vec![0.0; out], stride: 4 });
        };
        seven(2, good, 8, 8);
        refuses("state [H, 0, 0]", || seven(0, good, 8, 8));
        refuses("state [H, 3, 3]", || seven(3, good, 8, 8));
        refuses("has 10 elements", || seven(2, rows(&x[..10], 7), 8, 8));
        refuses("has 7 elements", || seven(2, good, 8, 7));
        refuses("state [H, 2, 2]", || kernels.wkv7_state(&x[..7], 2, &mut [0.0; 7]));
        refuses("out is as long", || kernels.wkv7_state(&x[..8], 2, &mut [0.0; 4]));
    }
}
