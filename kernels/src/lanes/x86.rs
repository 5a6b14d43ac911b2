//! The same lanes in registers, and loads and loops that keep their hands off what lies behind a tail.

use super::LANES;
use half::bf16;
use std::arch::x86_64::*;

/// Eight floats. Panics if there are fewer.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn load8(x: &[f32]) -> __m256 {
    let x: &[f32; 8] = x[..8].try_into().expect("eight floats");
    // SAFETY: the array holds eight floats; the load needs no alignment.
    unsafe { _mm256_loadu_ps(x.as_ptr()) }
}

/// Writes the first eight floats of `x`. Panics if there are fewer.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn store8(x: &mut [f32], value: __m256) {
    let x: &mut [f32; 8] = (&mut x[..8]).try_into().expect("eight floats");
    // SAFETY: the array holds eight floats; the store needs no alignment.
    unsafe { _mm256_storeu_ps(x.as_mut_ptr(), value) }
}

/// Sixteen floats. Panics if there are fewer.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn load16(x: &[f32]) -> __m512 {
    let x: &[f32; LANES] = x[..LANES].try_into().expect("sixteen floats");
    // SAFETY: the array holds sixteen floats; the load needs no alignment.
    unsafe { _mm512_loadu_ps(x.as_ptr()) }
}

/// Writes the first sixteen floats of `x`. Panics if there are fewer.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn store16(x: &mut [f32], value: __m512) {
    let x: &mut [f32; LANES] = (&mut x[..LANES]).try_into().expect("sixteen floats");
    // SAFETY: the array holds sixteen floats; the store needs no alignment.
    unsafe { _mm512_storeu_ps(x.as_mut_ptr(), value) }
}

/// Fewer than sixteen floats, zeros behind them.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn load_tail(x: &[f32]) -> __m512 {
    // SAFETY: the mask covers the elements of `x` alone.
    unsafe { _mm512_maskz_loadu_ps(tail_mask(x.len()), x.as_ptr()) }
}

/// Writes the lanes that the fewer than sixteen floats of `x` have room for.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn store_tail(x: &mut [f32], value: __m512) {
    // SAFETY: the mask covers the elements of `x` alone.
    unsafe { _mm512_mask_storeu_ps(x.as_mut_ptr(), tail_mask(x.len()), value) }
}

/// Lanes 0..8 and 8..16 as an array.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn array(low: __m256, high: __m256) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    store8(&mut lanes[..8], low);
    store8(&mut lanes[8..], high);
    lanes
}

/// The mask of the first `len` of sixteen lanes.
#[inline]
pub(crate) fn tail_mask(len: usize) -> __mmask16 {
    debug_assert!(len < LANES);
    (1u16 << len) - 1
}

/// All bits of the first `len` of eight lanes; `len` beyond eight means all.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn tail_mask8(len: usize) -> __m256i {
    _mm256_cmpgt_epi32(_mm256_set1_epi32(len.min(8) as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
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

/// Four sets of lanes, each folded to one number, as [`super::fold`] does: the additions of neighbouring sets share
/// registers.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn fold4_avx2(low: [__m256; 4], high: [__m256; 4]) -> [f32; 4] {
    let eight = |i: usize| _mm256_add_ps(low[i], high[i]);
    let four = |a: __m256, b: __m256| {
        _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b))
    };
    // [set 0 | set 1] and [set 2 | set 3], four lanes each.
    let (a, b) = (four(eight(0), eight(1)), four(eight(2), eight(3)));
    // [0 0 2 2 | 1 1 3 3]
    let two = _mm256_add_ps(_mm256_shuffle_ps::<0x44>(a, b), _mm256_shuffle_ps::<0xEE>(a, b));
    // [0 _ 2 _ | 1 _ 3 _]
    let one = _mm256_add_ps(two, _mm256_movehdup_ps(two));
    let (even, odd) = (_mm256_castps256_ps128(one), _mm256_extractf128_ps::<1>(one));
    let mut sums = [0.0; 4];
    // SAFETY: the array holds four floats; the store needs no alignment.
    unsafe { _mm_storeu_ps(sums.as_mut_ptr(), _mm_blend_ps::<0b1010>(even, _mm_moveldup_ps(odd))) };
    sums
}

/// Sixteen sets of lanes, each folded to one number, as [`super::fold`] does; lane i of the result belongs to set i. The
/// additions of a pair of sets share a register: 45 instructions in place of 16 times 8.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn fold16_avx512(sets: [__m512; LANES]) -> __m512 {
    // Lower halves of a and upper of b, plus upper halves of a and lower of b: [a | b] with eight lanes each.
    let eight = |a: __m512, b: __m512| {
        _mm512_add_ps(_mm512_mask_blend_ps(0xFF00, a, b), _mm512_shuffle_f32x4::<0b01_00_11_10>(a, b))
    };
    let e: [__m512; 8] = std::array::from_fn(|i| eight(sets[i], sets[i + 8]));
    // [i, i + 8, i + 4, i + 12], four lanes each.
    let four = |a: __m512, b: __m512| {
        _mm512_add_ps(_mm512_shuffle_f32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b))
    };
    let f: [__m512; 4] = std::array::from_fn(|i| four(e[i], e[i + 4]));
    // In each quarter [i i, i+2 i+2].
    let two = |a: __m512, b: __m512| {
        _mm512_add_ps(_mm512_mask_blend_ps(0xCCCC, a, b), _mm512_shuffle_ps::<0b01_00_11_10>(a, b))
    };
    let (a, b) = (two(f[0], f[2]), two(f[1], f[3]));
    // In each quarter 0, 2, 1, 3 beyond the quarter's first; the quarters begin at 0, 8, 4, 12.
    let one = _mm512_add_ps(_mm512_shuffle_ps::<0b10_00_10_00>(a, b), _mm512_shuffle_ps::<0b11_01_11_01>(a, b));
    _mm512_permutexvar_ps(_mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15), one)
}

/// Replaces every element by a function of it, eight at a time; the tail goes through a padded array.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn map_avx2(x: &mut [f32], f: impl Fn(__m256) -> __m256) {
    let mut whole = x.chunks_exact_mut(8);
    for x in &mut whole {
        store8(x, f(load8(x)));
    }
    let tail = whole.into_remainder();
    if !tail.is_empty() {
        let mut padded = [0.0; 8];
        padded[..tail.len()].copy_from_slice(tail);
        let value = f(load8(&padded));
        store8(&mut padded, value);
        tail.copy_from_slice(&padded[..tail.len()]);
    }
}

/// Replaces every element of `x` by a function of it and of its neighbour in `y`. Lengths are equal.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn zip_avx2(x: &mut [f32], y: &[f32], f: impl Fn(__m256, __m256) -> __m256) {
    let mut whole = x.chunks_exact_mut(8);
    let others = y.chunks_exact(8);
    let rest = others.remainder();
    for (x, y) in (&mut whole).zip(others) {
        store8(x, f(load8(x), load8(y)));
    }
    let tail = whole.into_remainder();
    if !tail.is_empty() {
        let (mut padded, mut other) = ([0.0; 8], [0.0; 8]);
        padded[..tail.len()].copy_from_slice(tail);
        other[..rest.len()].copy_from_slice(rest);
        let value = f(load8(&padded), load8(&other));
        store8(&mut padded, value);
        tail.copy_from_slice(&padded[..tail.len()]);
    }
}

/// Replaces every element by a function of it, sixteen at a time; the tail is masked.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn map_avx512(x: &mut [f32], f: impl Fn(__m512) -> __m512) {
    let mut whole = x.chunks_exact_mut(LANES);
    for x in &mut whole {
        store16(x, f(load16(x)));
    }
    let tail = whole.into_remainder();
    if !tail.is_empty() {
        store_tail(tail, f(load_tail(tail)));
    }
}

/// Replaces every element of `x` by a function of it and of its neighbour in `y`. Lengths are equal.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn zip_avx512(x: &mut [f32], y: &[f32], f: impl Fn(__m512, __m512) -> __m512) {
    let mut whole = x.chunks_exact_mut(LANES);
    let others = y.chunks_exact(LANES);
    let rest = others.remainder();
    for (x, y) in (&mut whole).zip(others) {
        store16(x, f(load16(x), load16(y)));
    }
    let tail = whole.into_remainder();
    if !tail.is_empty() {
        store_tail(tail, f(load_tail(tail), load_tail(rest)));
    }
}

/// Stored numbers widened to `f32` in registers, exactly.
pub(crate) trait Widen: Copy {
    /// Eight numbers.
    ///
    /// # Safety
    /// The CPU has AVX2, and eight numbers can be read there.
    unsafe fn widen8(at: *const Self) -> __m256;

    /// Fewer than eight numbers, zeros behind them.
    ///
    /// # Safety
    /// The CPU has AVX2, and `len` numbers can be read there.
    unsafe fn widen_few(at: *const Self, len: usize) -> __m256;

    /// Sixteen numbers.
    ///
    /// # Safety
    /// The CPU has AVX-512 (F, BW, VL), and sixteen numbers can be read there.
    unsafe fn widen16(at: *const Self) -> __m512;

    /// The numbers that the mask names, zeros for the others.
    ///
    /// # Safety
    /// The CPU has AVX-512 (F, BW, VL), and the numbers that the mask names can be read.
    unsafe fn widen_masked(at: *const Self, mask: __mmask16) -> __m512;
}

impl Widen for f32 {
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn widen8(at: *const f32) -> __m256 {
        // SAFETY: as the caller promises.
        unsafe { _mm256_loadu_ps(at) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn widen_few(at: *const f32, len: usize) -> __m256 {
        // SAFETY: as the caller promises; lanes outside the mask are not read.
        unsafe { _mm256_maskload_ps(at, tail_mask8(len)) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn widen16(at: *const f32) -> __m512 {
        // SAFETY: as the caller promises.
        unsafe { _mm512_loadu_ps(at) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn widen_masked(at: *const f32, mask: __mmask16) -> __m512 {
        // SAFETY: as the caller promises; lanes outside the mask are not read.
        unsafe { _mm512_maskz_loadu_ps(mask, at) }
    }
}

impl Widen for bf16 {
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn widen8(at: *const bf16) -> __m256 {
        // SAFETY: as the caller promises.
        let halves = unsafe { _mm_loadu_si128(at.cast()) };
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn widen_few(at: *const bf16, len: usize) -> __m256 {
        let mut numbers = [bf16::ZERO; 8];
        // SAFETY: as the caller promises, and the array holds eight numbers.
        unsafe {
            numbers[..len].copy_from_slice(std::slice::from_raw_parts(at, len));
            bf16::widen8(numbers.as_ptr())
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn widen16(at: *const bf16) -> __m512 {
        // SAFETY: as the caller promises.
        let halves = unsafe { _mm256_loadu_si256(at.cast()) };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn widen_masked(at: *const bf16, mask: __mmask16) -> __m512 {
        // SAFETY: as the caller promises; lanes outside the mask are not read.
        let halves = unsafe { _mm256_maskz_loadu_epi16(mask, at.cast()) };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
    }
}

impl Widen for i8 {
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn widen8(at: *const i8) -> __m256 {
        // SAFETY: as the caller promises.
        let codes = unsafe { _mm_loadl_epi64(at.cast()) };
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn widen_few(at: *const i8, len: usize) -> __m256 {
        let mut codes = [0; 8];
        // SAFETY: as the caller promises, and the array holds eight codes.
        unsafe {
            codes[..len].copy_from_slice(std::slice::from_raw_parts(at, len));
            i8::widen8(codes.as_ptr())
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn widen16(at: *const i8) -> __m512 {
        // SAFETY: as the caller promises.
        let codes = unsafe { _mm_loadu_si128(at.cast()) };
        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn widen_masked(at: *const i8, mask: __mmask16) -> __m512 {
        // SAFETY: as the caller promises; lanes outside the mask are not read.
        let codes = unsafe { _mm_maskz_loadu_epi8(mask, at) };
        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes))
    }
}
