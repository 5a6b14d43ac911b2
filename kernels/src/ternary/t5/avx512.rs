//! One token: every line of 64 bytes is 64 indices into a table of 122 sums of five activations, looked up by `vpermi2b`
//! from four registers (the low and the high bytes of the sums). A negative byte wants the negated sum; its bytes are
//! complemented, which is one short of that, and the tile's header says how often.
//!
//! Six tiles far apart share the registers of a table, and each is its own memory stream.
//!
//! More tokens: a panel of codes, the digits of each byte looked up too ([`crate::ternary::panel`]).

use super::{Activations, LINES, TILE_ROWS, TRITS, Weights, byte};
use crate::Line;
use crate::streams::{leftovers, prefetch, rounds};
use crate::ternary::panel::Panel;
use crate::ternary::panel::avx512::{Unpack, matmul as panels};
use crate::ternary::{Method, Tables};
use std::arch::x86_64::*;
use std::array;
use std::ops::Range;

pub(crate) const METHOD: Method = Method {
    matmul,
    tables: Some(Tables { lines: |groups, tokens| if tokens == 1 { groups * LINES * TABLE } else { 0 }, make }),
};

/// Lines of the table of a line of weights: low bytes of 128 sums, then their high bytes.
const TABLE: usize = 4;
/// Bytes between a load and the prefetch of its stream.
const AHEAD: usize = 1792;
/// Groups whose sums add up in 16 bits; a complement may be one more than a sum in magnitude.
const RUN: usize = 12;
const _: () = assert!((RUN * LINES * (TRITS * 128 + 1)) as i32 <= i16::MAX as i32, "16-bit sums overflow");

/// The codes w + 1 of the five trits of every magnitude, by trit; magnitudes that no byte has are weight 0.
const DIGITS: [[u8; 128]; TRITS] = {
    let mut digits = [[1; 128]; TRITS];
    let mut number = 121;
    while number < 243 {
        let mut wanted = [0; TRITS];
        let (mut i, mut rest) = (TRITS, number);
        while i > 0 {
            i -= 1;
            wanted[i] = (rest % 3) as i8 - 1;
            rest /= 3;
        }
        let magnitude = byte(wanted) as usize;
        while i < TRITS {
            digits[i][magnitude] = (wanted[i] + 1) as u8;
            i += 1;
        }
        number += 1;
    }
    digits
};

/// `DIGITS` in pairs, as `vpmaddubsw` reads them: trits 0 and 1, 2 and 3, 4 and none, of all magnitudes.
const PAIRS: [[[u8; 2]; 128]; 3] = {
    let mut pairs = [[[0; 2]; 128]; 3];
    let mut i = 0;
    while i < TRITS {
        let mut m = 0;
        while m < 128 {
            pairs[i / 2][m][i % 2] = DIGITS[i][m];
            m += 1;
        }
        i += 1;
    }
    pairs
};

/// Picks the low bytes of 64 16-bit numbers in two registers.
const LOW: [u8; 64] = {
    let mut low = [0; 64];
    let mut i = 0;
    while i < 64 {
        low[i] = 2 * i as u8;
        i += 1;
    }
    low
};

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
pub(super) fn matmul(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    if x.scales.len() > 1 {
        return panels(&Packed(weights), weights.rows, weights.groups, x, out);
    }
    let tiles = weights.rows.div_ceil(TILE_ROWS);
    for tiles in rounds::<6>(tiles) {
        vector(weights, x, tiles, out);
    }
    for tile in leftovers::<6>(tiles) {
        vector(weights, x, [tile], out);
    }
}

/// 64 bytes.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// The tables of one token: for each line of weights, the sums of its five columns' codes, each times the trit of a
/// magnitude.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
fn make(codes: &[i8], _stride: usize, _groups: usize, tables: &mut [Line]) {
    let low = load(&LOW);
    let high = _mm512_or_si512(low, _mm512_set1_epi8(1));
    let pairs: [[__m512i; 4]; 3] = PAIRS.map(|pairs| {
        let (quarters, _) = pairs.as_flattened().as_chunks::<64>();
        array::from_fn(|quarter| load(&quarters[quarter]))
    });
    for (l, table) in tables.as_chunks_mut::<TABLE>().0.iter_mut().enumerate() {
        // Columns beyond the stride have no codes: zeros.
        let first = l / LINES * LINES * TRITS + l % LINES;
        let q: [i16; TRITS] = array::from_fn(|i| codes.get(first + LINES * i).map_or(0, |q| i16::from(*q)));
        let pair = |low: i16, high: i16| _mm512_set1_epi16((low & 0xFF) | high << 8);
        let q_pairs = [pair(q[0], q[1]), pair(q[2], q[3]), pair(q[4], 0)];
        let sum = _mm512_set1_epi16(q.iter().sum());
        let mut sums = [_mm512_setzero_si512(); 4];
        for (quarter, sums) in sums.iter_mut().enumerate() {
            let [a, b, c] = array::from_fn(|i| _mm512_maddubs_epi16(pairs[i][quarter], q_pairs[i]));
            *sums = _mm512_add_epi16(_mm512_add_epi16(a, b), _mm512_sub_epi16(c, sum));
        }
        let planes = [
            _mm512_permutex2var_epi8(sums[0], low, sums[1]),
            _mm512_permutex2var_epi8(sums[2], low, sums[3]),
            _mm512_permutex2var_epi8(sums[0], high, sums[1]),
            _mm512_permutex2var_epi8(sums[2], high, sums[3]),
        ];
        for (line, plane) in table.iter_mut().zip(planes) {
            // SAFETY: a line is one aligned register.
            unsafe { _mm512_store_si512(line.0.as_mut_ptr().cast(), plane) };
        }
    }
}

/// The products of N tiles and one token.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
fn vector<const N: usize>(weights: Weights<'_>, x: Activations<'_>, tiles: [usize; N], out: &mut [f32]) {
    let tiles = tiles.map(|tile| (tile * TILE_ROWS, weights.t5_tile(tile)));
    let tables = x.tables.as_chunks::<TABLE>().0.as_chunks::<LINES>().0;
    // 32-bit sums of the even and the odd rows of `narrow`.
    let mut wide = [[[_mm512_setzero_si512(); 2]; 2]; N];
    let ones = _mm512_set1_epi8(-1);
    let even = _mm512_set1_epi32(1);
    for first in (0..weights.groups).step_by(RUN) {
        let groups = first..(first + RUN).min(weights.groups);
        // Rows in the order of `vpunpcklbw` and of `vpunpckhbw`.
        let mut narrow = [[_mm512_setzero_si512(); 2]; N];
        let lines = tiles.map(|(_, (_, lines))| lines[groups.clone()].as_flattened().as_ptr());
        for (l, table) in tables[groups].as_flattened().iter().enumerate() {
            // SAFETY: a line is one aligned register.
            let plane = |i: usize| unsafe { _mm512_load_si512(table[i].0.as_ptr().cast()) };
            let (low, high) = ([plane(0), plane(1)], [plane(2), plane(3)]);
            for n in 0..N {
                // SAFETY: there are as many lines as tables; a line is one aligned register.
                let index = unsafe { _mm512_load_si512(lines[n].add(l).cast()) };
                prefetch(lines[n].wrapping_add(l), AHEAD);
                let negative = _mm512_movepi8_mask(index);
                let lookup = |plane: [__m512i; 2]| {
                    let found = _mm512_permutex2var_epi8(plane[0], index, plane[1]);
                    _mm512_mask_sub_epi8(found, negative, ones, found)
                };
                let (low, high) = (lookup(low), lookup(high));
                narrow[n][0] = _mm512_add_epi16(narrow[n][0], _mm512_unpacklo_epi8(low, high));
                narrow[n][1] = _mm512_add_epi16(narrow[n][1], _mm512_unpackhi_epi8(low, high));
            }
        }
        for (wide, narrow) in wide.iter_mut().zip(narrow) {
            for (wide, narrow) in wide.iter_mut().zip(narrow) {
                wide[0] = _mm512_add_epi32(wide[0], _mm512_madd_epi16(narrow, even));
                wide[1] = _mm512_add_epi32(wide[1], _mm512_srai_epi32::<16>(narrow));
            }
        }
    }
    let scale = _mm512_set1_ps(x.scales[0]);
    for (wide, (first_row, (negative, _))) in wide.into_iter().zip(tiles) {
        let out = &mut out[first_row..];
        for (i, sums) in in_order(wide).into_iter().enumerate() {
            let rows = out.len().saturating_sub(16 * i).min(16);
            let negative = &negative[16 * i..16 * (i + 1)];
            // SAFETY: sixteen numbers are read, as many as the mask admits are written, all inside their slices.
            unsafe {
                let negative = _mm512_load_si512(negative.as_ptr().cast());
                let results = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(sums, negative)), scale);
                let to = out.as_mut_ptr().wrapping_add(16 * i);
                _mm512_mask_storeu_ps(to, crate::transpose::avx512::first(rows), results);
            }
        }
    }
}

/// The sums of 64 rows in order, from [low or high half of each 128-bit lane of rows][even or odd of them].
#[inline]
#[target_feature(enable = "avx512f")]
fn in_order(sums: [[__m512i; 2]; 2]) -> [__m512i; 4] {
    let [[a, b], [c, d]] = sums.map(|[even, odd]| [_mm512_unpacklo_epi32(even, odd), _mm512_unpackhi_epi32(even, odd)]);
    lanes_in_order([a, b, c, d])
}

/// The sums of 64 rows in order, where lane l of the i-th holds those of rows 16 l + 4 i .. + 4.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn lanes_in_order([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (ab_low, ab_high) = (_mm512_shuffle_i32x4::<0b01_00_01_00>(a, b), _mm512_shuffle_i32x4::<0b11_10_11_10>(a, b));
    let (cd_low, cd_high) = (_mm512_shuffle_i32x4::<0b01_00_01_00>(c, d), _mm512_shuffle_i32x4::<0b11_10_11_10>(c, d));
    [
        _mm512_shuffle_i32x4::<0b10_00_10_00>(ab_low, cd_low),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(ab_low, cd_low),
        _mm512_shuffle_i32x4::<0b10_00_10_00>(ab_high, cd_high),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(ab_high, cd_high),
    ]
}

/// For panels.
struct Packed<'a>(Weights<'a>);

impl Unpack for Packed<'_> {
    const GROUP_STEPS: usize = TRITS;

    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
    unsafe fn unpack(&self, first_row: usize, groups: Range<usize>, panel: &mut Panel) {
        let (_, tile) = self.0.t5_tile(first_row / TILE_ROWS);
        let digits: [[__m512i; 2]; TRITS] = DIGITS.map(|digits| {
            let (halves, _) = digits.as_chunks::<64>();
            [load(&halves[0]), load(&halves[1])]
        });
        let two = _mm512_set1_epi8(2);
        for (group, steps) in tile[groups].iter().zip(panel.as_chunks_mut::<TRITS>().0) {
            for (l, bytes) in interleaved(group).into_iter().enumerate() {
                let negative = _mm512_movepi8_mask(bytes);
                for (step, digits) in steps.iter_mut().zip(digits) {
                    let code = _mm512_permutex2var_epi8(digits[0], bytes, digits[1]);
                    let code = _mm512_mask_sub_epi8(code, negative, two, code);
                    // SAFETY: a line is one aligned register.
                    unsafe { _mm512_store_si512(step[l].0.as_mut_ptr().cast(), code) };
                }
            }
        }
    }
}

/// The four lines of a group with the bytes of a row side by side: lane i of the l-th holds rows 16 i + 4 l .. + 4.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn interleaved(group: &[Line; LINES]) -> [__m512i; 4] {
    let [a, b, c, d] = array::from_fn(|j| load(&group[j].0));
    let (ab_low, ab_high) = (_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b));
    let (cd_low, cd_high) = (_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d));
    [
        _mm512_unpacklo_epi16(ab_low, cd_low),
        _mm512_unpackhi_epi16(ab_low, cd_low),
        _mm512_unpacklo_epi16(ab_high, cd_high),
        _mm512_unpackhi_epi16(ab_high, cd_high),
    ]
}
