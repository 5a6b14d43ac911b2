//! The ops of recurrent models against their formulas in f64, and one call of many tokens against many calls.

use kernels::conv::causal::Convolution;
use kernels::scan::selective::{Selective, pack_decays, packed_len, state_from_rows, state_to_rows};
use kernels::scan::ssd::Ssd;
use kernels::{Kernels, Rng, Rows, RowsMut};
use std::panic::{AssertUnwindSafe, catch_unwind};

fn numbers(rng: &mut Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.normal()).collect()
}

fn silu(x: f32) -> f64 {
    f64::from(x) / (1.0 + libm::exp(-f64::from(x)))
}

#[track_caller]
fn close(got: &[f32], want: &[f64], bound: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(*got) - want).abs();
        assert!(error <= bound * (1.0 + want.abs()), "{what}: element {i} is {got}, expected {want}");
    }
}

/// Tokens of a text, and cuts of it into calls.
const TOKENS: usize = 11;
const CUTS: [&[usize]; 4] = [&[11], &[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], &[2, 9], &[5, 0, 6]];

#[test]
fn a_convolution_is_its_formula_however_the_text_is_cut() {
    let (width, taps) = (37, 4);
    let mut rng = Rng::new(1);
    let (x, weights, bias) =
        (numbers(&mut rng, TOKENS * width), numbers(&mut rng, taps * width), numbers(&mut rng, width));
    let before = numbers(&mut rng, (taps - 1) * width);
    let history = [&before[..], &x].concat();
    let want: Vec<f64> = (0..TOKENS * width)
        .map(|i| {
            let product = |j: usize| f64::from(weights[j * width + i % width]) * f64::from(history[j * width + i]);
            silu((f64::from(bias[i % width]) + (0..taps).map(product).sum::<f64>()) as f32)
        })
        .collect();
    for kernels in Kernels::available() {
        let mut first = None;
        for cut in CUTS {
            let (mut state, mut y, mut from) = (before.clone(), vec![f32::NAN; TOKENS * width], 0);
            for tokens in cut {
                let x = Rows::dense(&x[from * width..], width);
                let conv = Convolution { x, tokens: *tokens, width, weights: &weights, bias: Some(&bias), silu: true };
                kernels.causal_conv(&conv, &mut state, RowsMut::dense(&mut y[from * width..], width));
                from += tokens;
            }
            close(&y, &want, 2e-6, kernels.isa().name());
            assert_eq!(state, history[TOKENS * width..], "the last inputs");
            assert_eq!(first.get_or_insert_with(|| y.clone()), &y, "cut {cut:?} on {}", kernels.isa());
        }
    }
}

#[test]
fn a_selective_scan_is_its_formula_however_the_text_is_cut() {
    let (width, states) = (37, 16);
    let mut rng = Rng::new(2);
    let a_log = numbers(&mut rng, width * states);
    let (skip, x, z) = (numbers(&mut rng, width), numbers(&mut rng, TOKENS * width), numbers(&mut rng, TOKENS * width));
    let dt: Vec<f32> = numbers(&mut rng, TOKENS * width).into_iter().map(|x| 0.1 * x * x).collect();
    let (b, c) = (numbers(&mut rng, TOKENS * states), numbers(&mut rng, TOKENS * states));
    let rows = numbers(&mut rng, width * states);
    let (mut decays, mut before) = (vec![0.0; packed_len(width, states)], vec![0.0; packed_len(width, states)]);
    pack_decays(&a_log, states, &mut decays);
    state_from_rows(&rows, states, &mut before);

    let mut left: Vec<f64> = rows.iter().map(|s| f64::from(*s)).collect();
    let mut want = vec![0.0; TOKENS * width];
    for i in 0..TOKENS * width {
        let (t, w) = (i / width, i % width);
        let mut sum = f64::from(skip[w]) * f64::from(x[i]);
        for n in 0..states {
            let decay = libm::exp(-libm::exp(f64::from(a_log[w * states + n])) * f64::from(dt[i]));
            let state = &mut left[w * states + n];
            *state = decay * *state + f64::from(dt[i]) * f64::from(x[i]) * f64::from(b[t * states + n]);
            sum += *state * f64::from(c[t * states + n]);
        }
        want[i] = sum * silu(z[i]);
    }
    for kernels in Kernels::available() {
        let mut first = None;
        for cut in CUTS {
            let (mut state, mut y, mut from) = (before.clone(), vec![f32::NAN; TOKENS * width], 0);
            for tokens in cut {
                let scan = Selective {
                    tokens: *tokens,
                    states,
                    decays: &decays,
                    skip: &skip,
                    dt: Rows::dense(&dt[from * width..], width),
                    x: Rows::dense(&x[from * width..], width),
                    b: Rows::dense(&b[from * states..], states),
                    c: Rows::dense(&c[from * states..], states),
                    gate: Some(Rows::dense(&z[from * width..], width)),
                };
                kernels.selective_scan(&scan, &mut state, RowsMut::dense(&mut y[from * width..], width));
                from += tokens;
            }
            close(&y, &want, 5e-6, kernels.isa().name());
            let mut rows = vec![f32::NAN; width * states];
            state_to_rows(&state, states, &mut rows);
            close(&rows, &left, 2e-6, kernels.isa().name());
            assert_eq!(first.get_or_insert_with(|| y.clone()), &y, "cut {cut:?} on {}", kernels.isa());
        }
    }
}

#[test]
fn a_scan_of_heads_is_its_formula_however_the_text_is_cut() {
    let (heads, states, width) = (3, 20, 44);
    let channels = heads * width;
    let mut rng = Rng::new(3);
    let a: Vec<f32> = numbers(&mut rng, heads).into_iter().map(|a| -a * a).collect();
    let (skip, x) = (numbers(&mut rng, heads), numbers(&mut rng, TOKENS * channels));
    let dt: Vec<f32> = numbers(&mut rng, TOKENS * heads).into_iter().map(|x| 0.3 * x * x).collect();
    let (b, c) = (numbers(&mut rng, TOKENS * states), numbers(&mut rng, TOKENS * states));
    let before = numbers(&mut rng, heads * states * width);

    let mut left: Vec<f64> = before.iter().map(|s| f64::from(*s)).collect();
    let mut want = vec![0.0; TOKENS * channels];
    for i in 0..TOKENS * channels {
        let (t, h, p) = (i / channels, i % channels / width, i % width);
        let step = f64::from(dt[t * heads + h]);
        let mut sum = f64::from(skip[h]) * f64::from(x[i]);
        for n in 0..states {
            let state = &mut left[(h * states + n) * width + p];
            *state = libm::exp(step * f64::from(a[h])) * *state + step * f64::from(x[i]) * f64::from(b[t * states + n]);
            sum += *state * f64::from(c[t * states + n]);
        }
        want[i] = sum;
    }
    for kernels in Kernels::available() {
        let mut first = None;
        for cut in CUTS {
            let (mut state, mut y, mut from) = (before.clone(), vec![f32::NAN; TOKENS * channels], 0);
            for tokens in cut {
                let scan = Ssd {
                    tokens: *tokens,
                    states,
                    width,
                    a: &a,
                    skip: &skip,
                    dt: Rows::dense(&dt[from * heads..], heads),
                    x: Rows::dense(&x[from * channels..], channels),
                    b: Rows::dense(&b[from * states..], states),
                    c: Rows::dense(&c[from * states..], states),
                };
                kernels.ssd_scan(&scan, &mut state, RowsMut::dense(&mut y[from * channels..], channels));
                from += tokens;
            }
            close(&y, &want, 5e-6, kernels.isa().name());
            close(&state, &left, 2e-6, kernels.isa().name());
            assert_eq!(first.get_or_insert_with(|| y.clone()), &y, "cut {cut:?} on {}", kernels.isa());
        }
    }
}

#[test]
fn a_gated_norm_is_its_formula() {
    let (width, groups) = (66, 3);
    let mut rng = Rng::new(4);
    let (x, z, gain) = (numbers(&mut rng, 2 * width), numbers(&mut rng, 2 * width), numbers(&mut rng, width));
    let gated: Vec<f64> = x.iter().zip(&z).map(|(x, z)| f64::from(*x) * silu(*z)).collect();
    let mut want = Vec::new();
    for (i, group) in gated.chunks_exact(width / groups).enumerate() {
        let mean = group.iter().map(|v| v * v).sum::<f64>() / group.len() as f64;
        let gain = &gain[i % groups * group.len()..];
        want.extend(group.iter().zip(gain).map(|(v, gain)| v / (mean + 1e-5).sqrt() * f64::from(*gain)));
    }
    for kernels in Kernels::available() {
        let mut got = x.clone();
        kernels.gated_rms_norm(&mut got, Rows::dense(&z, width), &gain, groups, 1e-5);
        close(&got, &want, 2e-6, kernels.isa().name());
    }
}

/// Runs `call` and wants it to panic with a message that has `part` in it.
#[track_caller]
fn refuses(part: &str, call: impl FnOnce()) {
    let panic = catch_unwind(AssertUnwindSafe(call)).expect_err("the front door let it in");
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    let text = text.unwrap_or_default();
    assert!(text.contains(part), "'{text}' does not say '{part}'");
}

#[test]
fn the_ops_of_recurrent_models_refuse_shapes_that_disagree() {
    let zeros = [0.0f32; 64];
    let rows = |len: usize, stride: usize| Rows { data: &zeros[..len], stride };
    for kernels in Kernels::available() {
        let conv = |x, weights: usize, state: usize, y: usize| {
            let conv = Convolution { x, tokens: 2, width: 3, weights: &zeros[..weights], bias: None, silu: false };
            kernels.causal_conv(&conv, &mut [0.0; 64][..state], RowsMut::dense(&mut [0.0; 64][..y], 3));
        };
        conv(rows(7, 4), 6, 3, 6);
        refuses("x [2, 3] with stride 4", || conv(rows(6, 4), 6, 3, 6));
        refuses("x: rows of 3 cannot be 2 apart", || conv(rows(7, 2), 6, 3, 6));
        refuses("weights [K, 3]", || conv(rows(7, 4), 7, 3, 6));
        refuses("state [1, 3]", || conv(rows(7, 4), 6, 4, 6));
        refuses("y [2, 3]", || conv(rows(7, 4), 6, 3, 5));
        let selective = |decays: usize, state: usize, b| {
            let (wide, skip) = (rows(6, 3), &zeros[..3]);
            let decays = &zeros[..decays];
            let c = rows(4, 2);
            let scan = Selective { tokens: 2, states: 2, decays, skip, dt: wide, x: wide, b, c, gate: None };
            kernels.selective_scan(&scan, &mut [0.0; 64][..state], RowsMut::dense(&mut [0.0; 6], 3));
        };
        selective(32, 32, rows(4, 2));
        refuses("decays [tiles, 2, 16]", || selective(31, 32, rows(4, 2)));
        refuses("state [tiles, 2, 16]", || selective(32, 33, rows(4, 2)));
        refuses("B [2, 2]", || selective(32, 32, rows(3, 2)));
        let ssd = |dt, state: usize, skip: usize| {
            let (b, a, skip) = (rows(4, 2), &zeros[..2], &zeros[..skip]);
            let scan = Ssd { tokens: 2, states: 2, width: 3, a, skip, dt, x: rows(12, 6), b, c: b };
            kernels.ssd_scan(&scan, &mut [0.0; 64][..state], RowsMut::dense(&mut [0.0; 12], 6));
        };
        ssd(rows(4, 2), 12, 2);
        refuses("dt [2, 2]", || ssd(rows(3, 2), 12, 2));
        refuses("state [2, 2, 3]", || ssd(rows(4, 2), 11, 2));
        refuses("A and D of 2 heads", || ssd(rows(4, 2), 12, 1));
        let gated = |x: usize, gate, groups| {
            kernels.gated_rms_norm(&mut [0.0; 64][..x], gate, &zeros[..4], groups, 1e-5);
        };
        gated(8, rows(8, 4), 2);
        refuses("3 groups of 4", || gated(8, rows(8, 4), 3));
        refuses("x [T, 4] has 7", || gated(7, rows(8, 4), 2));
        refuses("gate [2, 4]", || gated(8, rows(7, 4), 2));
    }
}
