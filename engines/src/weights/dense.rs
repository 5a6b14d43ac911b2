//! Matrices of stored floats: the file's bytes where they are aligned, else a copy.

use super::map::Map;
use half::{bf16, f16};
use kernels::memory::Purpose;
use kernels::{Element, Kernels, Lines};
use std::ops::Range;
use std::sync::Arc;

/// A matrix `R × C` of f32, bf16 or f16.
#[derive(Clone, Debug)]
pub(crate) struct Dense {
    rows: usize,
    cols: usize,
    values: Values,
}

/// The numbers, by format.
#[derive(Clone, Debug)]
pub(crate) enum Values {
    F32(Slice<f32>),
    Bf16(Slice<bf16>),
    F16(Slice<f16>),
}

/// The formats that a dense matrix can be stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    F32,
    Bf16,
    F16,
}

/// Runs a body with `$slice` bound to the slice of numbers, whatever their format.
macro_rules! with_slice {
    ($values:expr, $slice:ident => $body:expr) => {
        match $values {
            Values::F32(numbers) => {
                let $slice = numbers.get();
                $body
            }
            Values::Bf16(numbers) => {
                let $slice = numbers.get();
                $body
            }
            Values::F16(numbers) => {
                let $slice = numbers.get();
                $body
            }
        }
    };
}
pub(crate) use with_slice;

/// Numbers of one format.
#[derive(Clone, Debug)]
pub(crate) enum Slice<E> {
    /// In a file's bytes, at a range that is known to be aligned.
    Mapped(Arc<Map>, Range<usize>),
    /// The first so many numbers of an own allocation.
    Owned(Arc<Lines>, usize, std::marker::PhantomData<E>),
}

impl<E: Element + bytemuck::Pod> Slice<E> {
    /// The numbers in `range` of `map`, whose length is a multiple of the number's size.
    fn new(map: &Arc<Map>, range: Range<usize>) -> Slice<E> {
        let bytes = &map[range.clone()];
        if bytemuck::try_cast_slice::<u8, E>(bytes).is_ok() {
            return Slice::Mapped(map.clone(), range);
        }
        let mut lines = Lines::zeroed_for(Purpose::Weights, bytes.len().div_ceil(64));
        lines.spread_over_nodes();
        lines.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        Slice::Owned(Arc::new(lines), bytes.len() / size_of::<E>(), std::marker::PhantomData)
    }

    pub(crate) fn get(&self) -> &[E] {
        match self {
            Slice::Mapped(map, range) => bytemuck::cast_slice(&map[range.clone()]),
            Slice::Owned(lines, count, _) => &bytemuck::cast_slice(lines.bytes())[..*count],
        }
    }

    /// A copy of the matrix `[rows, cols]` as `[cols, rows]`.
    fn transposed(&self, rows: usize, cols: usize) -> Slice<E> {
        let count = rows * cols;
        let mut lines = Lines::zeroed_for(Purpose::Weights, (count * size_of::<E>()).div_ceil(64));
        lines.spread_over_nodes();
        transpose(self.get(), rows, cols, &mut bytemuck::cast_slice_mut(lines.bytes_mut())[..count]);
        Slice::Owned(Arc::new(lines), count, std::marker::PhantomData)
    }
}

/// `from` `[rows, cols]` into `to` `[cols, rows]`.
pub(crate) fn transpose<E: Copy>(from: &[E], rows: usize, cols: usize, to: &mut [E]) {
    // Tiles, so that both sides stay within a few cache lines.
    const TILE: usize = 16;
    for top in (0..rows).step_by(TILE) {
        for left in (0..cols).step_by(TILE) {
            for r in top..rows.min(top + TILE) {
                for c in left..cols.min(left + TILE) {
                    to[c * rows + r] = from[r * cols + c];
                }
            }
        }
    }
}

impl Dense {
    /// The matrix `[rows, cols]` in a range of a map that holds exactly so many bytes.
    pub(crate) fn mapped(map: &Arc<Map>, range: Range<usize>, format: Format, rows: usize, cols: usize) -> Dense {
        debug_assert_eq!(range.len(), rows * cols * format.bytes());
        let values = match format {
            Format::F32 => Values::F32(Slice::new(map, range)),
            Format::Bf16 => Values::Bf16(Slice::new(map, range)),
            Format::F16 => Values::F16(Slice::new(map, range)),
        };
        Dense { rows, cols, values }
    }

    /// A matrix of bf16 in an own allocation.
    pub(crate) fn owned_bf16(lines: Lines, rows: usize, cols: usize) -> Dense {
        debug_assert!(lines.bytes().len() >= 2 * rows * cols);
        let values = Values::Bf16(Slice::Owned(Arc::new(lines), rows * cols, std::marker::PhantomData));
        Dense { rows, cols, values }
    }

    /// A matrix of f32 in an own allocation.
    pub(crate) fn owned_f32(lines: Lines, rows: usize, cols: usize) -> Dense {
        debug_assert!(lines.bytes().len() >= 4 * rows * cols);
        let values = Values::F32(Slice::Owned(Arc::new(lines), rows * cols, std::marker::PhantomData));
        Dense { rows, cols, values }
    }

    /// The same numbers in the same order as `[rows, cols]`.
    pub(crate) fn reshaped(self, rows: usize, cols: usize) -> Dense {
        debug_assert_eq!(rows * cols, self.rows * self.cols);
        Dense { rows, cols, ..self }
    }

    /// A copy, rows and columns exchanged.
    pub(crate) fn transposed(&self) -> Dense {
        let (rows, cols) = (self.cols, self.rows);
        let values = match &self.values {
            Values::F32(numbers) => Values::F32(numbers.transposed(self.rows, self.cols)),
            Values::Bf16(numbers) => Values::Bf16(numbers.transposed(self.rows, self.cols)),
            Values::F16(numbers) => Values::F16(numbers.transposed(self.rows, self.cols)),
        };
        Dense { rows, cols, values }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    pub(crate) fn values(&self) -> &Values {
        &self.values
    }

    pub(crate) fn format(&self) -> Format {
        match self.values {
            Values::F32(_) => Format::F32,
            Values::Bf16(_) => Format::Bf16,
            Values::F16(_) => Format::F16,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.rows * self.cols * self.format().bytes()
    }

    /// All numbers widened.
    pub(crate) fn to_f32(&self) -> Vec<f32> {
        with_slice!(&self.values, w => w.iter().map(|w| w.widen()).collect())
    }

    /// The numbers of row r widened into `out` `[C]`.
    pub(crate) fn row(&self, r: usize, out: &mut [f32]) {
        let range = r * self.cols..(r + 1) * self.cols;
        with_slice!(&self.values, w => out.iter_mut().zip(&w[range]).for_each(|(out, w)| *out = w.widen()));
    }

    /// `out = w[rows] · x^T`, `[rows, T]`, for x `[T, C]`.
    pub(crate) fn matmul(&self, kernels: &Kernels, rows: Range<usize>, x: &[f32], out: &mut [f32]) {
        let range = rows.start * self.cols..rows.end * self.cols;
        with_slice!(&self.values, w => kernels.dense_matmul(&w[range], x, self.cols, out));
    }

    /// Rows `ids` into `out` `[T, C]`.
    pub(crate) fn embed(&self, kernels: &Kernels, ids: &[u32], out: &mut [f32]) {
        with_slice!(&self.values, w => kernels.embed(w, ids, self.cols, out));
    }

    /// The first number of rows `rows` that is NaN or infinite: its row and column.
    pub(crate) fn not_finite(&self, rows: Range<usize>) -> Option<(usize, usize, f32)> {
        let range = rows.start * self.cols..rows.end * self.cols;
        let found = match &self.values {
            Values::F32(w) => find(&w.get()[range.clone()], |w| w.to_bits() & 0x7F80_0000 == 0x7F80_0000),
            Values::Bf16(w) => find(&w.get()[range.clone()], |w| w.to_bits() & 0x7F80 == 0x7F80),
            Values::F16(w) => find(&w.get()[range.clone()], |w| w.to_bits() & 0x7C00 == 0x7C00),
        };
        let at = range.start + found?;
        let value = with_slice!(&self.values, w => w[at].widen());
        Some((at / self.cols, at % self.cols, value))
    }
}

/// The first element that is `bad`. Looks at whole chunks first, which compiles to vector code.
fn find<E: Copy>(numbers: &[E], bad: impl Fn(E) -> bool) -> Option<usize> {
    const CHUNK: usize = 1024;
    let chunk = numbers.chunks(CHUNK).position(|chunk| chunk.iter().fold(false, |any, x| any | bad(*x)))?;
    let within = numbers[chunk * CHUNK..].iter().position(|x| bad(*x))?;
    Some(chunk * CHUNK + within)
}

impl Format {
    /// Bytes to a number.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Format::F32 => 4,
            Format::Bf16 | Format::F16 => 2,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Format::F32 => "f32",
            Format::Bf16 => "bf16",
            Format::F16 => "f16",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misaligned_bytes_give_the_same_numbers() {
        let numbers = [1.0f32, -2.5, 3.25, 0.0, 5.0, 6.0];
        let mut bytes = vec![0u8; 3];
        bytes.extend(bytemuck::cast_slice::<f32, u8>(&numbers));
        // At one of two starts the data is misaligned, wherever the allocation lies.
        for shift in [3, 2] {
            let map = Map::copy(&bytes[3 - shift..]);
            let dense = Dense::mapped(&map, shift..shift + 24, Format::F32, 2, 3);
            assert_eq!(dense.to_f32(), numbers);
            assert_eq!(dense.not_finite(0..2), None);
        }
    }

    #[test]
    fn transposing_exchanges_rows_and_columns() {
        let (rows, cols) = (19, 37);
        let numbers: Vec<bf16> = (0..rows * cols).map(|i| bf16::from_f32(i as f32)).collect();
        let map = Map::copy(bytemuck::cast_slice(&numbers));
        let dense = Dense::mapped(&map, 0..numbers.len() * 2, Format::Bf16, rows, cols);
        let turned = dense.transposed();
        assert_eq!((turned.rows(), turned.cols(), turned.format()), (cols, rows, Format::Bf16));
        let (from, to) = (dense.to_f32(), turned.to_f32());
        assert!((0..rows).all(|r| (0..cols).all(|c| from[r * cols + c] == to[c * rows + r])));
        assert_eq!(turned.transposed().to_f32(), from);
    }

    #[test]
    fn the_first_bad_number_is_found_at_its_place() {
        let mut numbers = vec![1.0f32; 3 * 1500];
        numbers[1500 + 7] = f32::NAN;
        numbers[3000] = f32::INFINITY;
        let map = Map::copy(bytemuck::cast_slice(&numbers));
        let dense = Dense::mapped(&map, 0..numbers.len() * 4, Format::F32, 3, 1500);
        assert!(matches!(dense.not_finite(0..3), Some((1, 7, x)) if x.is_nan()));
        assert_eq!(dense.not_finite(2..3), Some((2, 0, f32::INFINITY)));
        assert_eq!(dense.not_finite(0..1), None);
    }
}
