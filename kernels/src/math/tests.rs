//! Each function against f64 truth (the `libm` crate), and every ISA against the specification.

use super::scalar::{EXP_MIN, TANH_MIDDLE, exp, exp2, normal_cdf, sigmoid, softplus, tanh};
use std::f64::consts::FRAC_1_SQRT_2;

/// Every 499th bit pattern of `f32` (a prime, so that all exponents and low bits occur), and those that matter by name.
fn samples() -> impl Iterator<Item = f32> {
    let named = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45];
    let bends = [TANH_MIDDLE, -TANH_MIDDLE, 0.624_999_94, 0.346_573_6, 9.0, 9.5, 17.0, -17.0, 20.0];
    let edges = [88.722_83, 88.722_84, 88.0, 89.0, EXP_MIN, -86.900_01, -87.0, -88.0, -103.97, 1e30, -1e30];
    (0..=u32::MAX).step_by(499).map(f32::from_bits).chain(named).chain(bends).chain(edges)
}

/// The largest relative error over the samples that `domain` admits, and where.
fn worst(f: fn(f32) -> f32, truth: fn(f64) -> f64, domain: impl Fn(f64) -> bool) -> (f64, f32) {
    let mut worst = (0.0, 0.0);
    for x in samples().filter(|x| domain(f64::from(*x))) {
        let want = truth(f64::from(x));
        let error = ((f64::from(f(x)) - want) / want).abs();
        assert!(!error.is_nan(), "{x:?} gives {}, expected {want:e}", f(x));
        if error > worst.0 {
            worst = (error, x);
        }
    }
    worst
}

#[test]
fn exp_is_within_its_bound_wherever_the_result_is_a_normal_number() {
    let (error, x) = worst(exp, libm::exp, |x| (f64::from(EXP_MIN)..=88.722_83).contains(&x));
    assert!(error < 1.1e-7, "relative error {error:e} at {x:?}");
}

#[test]
fn exp2_is_within_its_bound_and_zero_below() {
    let (error, x) = worst(exp2, libm::exp2, |x| (-125.499..=127.0).contains(&x));
    assert!(error < 1.2e-7, "relative error {error:e} at {x:?}");
    for x in samples().filter(|x| *x <= -125.5) {
        assert_eq!(exp2(x).to_bits(), 0, "{x:?}");
    }
    assert_eq!((exp2(0.0), exp2(-0.0), exp2(-1.0), exp2(-125.0)), (1.0, 1.0, 0.5, 2.0 * f32::MIN_POSITIVE));
}

#[test]
fn exp_is_zero_below_infinite_above_and_nan_for_nan() {
    for x in samples() {
        let y = exp(x);
        if x.is_nan() {
            assert!(y.is_nan());
        } else if x < EXP_MIN {
            assert_eq!(y.to_bits(), 0, "{x:?}");
        } else if x >= 88.722_84 {
            assert_eq!(y, f32::INFINITY, "{x:?}");
        } else {
            assert!(y.is_normal(), "{x:?} gives {y:?}");
        }
    }
    assert_eq!(exp(0.0), 1.0);
    assert_eq!(exp(-0.0), 1.0);
}

#[test]
fn sigmoid_is_within_its_bound_and_ends_in_zero_and_one() {
    let (error, x) = worst(sigmoid, |x| 1.0 / (1.0 + libm::exp(-x)), |x| x >= -87.0);
    assert!(error < 2e-7, "relative error {error:e} at {x:?}");
    assert_eq!((sigmoid(f32::NEG_INFINITY), sigmoid(f32::INFINITY), sigmoid(0.0)), (0.0, 1.0, 0.5));
    assert!(sigmoid(f32::NAN).is_nan());
}

#[test]
fn tanh_is_within_its_bound_odd_and_ends_in_one() {
    let (error, x) = worst(tanh, libm::tanh, |x| x.abs() >= 1.2e-38);
    assert!(error < 1.8e-7, "relative error {error:e} at {x:?}");
    for x in samples().filter(|x| !x.is_nan()) {
        assert_eq!(tanh(-x).to_bits(), (-tanh(x)).to_bits(), "{x:?}");
        assert!(tanh(x).abs() <= 1.0, "{x:?}");
    }
    assert_eq!((tanh(f32::NEG_INFINITY), tanh(f32::INFINITY), tanh(1e-45)), (-1.0, 1.0, 1e-45));
    assert!(tanh(f32::NAN).is_nan());
}

#[test]
fn softplus_is_within_its_bound_and_becomes_x() {
    // log(1 + e^x) in f64, where e^x overflows from 709 on.
    let truth = |x: f64| if x > 40.0 { x } else { libm::log1p(libm::exp(x)) };
    let (error, x) = worst(softplus, truth, |x| x >= f64::from(EXP_MIN) && x.is_finite());
    assert!(error < 3e-7, "relative error {error:e} at {x:?}");
    for x in samples().filter(|x| *x > 17.0) {
        assert_eq!(softplus(x), x);
    }
    assert_eq!((softplus(f32::NEG_INFINITY), softplus(-87.0), softplus(f32::INFINITY)), (0.0, 0.0, f32::INFINITY));
    assert!(softplus(f32::NAN).is_nan());
}

#[test]
fn the_normal_distribution_keeps_its_relative_accuracy_far_into_the_tail() {
    let truth = |x: f64| 0.5 * libm::erfc(-x * FRAC_1_SQRT_2);
    let (error, x) = worst(normal_cdf, truth, |x| x >= -12.8);
    assert!(error < 5e-7, "relative error {error:e} at {x:?}");
    assert_eq!((normal_cdf(f32::NEG_INFINITY), normal_cdf(f32::INFINITY)), (0.0, 1.0));
    assert!(normal_cdf(f32::NAN).is_nan());
}

#[cfg(target_arch = "x86_64")]
mod vectors {
    use super::super::{avx2, avx512};
    use super::*;
    use crate::Isa;
    use crate::lanes::x86::{map_avx2, map_avx512};

    macro_rules! same_bits {
        ($test:ident, $function:ident) => {
            same_bits!($test, |_| true, $function, |x| avx2::$function(x), |x| avx512::$function(x));
        };
        ($test:ident, $domain:expr, $function:ident, $avx2:expr, $avx512:expr) => {
            #[test]
            fn $test() {
                #[target_feature(enable = "avx2,fma")]
                fn on_avx2(x: &mut [f32]) {
                    map_avx2(x, $avx2);
                }

                #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
                fn on_avx512(x: &mut [f32]) {
                    map_avx512(x, $avx512);
                }

                let x: Vec<f32> = samples().filter($domain).collect();
                let want: Vec<f32> = x.iter().map(|x| $function(*x)).collect();
                let check = |isa: Isa, got: &[f32]| {
                    for ((x, want), got) in x.iter().zip(&want).zip(got) {
                        let same = want.to_bits() == got.to_bits() || want.is_nan() && got.is_nan();
                        assert!(same, "{x:?} gives {got:?} on {isa}, expected {want:?}");
                    }
                };
                if Isa::Avx2.is_available() {
                    let mut got = x.clone();
                    // SAFETY: the CPU has the level.
                    unsafe { on_avx2(&mut got) }
                    check(Isa::Avx2, &got);
                }
                if Isa::Avx512.is_available() {
                    let mut got = x.clone();
                    // SAFETY: the CPU has the level.
                    unsafe { on_avx512(&mut got) }
                    check(Isa::Avx512, &got);
                }
            }
        };
    }

    same_bits!(exp_has_the_same_bits_on_every_isa, exp);
    same_bits!(sigmoid_has_the_same_bits_on_every_isa, sigmoid);
    same_bits!(exp2_has_the_same_bits_on_every_isa, |x| *x <= 127.0, exp2, |x| avx2::exp2([x])[0], |x| avx512::exp2([
        x
    ])[0]);
    same_bits!(tanh_has_the_same_bits_on_every_isa, tanh);
    same_bits!(softplus_has_the_same_bits_on_every_isa, softplus);
    same_bits!(the_normal_distribution_has_the_same_bits_on_every_isa, normal_cdf);
}
