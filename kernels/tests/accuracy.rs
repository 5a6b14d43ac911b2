//! Every float op against its formula in f64, on every ISA, with stated bounds; and what becomes of extreme inputs.

use kernels::activation::{Activation, Gate};
use kernels::attention::Heads;
use kernels::attention::int8::RowScales;
use kernels::rope::Pairs;
use kernels::{CacheElement, Kernels, Rng};

/// `got` against `want`: within `relative` of it or within `absolute`; where `want` is beyond `f32`, infinite.
#[track_caller]
fn close(got: f32, want: f64, relative: f64, absolute: f64, what: std::fmt::Arguments<'_>) {
    if (want as f32).is_infinite() {
        assert_eq!(got, want as f32, "{what}");
    } else {
        let error = (f64::from(got) - want).abs();
        assert!(error <= relative * want.abs() + absolute, "{what}: {got:e}, expected {want:e}");
    }
}

/// Arguments of an element-wise function: a fine grid where it bends, and magnitudes of every order, both signs.
fn arguments() -> Vec<f32> {
    let grid = (-30_000..=30_000).map(|i| i as f32 / 1500.0);
    let magnitudes = (-149..128).flat_map(|e| {
        let x = 2f64.powi(e);
        [x as f32, (-1.37 * x) as f32]
    });
    let named = [0.0, -0.0, 1e-45, -1e-45, 1e-40, -1e-40, 1e30, -1e30, f32::MAX, f32::MIN, 88.0, -88.0, -89.0, -104.0];
    grid.chain(magnitudes).chain(named).collect()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}

/// A function in f64.
type Formula = fn(f64) -> f64;

/// The element-wise functions with their bounds: relative error, absolute error.
const ACTIVATIONS: [(Activation, Formula, f64, f64); 10] = [
    // Below -88.7 the exponential of -x overflows and the result, below 3e-39, becomes 0.
    (Activation::Sigmoid, sigmoid, 2e-7, 3e-39),
    (Activation::Silu, |x| x * sigmoid(x), 3e-7, 3e-37),
    // The rounding of 2u is multiplied by |2u| in the exponential; there the result is small.
    (Activation::GeluTanh, gelu_tanh, 5e-7, 1e-7),
    (Activation::GeluErf, |x| x * 0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2), 6e-7, 2e-36),
    (Activation::SquaredRelu, squared_relu, 6e-8, 1e-45),
    // Results below 2e-38 are 0.
    (Activation::Exp, libm::exp, 1.1e-7, 2e-38),
    (Activation::Tanh, libm::tanh, 1.8e-7, 0.0),
    (Activation::Softplus, softplus, 3e-7, 2e-38),
    // The relative error of exp(x) is multiplied by exp(x) in the outer exponential; there the result is small.
    (Activation::ExpDecay, |x| libm::exp(-libm::exp(x)), 2e-7, 5e-8),
    (Activation::SigmoidDecay, |x| libm::exp(-0.606_531 * sigmoid(x)), 3e-7, 0.0),
];

/// Element-wise functions that recurrences depend on, with their bounds in units in the last place.
const ULPS: [(Activation, Formula, f64); 3] =
    [(Activation::Exp, libm::exp, 1.1), (Activation::Tanh, libm::tanh, 1.3), (Activation::Softplus, softplus, 1.8)];

fn softplus(x: f64) -> f64 {
    if x > 40.0 { x } else { libm::log1p(libm::exp(x)) }
}

fn gelu_tanh(x: f64) -> f64 {
    // x/2 (1 + tanh u) as x / (1 + exp(-2u)), which is the same and does not cancel.
    x * sigmoid(2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x))
}

fn squared_relu(x: f64) -> f64 {
    x.max(0.0) * x.max(0.0)
}

#[test]
fn activations_are_within_their_bounds_of_the_formula() {
    let arguments = arguments();
    for kernels in Kernels::available() {
        for (activation, formula, relative, absolute) in ACTIVATIONS {
            let mut y = arguments.clone();
            kernels.activate(activation, &mut y);
            for (x, y) in arguments.iter().zip(&y) {
                let what = format_args!("{activation:?}({x:e}) on {}", kernels.isa());
                close(*y, formula(f64::from(*x)), relative, absolute, what);
            }
        }
    }
}

#[test]
fn functions_of_recurrences_are_within_their_units_in_the_last_place() {
    let arguments: Vec<f32> = (-1_000_000..=1_000_000).map(|i| i as f32 * 1e-4).filter(|x| x.abs() < 86.9).collect();
    for kernels in Kernels::available() {
        for (activation, formula, bound) in ULPS {
            let mut y = arguments.clone();
            kernels.activate(activation, &mut y);
            let worst = arguments.iter().zip(&y).map(|(x, y)| {
                let want = formula(f64::from(*x));
                // The distance from the rounded result to its neighbour away from 0.
                let near = (want as f32).abs();
                let unit = f64::from(f32::from_bits(near.to_bits() + 1)) - f64::from(near);
                (f64::from(*y) - want).abs() / unit
            });
            let worst = worst.fold(0.0, f64::max);
            assert!(worst <= bound, "{activation:?} errs by {worst} units on {}", kernels.isa());
        }
    }
}

#[test]
fn activations_of_infinities_are_limits_and_of_nan_is_nan() {
    for kernels in Kernels::available() {
        let apply = |activation, x: f32| {
            // Seventeen, so that a whole register and a tail both see it.
            let mut x = [x; 17];
            kernels.activate(activation, &mut x);
            assert!(x.iter().all(|y| y.to_bits() == x[0].to_bits()) || x.iter().all(|y| y.is_nan()));
            x[0]
        };
        for (activation, ..) in ACTIVATIONS {
            let (low, high) = match activation {
                Activation::Sigmoid => (0.0, 1.0),
                Activation::Tanh => (-1.0, 1.0),
                Activation::ExpDecay => (1.0, 0.0),
                Activation::SigmoidDecay => (1.0, apply(activation, 50.0)),
                _ => (0.0, f32::INFINITY),
            };
            assert_eq!(apply(activation, f32::INFINITY), high, "{activation:?}(inf) on {}", kernels.isa());
            assert_eq!(apply(activation, f32::NEG_INFINITY), low, "{activation:?}(-inf) on {}", kernels.isa());
            assert!(apply(activation, f32::NAN).is_nan(), "{activation:?}(NaN) on {}", kernels.isa());
        }
    }
}

#[test]
fn gates_are_within_their_bounds_of_the_formula() {
    let gate = arguments();
    let mut rng = Rng::new(3);
    let up: Vec<f32> = gate.iter().map(|_| rng.normal()).collect();
    let swiglu = |x: f64| x * sigmoid(x);
    let gates: [(Gate, Formula, f64, f64); 2] =
        [(Gate::SwiGlu, swiglu, 4e-7, 2e-36), (Gate::SquaredReluGlu, squared_relu, 1.3e-7, 1e-44)];
    for kernels in Kernels::available() {
        for (op, formula, relative, absolute) in gates {
            let mut y = gate.clone();
            kernels.activate_gated(op, &mut y, &up);
            for ((x, up), y) in gate.iter().zip(&up).zip(&y) {
                let value = formula(f64::from(*x));
                // The square overflows before it is multiplied.
                let value = if (value as f32).is_infinite() { f64::INFINITY } else { value };
                let what = format_args!("{op:?}({x:e}, {up:e}) on {}", kernels.isa());
                close(*y, value * f64::from(*up), relative, absolute, what);
            }
        }
    }
}

fn softmax(x: &[f64]) -> Vec<f64> {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let terms: Vec<f64> = x.iter().map(|x| libm::exp(x - max)).collect();
    let sum: f64 = terms.iter().sum();
    terms.iter().map(|term| term / sum).collect()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

#[test]
fn softmax_is_within_its_bound_of_the_formula() {
    let mut rng = Rng::new(5);
    let mut rows: Vec<Vec<f32>> =
        [1, 2, 17, 100, 4096, 128_256].map(|n| (0..n).map(|_| rng.normal() * 10.0).collect()).into();
    // Offsets, ties, masked positions, distances that underflow, denormals.
    rows.push(vec![1e30, 1e30, -1e30, f32::MIN, 0.0]);
    rows.push(vec![f32::MAX, f32::MIN]);
    rows.push(vec![f32::NEG_INFINITY, 3.0, f32::NEG_INFINITY, 2.0]);
    rows.push(vec![1e-40, -1e-40, -0.0, 0.0]);
    rows.push((0..300).map(|i| -(i as f32)).collect());
    for kernels in Kernels::available() {
        for row in &rows {
            let mut p = row.clone();
            kernels.softmax(&mut p);
            for ((x, p), want) in row.iter().zip(&p).zip(softmax(&wide(row))) {
                // A difference of 87 is rounded by up to 4e-6; terms below e^-86.9 of the largest are 0.
                close(*p, want, 6e-6, 2e-38, format_args!("softmax at {x:e} of {} on {}", row.len(), kernels.isa()));
            }
            let sum: f64 = wide(&p).iter().sum();
            assert!((sum - 1.0).abs() < 2e-6, "{} probabilities sum to {sum} on {}", row.len(), kernels.isa());
        }
    }
}

/// Rows that a norm may meet: usual ones, one of large mean, tiny and huge ones, constants.
fn rows() -> Vec<Vec<f32>> {
    let mut rng = Rng::new(8);
    let mut rows: Vec<Vec<f32>> =
        [1, 2, 15, 17, 256, 6912].map(|d| (0..d).map(|_| rng.normal()).collect()).into_iter().collect();
    rows.push((0..500).map(|_| 100.0 + rng.normal()).collect());
    for magnitude in [1e-45, 1e-40, 1e-30, 1e10, 1e18, 1e20, 1e30, 1e38] {
        rows.push((0..100).map(|_| (magnitude * f64::from(rng.normal())) as f32).collect());
    }
    rows.push(vec![f32::MAX; 40]);
    rows.push([f32::MAX, f32::MIN].repeat(20));
    rows.push(vec![0.0; 20]);
    rows.push(vec![-0.0; 20]);
    rows.push([1e30, -1e30, 1e-45, -0.0].repeat(5));
    rows
}

#[test]
fn norms_are_within_their_bounds_of_the_formula_at_any_magnitude() {
    const EPS: f32 = 1e-5;
    let mut rng = Rng::new(9);
    for x in rows() {
        let gain: Vec<f32> = x.iter().map(|_| rng.normal()).collect();
        let bias: Vec<f32> = x.iter().map(|_| rng.normal()).collect();
        let width = x.len() as f64;
        let squares = wide(&x).iter().map(|x| x * x).sum::<f64>() / width;
        let mean = wide(&x).iter().sum::<f64>() / width;
        let variance = wide(&x).iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / width;
        let (rms, layer) = (1.0 / (squares + f64::from(EPS)).sqrt(), 1.0 / (variance + f64::from(EPS)).sqrt());
        for kernels in Kernels::available() {
            let mut out = vec![f32::NAN; x.len()];
            kernels.rms_norm(&x, &gain, EPS, &mut out);
            let what = |i: usize| format!("element {i}, {:e}, of {} on {}", x[i], x.len(), kernels.isa());
            for i in 0..x.len() {
                let want = f64::from(x[i]) * rms * f64::from(gain[i]);
                close(out[i], want, 1e-6, 3e-45, format_args!("rms norm, {}", what(i)));
            }
            let mut unit = x.clone();
            kernels.unit_norm(&mut unit, x.len());
            let length = (squares * width).sqrt().max(1e-12);
            for i in 0..x.len() {
                // The least length is a rounded number, and a tiny row loses bits of its squares.
                close(unit[i], f64::from(x[i]) / length, 1e-6, 3e-45, format_args!("unit norm, {}", what(i)));
            }
            kernels.layer_norm(&x, &gain, &bias, EPS, &mut out);
            for i in 0..x.len() {
                let deviation = (f64::from(x[i]) - mean) * layer;
                let want = deviation * f64::from(gain[i]) + f64::from(bias[i]);
                // The mean is known to a few units in its last place; a constant row is nothing but that error.
                let error = 3e-7 * (deviation.abs() + (mean.abs() * layer).min(1.0 / 3e-7)) * f64::from(gain[i].abs());
                close(out[i], want, 2e-7, error, format_args!("layer norm, {}", what(i)));
            }
        }
    }
}

#[test]
fn a_norm_and_codes_in_one_op_are_those_of_two() {
    let mut inputs = rows();
    inputs.extend(
        [f32::NAN, f32::INFINITY, 1e30].map(|odd| (0..70).map(|i| if i == 50 { odd } else { i as f32 }).collect()),
    );
    for x in inputs.iter().filter(|x| !x.is_empty()) {
        let gain: Vec<f32> = (0..x.len()).map(|i| (i % 13) as f32 - 5.5).collect();
        for kernels in Kernels::available() {
            let (mut normed, mut want, mut got) = (vec![0.0; x.len()], vec![1; x.len() + 3], vec![2; x.len() + 3]);
            kernels.rms_norm(x, &gain, 1e-5, &mut normed);
            let two = kernels.quantise(&normed, &mut want);
            assert_eq!(kernels.rms_quantise(x, &gain, 1e-5, &mut got), two, "from {:e} on {}", x[0], kernels.isa());
            assert_eq!(got, want, "from {:e} on {}", x[0], kernels.isa());
        }
    }
}

#[test]
fn rotations_are_within_their_bound_of_the_formula() {
    let mut rng = Rng::new(10);
    for half in [1, 4, 7, 8, 16, 33, 64] {
        let angles: Vec<f64> = (0..half).map(|_| f64::from(rng.normal()) * 100.0).collect();
        let cos: Vec<f32> = angles.iter().map(|a| libm::cos(*a) as f32).collect();
        let sin: Vec<f32> = angles.iter().map(|a| libm::sin(*a) as f32).collect();
        for scale in [1.0, 1e30, 1e-30] {
            let x: Vec<f32> = (0..6 * half).map(|_| rng.normal() * scale).collect();
            for kernels in Kernels::available() {
                for pairs in [Pairs::HalfSplit, Pairs::Interleaved] {
                    let mut y = x.clone();
                    kernels.rope(pairs, &mut y, &cos, &sin);
                    for (head, i) in (0..3).flat_map(|head| (0..half).map(move |i| (head, i))) {
                        let (a, b) = match pairs {
                            Pairs::HalfSplit => (i, i + half),
                            Pairs::Interleaved => (2 * i, 2 * i + 1),
                        };
                        let (a, b) = (2 * half * head + a, 2 * half * head + b);
                        let (sin, cos) = libm::sincos(angles[i]);
                        let (xa, xb) = (f64::from(x[a]), f64::from(x[b]));
                        let error = 2e-7 * (xa.abs() + xb.abs());
                        let what = format_args!("{pairs:?}, pair {i} of {half} on {}", kernels.isa());
                        close(y[a], xa * cos - xb * sin, 0.0, error, what);
                        close(y[b], xb * cos + xa * sin, 0.0, error, what);
                    }
                }
            }
        }
    }
}

/// One call's numbers before they are narrowed.
struct Cache {
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    width: usize,
    scale: f32,
}

impl Cache {
    fn random(queries: usize, width: usize, cached: usize, rng: &mut Rng) -> Cache {
        let mut numbers = |n: usize| (0..n).map(|_| rng.normal()).collect::<Vec<f32>>();
        let scale = 1.0 / (width as f32).sqrt();
        Cache {
            queries: numbers(queries * width),
            keys: numbers(cached * width),
            values: numbers(cached * width),
            width,
            scale,
        }
    }

    fn heads<'a, E>(&'a self, keys: &'a [E], values: &'a [E]) -> Heads<'a, E> {
        Heads { queries: &self.queries, keys, values, width: self.width, scale: self.scale }
    }

    /// [`Cache::check_with`] a cache of plain numbers.
    fn check<E: CacheElement>(&self, bound: f64) {
        let narrow = |x: &[f32]| x.iter().map(|x| E::narrow(*x)).collect::<Vec<E>>();
        let (keys, values) = (narrow(&self.keys), narrow(&self.values));
        let truth = [&keys, &values].map(|x| x.iter().map(|x| f64::from(x.widen())).collect());
        self.check_with(E::NAME, truth, bound, |kernels, scores, out| {
            kernels.attention(self.heads(&keys, &values), scores, out);
        });
    }

    /// [`Cache::check_with`] a cache of codes.
    fn check_int8(&self, bound: f64) {
        let rows = |x: &[f32]| {
            let (mut codes, mut scales) = (vec![0; x.len()], vec![0.0; x.len() / self.width]);
            Kernels::best().quantise_rows(x, self.width, &mut codes, &mut scales);
            (codes, scales)
        };
        let ((keys, a), (values, b)) = (rows(&self.keys), rows(&self.values));
        let truth = |codes: &[i8], scales: &[f32]| {
            let scales = scales.iter().flat_map(|scale| std::iter::repeat_n(f64::from(*scale), self.width));
            codes.iter().zip(scales).map(|(code, scale)| f64::from(*code) * scale).collect()
        };
        self.check_with("int8", [truth(&keys, &a), truth(&values, &b)], bound, |kernels, scores, out| {
            kernels.attention_int8(self.heads(&keys, &values), RowScales { keys: &a, values: &b }, scores, out);
        });
    }

    /// Each result against the formula, within `bound` times the largest value of its column. `truth`: keys and values.
    fn check_with(&self, name: &str, truth: [Vec<f64>; 2], bound: f64, run: impl Fn(&Kernels, &mut [f32], &mut [f32])) {
        let (g, n) = (self.queries.len() / self.width, self.keys.len() / self.width);
        let [keys, values] = truth;
        let truth = |x: &[f64], i: usize, c: usize| x[i * self.width + c];
        for kernels in Kernels::available() {
            let (mut scores, mut out) = (vec![f32::NAN; g * n], vec![f32::NAN; self.queries.len()]);
            run(kernels, &mut scores, &mut out);
            for (query, out) in self.queries.chunks_exact(self.width).zip(out.chunks_exact(self.width)) {
                let dot = |i| query.iter().enumerate().map(|(c, q)| f64::from(*q) * truth(&keys, i, c)).sum::<f64>();
                let p = softmax(&(0..n).map(|i| dot(i) * f64::from(self.scale)).collect::<Vec<f64>>());
                for (c, out) in out.iter().enumerate() {
                    let want: f64 = p.iter().enumerate().map(|(i, p)| p * truth(&values, i, c)).sum();
                    let largest = (0..n).map(|i| truth(&values, i, c).abs()).fold(0.0, f64::max);
                    let what = format_args!("{name} {g}x{}x{n}, column {c} on {}", self.width, kernels.isa());
                    close(*out, want, 0.0, bound * largest, what);
                }
            }
        }
    }
}

#[test]
fn attention_is_within_its_bound_of_the_formula() {
    let mut rng = Rng::new(12);
    for (g, k, n) in [(1, 8, 1), (2, 8, 40), (3, 17, 33), (4, 128, 300), (5, 100, 70)] {
        let cache = Cache::random(g, k, n, &mut rng);
        cache.check::<f32>(1e-6);
        cache.check::<half::bf16>(1e-6);
        cache.check_int8(1e-6);
    }
}

#[test]
fn quantised_rows_are_within_half_a_step() {
    let mut rng = Rng::new(14);
    for magnitude in [1e-25f32, 1e-6, 1.0, 1e30] {
        let x: Vec<f32> = (0..5 * 77).map(|_| rng.normal() * magnitude).collect();
        for kernels in Kernels::available() {
            let (mut codes, mut scales) = (vec![0; x.len()], [f32::NAN; 5]);
            kernels.quantise_rows(&x, 77, &mut codes, &mut scales);
            for (i, (x, code)) in x.iter().zip(&codes).enumerate() {
                let scale = f64::from(scales[i / 77]);
                let what = format_args!("number {i} near {magnitude:e} on {}", kernels.isa());
                // Half a step and three roundings of 127 steps.
                close(*x, f64::from(*code) * scale, 0.0, (0.5 + 127.0 * 2e-7) * scale, what);
            }
        }
    }
}

#[test]
fn attention_to_extreme_keys_and_values_stays_finite() {
    let mut rng = Rng::new(13);
    let mut cache = Cache::random(3, 20, 50, &mut rng);
    // One key so large that it takes all the weight (or none), the others so small that their scores vanish.
    for key in cache.keys.chunks_exact_mut(20).skip(1) {
        key.fill(1e-40);
    }
    cache.keys[..20].fill(1e30);
    cache.values[7] = 1e30;
    cache.values[20 * 3 + 4] = -1e30;
    cache.values[20 * 9 + 5] = -1e-45;
    cache.check::<f32>(1e-6);
    cache.check::<half::bf16>(1e-6);
}

#[test]
fn extreme_inputs_give_the_same_bits_on_every_isa() {
    let mut inputs = rows();
    inputs.push(arguments());
    for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        // Within whole registers, and in a tail.
        for place in [0, 20, 34] {
            let mut row: Vec<f32> = (0..37).map(|i| i as f32 - 18.0).collect();
            row[place] = special;
            inputs.push(row);
        }
        inputs.push(vec![special; 21]);
    }
    let run = |kernels: &Kernels, x: &[f32]| -> Vec<Vec<f32>> {
        let in_place = |run: &dyn Fn(&mut [f32])| {
            let mut x = x.to_vec();
            run(&mut x);
            x
        };
        let gain: Vec<f32> = (0..x.len()).map(|i| i as f32 - 7.5).collect();
        let mut results = vec![
            in_place(&|x| kernels.softmax(x)),
            in_place(&|out| kernels.rms_norm(x, &gain, 1e-5, out)),
            in_place(&|out| kernels.layer_norm(x, &gain, &gain, 1e-5, out)),
            in_place(&|x| kernels.unit_norm(x, x.len())),
            in_place(&|x| kernels.activate_gated(Gate::SwiGlu, x, &gain)),
            in_place(&|x| kernels.activate_gated(Gate::SquaredReluGlu, x, &gain)),
        ];
        results.extend(ACTIVATIONS.map(|(activation, ..)| in_place(&|x| kernels.activate(activation, x))));
        results
    };
    let specification = Kernels::available().next().expect("every machine has the scalar level");
    for x in &inputs {
        let want = run(specification, x);
        for kernels in Kernels::available() {
            for (op, (got, want)) in run(kernels, x).iter().zip(&want).enumerate() {
                let differs =
                    |(got, want): (&f32, &f32)| got.to_bits() != want.to_bits() && !(got.is_nan() && want.is_nan());
                let place = got.iter().zip(want).position(differs);
                assert_eq!(place, None, "op {op} of {} numbers from {:e} on {}", x.len(), x[0], kernels.isa());
            }
        }
    }
}
