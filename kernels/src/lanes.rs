//! The sixteen-lane rule: how a float reduction is ordered, on every ISA.
//!
//! Element i is added into lane i mod 16 (with a fused multiply-add where there is a product), in ascending order of i;
//! then the sixteen lanes are folded in one fixed order: halves are added, sixteen to eight to four to two to one. One
//! AVX-512 register, two AVX2 registers or an array of sixteen floats hold the same lanes, so the bits are the same.
//!
//! A lane that has no element left must not be touched: `fma(0, 0, -0.0)` is `+0.0`. Vector tails use masked operations
//! or finish in an array.

/// Number of lanes.
pub(crate) const LANES: usize = 16;

/// Folds sixteen lanes: `l[i] + l[i + 8]`, then 4, 2, 1.
pub(crate) fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// The scalar dot product by the rule. Lengths are equal.
pub(crate) fn dot(a: impl Iterator<Item = f32>, b: impl Iterator<Item = f32>) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for (i, (a, b)) in a.zip(b).enumerate() {
        lanes[i % LANES] = a.mul_add(b, lanes[i % LANES]);
    }
    fold(lanes)
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;
