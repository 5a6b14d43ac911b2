//! The specification of each function; a vector variant performs the same operations in the same order.

/// e^89 overflows `f32`: larger arguments are clamped to it, and the arithmetic itself gives infinity.
pub(crate) const EXP_MAX: f32 = 89.0;
/// Below this `exp` is 0: the result would be below 1.9e-38, and 2^(n - 1) no normal number.
pub(crate) const EXP_MIN: f32 = -86.9;
/// 1.5 · 2^23: adding it rounds to the nearest integer, ties to even, on every ISA, and leaves that integer in the low
/// bits of the sum.
pub(crate) const ROUND: f32 = 12_582_912.0;
/// log2(e).
pub(crate) const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// The high part of ln 2: few enough bits that n · LN2_HIGH is exact for |n| <= 128.
pub(crate) const LN2_HIGH: f32 = 0.693_359_4;
/// ln 2 less its high part.
pub(crate) const LN2_LOW: f32 = -2.121_944_4e-4;
/// Minimax coefficients of exp(r) = 1 + r + r^2 p(r), |r| <= ln 2 / 2, highest power first (Cephes `expf`, Moshier).
pub(crate) const EXP_COEFFICIENTS: [f32; 6] =
    [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_6e-1, 0.5];

/// e^x. Above 88.7228 infinity, below [`EXP_MIN`] 0, NaN for NaN; between them the relative error is below 1.1e-7.
pub(crate) fn exp(x: f32) -> f32 {
    // Not f32::min, which would turn NaN into the bound.
    let bounded = if x > EXP_MAX { EXP_MAX } else { x };
    let shifted = bounded.mul_add(LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, bounded));
    let mut p = EXP_COEFFICIENTS[0];
    for c in &EXP_COEFFICIENTS[1..] {
        p = p.mul_add(r, *c);
    }
    let y = p.mul_add(r * r, r) + 1.0;
    // 2^(n - 1), because 2^128 is no f32 but e^88.7 is; the other factor of two is in y + y.
    let half_scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(126 << 23));
    if x < EXP_MIN { 0.0 } else { (y + y) * half_scale }
}

/// `exp2` is 0 where x rounds to an integer below this: all other results are normal numbers.
pub(crate) const EXP2_LEAST: f32 = -125.0;
/// Minimax coefficients of 2^f, |f| <= 1/2, highest power first, the last one fixed. Relative error 2.6e-9 (Remez exchange
/// at forty digits).
pub(crate) const EXP2_COEFFICIENTS: [f32; 7] =
    [1.559_467_6e-4, 1.340_664_3e-3, 9.617_693e-3, 5.550_310_4e-2, 2.402_265_2e-1, 6.931_472_4e-1, 1.0];

/// 2^x for x of at most 127, as decays are: fewer instructions than `exp`. From -125.5 down 0; the relative error is below
/// 1.2e-7.
pub(crate) fn exp2(x: f32) -> f32 {
    let shifted = x + ROUND;
    let n = shifted - ROUND;
    let f = x - n;
    let mut p = EXP2_COEFFICIENTS[0];
    for c in &EXP2_COEFFICIENTS[1..] {
        p = p.mul_add(f, *c);
    }
    // n, in the low bits of the sum, is added to the exponent.
    let value = f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23));
    if n < EXP2_LEAST { 0.0 } else { value }
}

/// 1 / (1 + e^-x). Infinities give 0 and 1.
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Below this magnitude `tanh` is its own polynomial, from it on a quotient of exponentials.
pub(crate) const TANH_MIDDLE: f32 = 0.625;
/// Minimax coefficients of p in tanh(a) = a + a³ p(a²), 0 <= a <= [`TANH_MIDDLE`], highest power first. Relative error
/// 4.4e-9 (Remez exchange at forty digits).
pub(crate) const TANH_COEFFICIENTS: [f32; 5] =
    [-0.005_704_987, 0.020_639_088, -0.053_739_715, 0.133_314_42, -0.333_332_8];

/// The hyperbolic tangent, to 1.3 units in the last place. Infinities give -1 and 1, -0 gives -0.
pub(crate) fn tanh(x: f32) -> f32 {
    let a = x.abs();
    let square = a * a;
    let mut p = TANH_COEFFICIENTS[0];
    for c in &TANH_COEFFICIENTS[1..] {
        p = p.mul_add(square, *c);
    }
    let small = (a * square).mul_add(p, a);
    // 1 - 2 / (e^2a + 1): no cancellation, as the quotient is below one half.
    let large = 1.0 - 2.0 / (exp(a + a) + 1.0);
    (if a < TANH_MIDDLE { small } else { large }).copysign(x)
}

/// Minimax coefficients of q in log(1 + u) = u + u² q(u), 0 <= u <= 1, highest power first. Relative error 5.1e-9 (Remez
/// exchange at forty digits).
pub(crate) const LOG_COEFFICIENTS: [f32; 9] = [
    -0.003_318_474,
    0.020_204_589,
    -0.057_664_447,
    0.106_805_556,
    -0.153_553_96,
    0.196_954,
    -0.249_585_87,
    0.333_305_12,
    -0.499_999_3,
];

/// log(1 + e^x) as max(x, 0) + log(1 + e^-|x|): nothing overflows, and from 17 on it is x itself. Relative error below
/// 3e-7 wherever the result is a normal number; below [`EXP_MIN`] 0.
pub(crate) fn softplus(x: f32) -> f32 {
    let u = exp(-x.abs());
    let mut q = LOG_COEFFICIENTS[0];
    for c in &LOG_COEFFICIENTS[1..] {
        q = q.mul_add(u, *c);
    }
    // Not f32::max, which would turn NaN into the bound.
    (if x < 0.0 { 0.0 } else { x }) + (u * u).mul_add(q, u)
}

/// Beyond this many standard deviations the upper tail of the normal distribution is 0 in `f32`.
pub(crate) const TAIL_END: f32 = 14.0;
/// The tail is a polynomial in 1 / (1 + TAIL_SLOPE · a).
pub(crate) const TAIL_SLOPE: f32 = 0.343_75;
/// Minimax coefficients of Q(a) e^(a²/2) / t in t = 1 / (1 + TAIL_SLOPE · a) for 0 <= a <= 13.3, where Q is the upper
/// tail of the normal distribution; highest power first. Relative error 1.9e-8 (Remez exchange at forty digits; the
/// substitution is that of Shepherd and Laframboise, "Chebyshev approximation of (1 + 2x) exp(x²) erfc x", 1981).
pub(crate) const TAIL_COEFFICIENTS: [f32; 9] = [
    -0.028_148_463,
    0.145_407_8,
    -0.274_746_12,
    0.194_172_2,
    -0.041_402_32,
    0.113_486_305,
    0.116_544_835,
    0.137_567_45,
    0.137_118_32,
];

/// The distribution function of the standard normal, (1 + erf(x / sqrt 2)) / 2, by its tail: no cancellation on the
/// negative side, where the relative error stays below 5e-7 until the result nears the smallest normal number.
pub(crate) fn normal_cdf(x: f32) -> f32 {
    let a = x.abs();
    let a = if a > TAIL_END { TAIL_END } else { a };
    let t = 1.0 / a.mul_add(TAIL_SLOPE, 1.0);
    let mut p = TAIL_COEFFICIENTS[0];
    for c in &TAIL_COEFFICIENTS[1..] {
        p = p.mul_add(t, *c);
    }
    // a² = square + rest exactly; the exponential of the rest is 1 - rest / 2.
    let square = a * a;
    let rest = a.mul_add(a, -square);
    let e = exp(square * -0.5);
    let e = rest.mul_add(e * -0.5, e);
    let tail = e * (p * t);
    if x > 0.0 { 1.0 - tail } else { tail }
}
