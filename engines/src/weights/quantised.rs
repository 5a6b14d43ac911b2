//! Ternary weights from their published forms.
//!
//! Source: BitNet b1.58 (arXiv 2402.17764), equations 1 to 3, and Hugging Face's `WeightQuant` and `pack_weights`.

use super::dense::{Dense, Values, with_slice};
use kernels::Element;
use kernels::ternary::{Layout, TernaryMatrix};

/// The smallest mean that is divided by.
const EPSILON: f32 = 1e-5;

/// 1.5 · 2^23: adding and subtracting it rounds small numbers to the nearest integer, ties to even.
const ROUND: f32 = 12_582_912.0;

/// Quantises master weights by absmean: the matrix t and the factor 1 / s, with W~ = t / s. The numbers are finite.
pub(crate) fn absmean(weights: &Dense) -> (TernaryMatrix, f64) {
    let (rows, cols) = (weights.rows(), weights.cols());
    with_slice!(weights.values(), w => {
        let scale = 1.0 / mean_magnitude(w, cols).max(EPSILON);
        let quantise = |w: f32| {
            // Clamping first is the same (the bounds are integers) and keeps the sum in the range that rounds right.
            let clamped = (w * scale).clamp(-1.0, 1.0);
            ((clamped + ROUND) - ROUND) as i8
        };
        let matrix = TernaryMatrix::from_fn(rows, cols, Layout::I2, |r, c| quantise(w[r * cols + c].widen()));
        (matrix, 1.0 / f64::from(scale))
    })
}

/// mean|W|, summed in f64 (row by row, so that the order is fixed) and rounded to f32.
fn mean_magnitude<E: Element>(weights: &[E], cols: usize) -> f32 {
    let rows = weights.chunks_exact(cols).map(|row| row.iter().map(|w| f64::from(w.widen().abs())).sum::<f64>());
    (rows.sum::<f64>() / weights.len() as f64) as f32
}

/// Unpacks Hugging Face's form: `packed` `[rows / 4, cols]`; row i · rows/4 + j is in byte (j, c), bits 2i and 2i + 1, as
/// t + 1. `rows` is a multiple of 4.
///
/// # Errors
/// The row and column (of the packed matrix) of a byte that holds the code 3.
pub(crate) fn unpack(packed: &[u8], rows: usize, cols: usize) -> Result<TernaryMatrix, (usize, usize)> {
    // Code 3 has both of its bits set.
    if let Some(at) = packed.iter().position(|byte| byte & byte >> 1 & 0x55 != 0) {
        return Err((at / cols, at % cols));
    }
    let quarter = rows / 4;
    let code = |r: usize, c: usize| packed[r % quarter * cols + c] >> (2 * (r / quarter)) & 3;
    Ok(TernaryMatrix::from_fn(rows, cols, Layout::I2, |r, c| code(r, c) as i8 - 1))
}

#[cfg(test)]
mod tests {
    use super::super::dense::Format;
    use super::super::map::Map;
    use super::*;

    fn master(weights: &[f32], rows: usize) -> (TernaryMatrix, f64) {
        let map = Map::copy(bytemuck::cast_slice(weights));
        absmean(&Dense::mapped(&map, 0..weights.len() * 4, Format::F32, rows, weights.len() / rows))
    }

    #[test]
    fn absmean_rounds_ties_to_even_and_clamps() {
        // mean = 2, so halves of it are ties: 0.5 goes to 0, 1.5 would go to 2 and is clamped.
        let (matrix, factor) = master(&[1.0, -1.0, 3.0, -3.0, 4.0, 0.0, 2.0, -2.0], 2);
        assert_eq!(factor, 2.0);
        let row = |r| (0..4).map(|c| matrix.get(r, c)).collect::<Vec<_>>();
        assert_eq!((row(0), row(1)), (vec![0, 0, 1, -1], vec![1, 0, 1, -1]));
    }

    #[test]
    fn dead_weights_become_zeros() {
        let (matrix, factor) = master(&[1e-34, -1e-34, 0.0, 0.0], 1);
        assert!((0..4).all(|c| matrix.get(0, c) == 0));
        assert!((factor - 1e-5).abs() < 1e-10);
    }

    #[test]
    fn every_code_of_every_row_block_is_found() {
        let (rows, cols) = (8, 3);
        let weight = |r: usize, c: usize| ((r * 7 + c * 5) % 3) as i8 - 1;
        let mut packed = vec![0u8; 2 * cols];
        for r in 0..rows {
            for c in 0..cols {
                packed[r % 2 * cols + c] |= ((weight(r, c) + 1) as u8) << (2 * (r / 2));
            }
        }
        let matrix = unpack(&packed, rows, cols).unwrap();
        assert!((0..rows).all(|r| (0..cols).all(|c| matrix.get(r, c) == weight(r, c))));
        packed[4] |= 0b0011_0000;
        assert_eq!(unpack(&packed, rows, cols).unwrap_err(), (1, 1));
    }
}
