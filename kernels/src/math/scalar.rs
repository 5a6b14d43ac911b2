//! The specification of each function; a vector variant performs the same operations in the same order.

/// Above this, `exp` overflows `f32`; arguments are clamped to it.
pub(crate) const EXP_MAX: f32 = 88.0;
/// Below this, `exp` is flushed to zero (the result would be below 2^-126, the smallest normal number).
pub(crate) const EXP_MIN: f32 = -87.0;
/// 1.5 · 2^23: adding and subtracting it rounds to the nearest integer, ties to even, on every ISA.
pub(crate) const ROUND: f32 = 12_582_912.0;
/// log2(e).
pub(crate) const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// The high part of ln 2: few enough bits that n · LN2_HIGH is exact for |n| <= 128.
pub(crate) const LN2_HIGH: f32 = 0.693_359_4;
/// ln 2 less its high part.
pub(crate) const LN2_LOW: f32 = -2.121_944_4e-4;
/// Minimax coefficients of exp(r) = 1 + r + r^2 p(r), |r| <= ln 2 / 2, highest power first (Cephes `expf`, Moshier).
pub(crate) const EXP_COEFFICIENTS: [f32; 6] =
    [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_6e-1, 5.000_000_1e-1];

/// e^x. `x` above [`EXP_MAX`] gives exp(EXP_MAX); below [`EXP_MIN`] gives 0. NaN gives NaN. Relative error below 2e-7.
pub(crate) fn exp(x: f32) -> f32 {
    if x < EXP_MIN {
        return 0.0;
    }
    // Not f32::min, which would turn NaN into the bound.
    let x = if x > EXP_MAX { EXP_MAX } else { x };
    let n = x.mul_add(LOG2_E, ROUND) - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let mut p = EXP_COEFFICIENTS[0];
    for c in &EXP_COEFFICIENTS[1..] {
        p = p.mul_add(r, *c);
    }
    let y = p.mul_add(r * r, r) + 1.0;
    y * f32::from_bits(((n as i32 + 127) as u32) << 23)
}

/// The error function, by Abramowitz and Stegun 7.1.26 in double-checked f32 form: absolute error below 5e-7.
pub(crate) fn erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / a.mul_add(0.327_591_1, 1.0);
    let mut p = 1.061_405_4f32;
    for c in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        p = p.mul_add(t, c);
    }
    let y = (-(p * t)).mul_add(exp(-(a * a)), 1.0);
    y.copysign(x)
}
