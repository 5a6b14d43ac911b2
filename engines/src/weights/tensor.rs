//! A tensor of a file, handed out in the shape that a model asks for.

use super::dense::{Dense, transpose};
use super::{Source, TernaryForm, check_known};
use crate::{Error, Result};
use kernels::ternary::TernaryMatrix;

/// Floats with a name and a shape.
#[derive(Debug)]
pub(crate) struct Tensor {
    file: String,
    name: String,
    shape: Vec<usize>,
    /// All numbers, whatever its rows and columns.
    numbers: Dense,
    /// Whether the last two axes lie exchanged in memory.
    swapped: bool,
}

impl Tensor {
    /// A tensor whose numbers lie in the order of their indices. `shape` has as many elements as `numbers`.
    pub(crate) fn new(file: &str, name: &str, shape: Vec<usize>, numbers: Dense) -> Tensor {
        debug_assert_eq!(shape.iter().product::<usize>(), numbers.rows() * numbers.cols());
        Tensor { file: file.to_string(), name: name.to_string(), shape, numbers, swapped: false }
    }

    /// A tensor `[.., r, c]` whose numbers lie as those of `[.., c, r]`.
    pub(crate) fn swapped(file: &str, name: &str, shape: Vec<usize>, numbers: Dense) -> Tensor {
        // Beside an axis of 1 both orders are the same.
        let swapped = matches!(shape[..], [.., r, c] if r > 1 && c > 1);
        Tensor { swapped, ..Tensor::new(file, name, shape, numbers) }
    }

    fn wrong(&self, problem: impl ToString) -> Error {
        Error::tensor(&self.file, &self.name, problem)
    }

    fn expect(&self, fits: bool, expected: &[usize]) -> Result<()> {
        if fits {
            return Ok(());
        }
        Err(self.wrong(format!("expected shape {expected:?}, found {:?}", self.shape)))
    }

    /// Whether the shape is `[rows, cols]`, apart from axes of 1.
    fn is_matrix(&self, rows: usize, cols: usize) -> bool {
        let long = |axes: &[usize]| axes.iter().copied().filter(|axis| *axis != 1).collect::<Vec<_>>();
        // A bare vector is not a matrix of one row or column: the caller asked for two axes.
        self.shape.len() >= 2 && long(&self.shape) == long(&[rows, cols])
    }

    /// The numbers `[width]`; axes of 1 are passed over.
    pub(crate) fn vector(self, width: usize) -> Result<Vec<f32>> {
        let long: Vec<usize> = self.shape.iter().copied().filter(|axis| *axis != 1).collect();
        let fits = long == [width] || (long.is_empty() && width == 1);
        self.expect(fits, &[width])?;
        self.finite()?;
        // One long axis: its order is the same in both.
        Ok(self.numbers.to_f32())
    }

    /// All `len` numbers in the order of their indices.
    pub(crate) fn flat(self, len: usize) -> Result<Vec<f32>> {
        if self.numbers.rows() * self.numbers.cols() != len {
            return Err(self.wrong(format!("expected {len} numbers, found shape {:?}", self.shape)));
        }
        self.finite()?;
        let stored = self.numbers.to_f32();
        let [.., rows, cols] = self.shape[..] else { return Ok(stored) };
        if !self.swapped || rows * cols == 0 {
            return Ok(stored);
        }
        let mut numbers = vec![0.0; stored.len()];
        for (from, to) in stored.chunks_exact(rows * cols).zip(numbers.chunks_exact_mut(rows * cols)) {
            transpose(from, cols, rows, to);
        }
        Ok(numbers)
    }

    /// The matrix `[rows, cols]`; axes of 1 beyond the two are passed over.
    pub(crate) fn dense(self, rows: usize, cols: usize) -> Result<Dense> {
        self.expect(self.is_matrix(rows, cols), &[rows, cols])?;
        if !self.swapped {
            return Ok(self.numbers.reshaped(rows, cols));
        }
        Ok(self.numbers.reshaped(cols, rows).transposed())
    }

    /// The matrix `[rows, cols]` of a tensor of the shape `[cols, rows]`.
    pub(crate) fn dense_transposed(self, rows: usize, cols: usize) -> Result<Dense> {
        self.expect(self.is_matrix(cols, rows), &[cols, rows])?;
        if self.swapped {
            return Ok(self.numbers.reshaped(rows, cols));
        }
        Ok(self.numbers.reshaped(cols, rows).transposed())
    }

    /// The first number.
    pub(crate) fn first(&self) -> f32 {
        let mut row = vec![0.0; self.numbers.cols()];
        self.numbers.row(0, &mut row);
        row[0]
    }

    fn finite(&self) -> Result<()> {
        match self.numbers.not_finite(0..self.numbers.rows()) {
            None => Ok(()),
            Some((r, c, value)) => {
                let at = r * self.numbers.cols() + c;
                Err(self.wrong(format!("number {at} is {value}")))
            }
        }
    }
}

/// A file of tensors of floats: all that is needed to be a [`Source`].
pub(crate) trait Tensors: Sync {
    /// What error messages call it.
    fn file(&self) -> &str;

    fn tensor(&self, name: &str) -> Result<Tensor>;

    fn shape_of(&self, name: &str) -> Option<&[usize]>;

    /// The names of all tensors, in any order.
    fn stored(&self) -> impl Iterator<Item = &String>;
}

impl<T: Tensors> Source for T {
    fn vector(&self, name: &str, width: usize) -> Result<Vec<f32>> {
        self.tensor(name)?.vector(width)
    }

    fn flat(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        self.tensor(name)?.flat(len)
    }

    fn dense(&self, name: &str, rows: usize, cols: usize) -> Result<Dense> {
        self.tensor(name)?.dense(rows, cols)
    }

    fn dense_transposed(&self, name: &str, rows: usize, cols: usize) -> Result<Dense> {
        self.tensor(name)?.dense_transposed(rows, cols)
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.shape_of(name).map(<[usize]>::to_vec)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.stored().cloned().collect();
        names.sort_unstable();
        names
    }

    fn ternary(&self, name: &str, _: usize, _: usize, _: TernaryForm) -> Result<(TernaryMatrix, f64)> {
        Err(Error::tensor(self.file(), name, "ternary weights are read from safetensors only"))
    }

    fn place(&self) -> String {
        self.file().to_string()
    }

    fn check_names(&self, known: &dyn Fn(&str) -> bool) -> Result<()> {
        check_known(self.file(), self.stored(), known)
    }
}

#[cfg(test)]
mod tests {
    use super::super::dense::Format;
    use super::super::map::Map;
    use super::*;

    fn numbers(count: usize) -> Dense {
        let numbers: Vec<f32> = (0..count).map(|i| i as f32).collect();
        Dense::mapped(&Map::copy(bytemuck::cast_slice(&numbers)), 0..count * 4, Format::F32, 1, count)
    }

    fn plain(shape: &[usize]) -> Tensor {
        Tensor::new("file", "name", shape.to_vec(), numbers(shape.iter().product()))
    }

    #[test]
    fn axes_of_one_are_passed_over() {
        for shape in [&[6][..], &[1, 1, 6], &[6, 1], &[1, 6, 1, 1]] {
            assert_eq!(plain(shape).vector(6).unwrap().len(), 6);
        }
        assert_eq!(plain(&[]).vector(1).unwrap(), [0.0]);
        for shape in [&[2, 3][..], &[5], &[2, 1, 3]] {
            let error = plain(shape).vector(6).unwrap_err().to_string();
            assert_eq!(error, format!("file: tensor name: expected shape [6], found {shape:?}"));
        }
        for shape in [&[2, 3][..], &[2, 1, 3], &[1, 2, 3]] {
            assert_eq!(plain(shape).dense(2, 3).unwrap().to_f32(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
            assert!(plain(shape).dense(3, 2).is_err());
        }
        assert!(plain(&[6]).dense(1, 6).is_err() && plain(&[1, 6]).dense(1, 6).is_ok());
        assert_eq!(plain(&[2, 3]).flat(6).unwrap().len(), 6);
        assert!(plain(&[2, 3]).flat(7).is_err());
    }

    #[test]
    fn exchanged_axes_come_out_right_either_way() {
        // [2, 3], stored as [3, 2].
        let swapped = || Tensor::swapped("file", "name", vec![2, 3], numbers(6));
        assert_eq!(swapped().dense(2, 3).unwrap().to_f32(), [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
        assert_eq!(swapped().dense_transposed(3, 2).unwrap().to_f32(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(swapped().flat(6).unwrap(), [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
        assert!(swapped().dense_transposed(2, 3).is_err());
        assert_eq!(plain(&[2, 3]).dense_transposed(3, 2).unwrap().to_f32(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        let planes = Tensor::swapped("file", "name", vec![2, 1, 3], numbers(6));
        assert_eq!(planes.flat(6).unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let planes = Tensor::swapped("file", "name", vec![2, 2, 2], numbers(8));
        assert_eq!(planes.flat(8).unwrap(), [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
    }
}
