//! A packed ternary matrix and its layouts.

use crate::{Line, Lines, Rng};
use std::ops::Range;

/// Rows that a tile holds side by side: one 32-bit lane of a 512-bit register each.
pub const TILE_ROWS: usize = 16;

/// How the weights are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Layout {
    /// 2.0 bits a weight. Tiles of 16 rows; a tile is a run of cache lines, one for each group of 16 columns:
    ///
    /// ```text
    /// line g of a tile, byte 4 r + j  (r = 0..16 row of the tile, j = 0..4)
    ///
    ///   bits 7 6 | 5 4 | 3 2 | 1 0          code = weight + 1, so 0, 1 or 2 (3 is never written; it would mean 2)
    ///   column    16 g + 12 + j
    ///                   16 g + 8 + j
    ///                         16 g + 4 + j
    ///                               16 g + j
    /// ```
    ///
    /// So plane p of a line (bits 2p, 2p + 1) holds columns 16 g + 4 p .. + 4 of sixteen rows, in just the order that one
    /// `vpdpbusd` wants: four columns to a 32-bit lane, a row a lane, and no horizontal sum at the end. Rows beyond the
    /// last and columns beyond the last hold code 1 (weight 0).
    I2,
}

impl Layout {
    /// Bits that one weight takes.
    pub fn bits(self) -> f64 {
        match self {
            Layout::I2 => 2.0,
        }
    }
}

/// A matrix of ternary weights, `R × C`, packed. The same bytes on every machine.
#[derive(Clone, Debug)]
pub struct TernaryMatrix {
    rows: usize,
    cols: usize,
    layout: Layout,
    lines: Lines,
}

/// Columns to a line of [`Layout::I2`].
const I2_COLS: usize = 16;

impl TernaryMatrix {
    /// Packs `weights` `[rows, cols]`, each -1, 0 or 1.
    ///
    /// # Panics
    /// If the length is not `rows * cols` or a weight is outside -1..=1: a caller's error.
    pub fn pack(weights: &[i8], rows: usize, cols: usize, layout: Layout) -> TernaryMatrix {
        assert_eq!(weights.len(), rows * cols, "weights for a {rows}×{cols} matrix");
        TernaryMatrix::from_fn(rows, cols, layout, |r, c| weights[r * cols + c])
    }

    /// Packs the matrix whose element (r, c) is `weight(r, c)`, each -1, 0 or 1.
    ///
    /// # Panics
    /// If a weight is outside -1..=1.
    pub fn from_fn(rows: usize, cols: usize, layout: Layout, weight: impl Fn(usize, usize) -> i8) -> TernaryMatrix {
        let mut matrix = TernaryMatrix::zeros(rows, cols, layout);
        let groups = matrix.groups();
        for r in 0..rows {
            for c in 0..cols {
                let w = weight(r, c);
                assert!((-1..=1).contains(&w), "weight {w} at row {r}, column {c} is not ternary");
                let line = (r / TILE_ROWS) * groups + c / I2_COLS;
                let byte = &mut matrix.lines[line].0[r % TILE_ROWS * 4 + c % 4];
                let shift = c % I2_COLS / 4 * 2;
                *byte = *byte & !(3 << shift) | ((w + 1) as u8) << shift;
            }
        }
        matrix
    }

    /// The zero matrix.
    pub fn zeros(rows: usize, cols: usize, layout: Layout) -> TernaryMatrix {
        let count = rows.div_ceil(TILE_ROWS) * cols.div_ceil(I2_COLS);
        let mut lines = Lines::zeroed(count);
        lines.bytes_mut().fill(0b01_01_01_01);
        TernaryMatrix { rows, cols, layout, lines }
    }

    /// Random weights with P(-1) = P(1) = 5/16 and P(0) = 6/16, near the share of zeros in published BitNet models,
    /// drawn straight into the packed form.
    pub fn random(rows: usize, cols: usize, layout: Layout, rng: &mut Rng) -> TernaryMatrix {
        let mut matrix = TernaryMatrix::zeros(rows, cols, layout);
        let groups = matrix.groups();
        // A byte of four codes for each 16-bit draw would cost a table of 64 KiB; two weights for each byte drawn
        // need 256 entries.
        let pair: [u8; 256] = std::array::from_fn(|byte| {
            let code = |nibble: usize| {
                if nibble < 5 {
                    0
                } else if nibble < 11 {
                    1u8
                } else {
                    2
                }
            };
            code(byte & 15) | code(byte >> 4) << 2
        });
        for line in matrix.lines.iter_mut() {
            for chunk in line.0.chunks_exact_mut(4) {
                let draws = rng.next_u64().to_le_bytes();
                for (byte, draw) in chunk.iter_mut().zip(draws.chunks_exact(2)) {
                    *byte = pair[usize::from(draw[0])] | pair[usize::from(draw[1])] << 4;
                }
            }
        }
        // Padding keeps weight 0.
        let padding = |r: usize, c: usize| r >= rows || c >= cols;
        for tile in 0..rows.div_ceil(TILE_ROWS) {
            for group in 0..groups {
                if (tile + 1) * TILE_ROWS <= rows && (group + 1) * I2_COLS <= cols {
                    continue;
                }
                let line = &mut matrix.lines[tile * groups + group].0;
                for r in 0..TILE_ROWS {
                    for c in 0..I2_COLS {
                        if padding(tile * TILE_ROWS + r, group * I2_COLS + c) {
                            let (byte, shift) = (&mut line[r * 4 + c % 4], c / 4 * 2);
                            *byte = *byte & !(3 << shift) | 1 << shift;
                        }
                    }
                }
            }
        }
        matrix
    }

    /// Rows, R.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns, C.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The layout.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Bytes that the packed weights take.
    pub fn bytes(&self) -> usize {
        self.lines.bytes().len()
    }

    /// Lines to a tile.
    fn groups(&self) -> usize {
        self.cols.div_ceil(I2_COLS)
    }

    /// Element (r, c): -1, 0 or 1. Slow: for tests and references.
    ///
    /// # Panics
    /// Outside the matrix.
    pub fn get(&self, r: usize, c: usize) -> i8 {
        assert!(r < self.rows && c < self.cols, "({r}, {c}) in a {}×{} matrix", self.rows, self.cols);
        let line = &self.lines[(r / TILE_ROWS) * self.groups() + c / I2_COLS].0;
        let code = line[r % TILE_ROWS * 4 + c % 4] >> (c % I2_COLS / 4 * 2) & 3;
        code as i8 - 1
    }

    /// All rows.
    pub fn view(&self) -> TernaryRows<'_> {
        self.row_range(0..self.rows)
    }

    /// Some rows, for one thread: starts at a multiple of [`TILE_ROWS`]; ends at one too or at the last row.
    ///
    /// # Panics
    /// If the range does not lie so.
    pub fn row_range(&self, rows: Range<usize>) -> TernaryRows<'_> {
        assert!(rows.start <= rows.end && rows.end <= self.rows, "rows {rows:?} of {}", self.rows);
        assert!(rows.start.is_multiple_of(TILE_ROWS), "row range starts inside a tile: {rows:?}");
        assert!(rows.end.is_multiple_of(TILE_ROWS) || rows.end == self.rows, "row range ends inside a tile: {rows:?}");
        let groups = self.groups();
        let lines = &self.lines[rows.start / TILE_ROWS * groups..rows.end.div_ceil(TILE_ROWS) * groups];
        TernaryRows { rows: rows.len(), cols: self.cols, groups, layout: self.layout, lines }
    }
}

/// A run of rows of a [`TernaryMatrix`].
#[derive(Clone, Copy, Debug)]
pub struct TernaryRows<'a> {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Lines to a tile.
    pub(crate) groups: usize,
    pub(crate) layout: Layout,
    /// `[tiles, groups]`.
    pub(crate) lines: &'a [Line],
}

impl TernaryRows<'_> {
    /// Rows in the run.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns, C.
    pub fn cols(&self) -> usize {
        self.cols
    }
}
