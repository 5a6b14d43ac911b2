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
pub(crate) mod x86 {
    //! The same lanes in registers.

    use super::LANES;
    use std::arch::x86_64::*;

    /// Eight floats. Panics if there are fewer.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(crate) fn load8(x: &[f32]) -> __m256 {
        let x: &[f32; 8] = x[..8].try_into().expect("eight floats");
        // SAFETY: the array holds eight floats; the load needs no alignment.
        unsafe { _mm256_loadu_ps(x.as_ptr()) }
    }

    /// Sixteen floats. Panics if there are fewer.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn load16(x: &[f32]) -> __m512 {
        let x: &[f32; LANES] = x[..LANES].try_into().expect("sixteen floats");
        // SAFETY: the array holds sixteen floats; the load needs no alignment.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }

    /// Lanes 0..8 and 8..16 as an array.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(crate) fn array(low: __m256, high: __m256) -> [f32; LANES] {
        let mut lanes = [0.0; LANES];
        // SAFETY: the array holds two registers; the stores need no alignment.
        unsafe {
            _mm256_storeu_ps(lanes.as_mut_ptr(), low);
            _mm256_storeu_ps(lanes.as_mut_ptr().add(8), high);
        }
        lanes
    }

    /// The mask of the first `len` of sixteen lanes.
    #[inline]
    pub(crate) fn tail_mask(len: usize) -> __mmask16 {
        debug_assert!(len < LANES);
        (1u16 << len) - 1
    }

    /// Sixteen lanes folded to one number, as [`super::fold`] does.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
    pub(crate) fn fold_avx512(lanes: __m512) -> f32 {
        let eight = _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps::<1>(lanes));
        let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}
