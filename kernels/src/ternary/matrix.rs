//! A packed ternary matrix and its layouts.

use super::format::Format;
use super::{i2, i2_rows, t5, tl2, tmac};
use crate::memory::Purpose;
use crate::{Line, Lines, Rng};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// How the weights are packed. The drawing is in the layout's module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Layout {
    /// Two bits a weight, multiplied as they are: [`crate::ternary::i2`].
    I2,
    /// Five trits a byte, 1.6 bits a weight: [`crate::ternary::t5`].
    T5,
    /// Two bits a weight, as two planes whose nibbles index tables: [`crate::ternary::tmac`].
    Tmac,
    /// 1.67 bits a weight, three as an index of tables and a sign: [`crate::ternary::tl2`].
    Tl2,
    /// Two bits a weight, row after row, for comparison: [`crate::ternary::i2_rows`].
    I2Rows,
}

impl Layout {
    /// Every layout.
    pub const ALL: [Layout; 5] = [Layout::I2, Layout::T5, Layout::Tmac, Layout::Tl2, Layout::I2Rows];

    pub(crate) const fn format(self) -> &'static Format {
        match self {
            Layout::I2 => &i2::FORMAT,
            Layout::T5 => &t5::FORMAT,
            Layout::Tmac => &tmac::FORMAT,
            Layout::Tl2 => &tl2::FORMAT,
            Layout::I2Rows => &i2_rows::FORMAT,
        }
    }

    /// Its name: `i2`.
    pub const fn name(self) -> &'static str {
        self.format().name
    }

    /// Bits that one weight takes, padding aside.
    pub fn bits(self) -> f64 {
        self.format().bits()
    }

    /// Rows to a tile: runs of rows start and end at multiples of it ([`TernaryMatrix::row_range`]).
    pub const fn tile_rows(self) -> usize {
        self.format().tile_rows
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(text: &str) -> Result<Layout, String> {
        Layout::ALL.into_iter().find(|layout| layout.name() == text).ok_or_else(|| {
            let names = Layout::ALL.map(Layout::name).join(", ");
            format!("no ternary layout is called '{text}': expected one of {names}")
        })
    }
}

/// A matrix of ternary weights, `R × C`, packed. The same bytes on every machine. Rows and columns beyond the last ones of
/// a layout's tiles and groups hold weight 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TernaryMatrix {
    rows: usize,
    cols: usize,
    layout: Layout,
    lines: Lines,
}

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
        TernaryMatrix::from_tiles(rows, cols, layout, |tile, out| {
            for (r, row) in tile.zip(out.chunks_exact_mut(cols.max(1))) {
                for (c, out) in row.iter_mut().enumerate() {
                    *out = weight(r, c);
                    assert!((-1..=1).contains(out), "weight {out} at row {r}, column {c} is not ternary");
                }
            }
        })
    }

    /// Packs the matrix whose element (r, c) is `weight(r, c)`, each from -1 to 2: what two bits hold, for the two-bit
    /// layouts, whose products read code 3 as weight 2.
    pub(crate) fn of_crumbs(
        rows: usize,
        cols: usize,
        layout: Layout,
        weight: impl Fn(usize, usize) -> i8,
    ) -> TernaryMatrix {
        assert!(matches!(layout, Layout::I2 | Layout::I2Rows), "{layout} holds trits alone");
        TernaryMatrix::from_tiles(rows, cols, layout, |tile, out| {
            for (r, row) in tile.zip(out.chunks_exact_mut(cols.max(1))) {
                for (c, out) in row.iter_mut().enumerate() {
                    *out = weight(r, c);
                    assert!((-1..=2).contains(out), "weight {out} at row {r}, column {c} has no code");
                }
            }
        })
    }

    /// Packs tile by tile: `fill` writes the rows that it is told, `[rows, cols]`.
    fn from_tiles(
        rows: usize,
        cols: usize,
        layout: Layout,
        mut fill: impl FnMut(Range<usize>, &mut [i8]),
    ) -> TernaryMatrix {
        let format = layout.format();
        let count = rows.div_ceil(format.tile_rows) * format.tile_lines(cols);
        let mut lines = Lines::zeroed_for(Purpose::Weights, count);
        // `fill` may leave what it finds: zeros.
        let mut tile = vec![0; format.tile_rows.min(rows) * cols];
        let mut block = vec![0; format.block()];
        for (start, lines) in
            (0..rows).step_by(format.tile_rows).zip(lines.chunks_exact_mut(format.tile_lines(cols).max(1)))
        {
            let rows = start..(start + format.tile_rows).min(rows);
            let tile = &mut tile[..rows.len() * cols];
            fill(rows, tile);
            let (header, lines) = lines.split_at_mut(format.header_lines());
            for (g, lines) in lines.chunks_exact_mut(format.group_lines).enumerate() {
                let columns = g * format.group_columns..((g + 1) * format.group_columns).min(cols);
                block.fill(0);
                for (row, out) in tile.chunks_exact(cols).zip(block.chunks_exact_mut(format.group_columns)) {
                    out[..columns.len()].copy_from_slice(&row[columns.clone()]);
                }
                (format.pack)(&block, lines);
            }
            if let Some(form) = &format.header {
                (form.fill)(lines, header);
            }
        }
        TernaryMatrix { rows, cols, layout, lines }
    }

    /// The zero matrix.
    pub fn zeros(rows: usize, cols: usize, layout: Layout) -> TernaryMatrix {
        TernaryMatrix::from_tiles(rows, cols, layout, |_, _| {})
    }

    /// Random weights with P(-1) = P(1) = 5/16 and P(0) = 6/16, near the share of zeros in published BitNet models: a
    /// function of shape and seed, whatever the layout.
    pub fn random(rows: usize, cols: usize, layout: Layout, rng: &mut Rng) -> TernaryMatrix {
        let lines = i2::random(rows, cols, rng);
        let matrix = TernaryMatrix { rows, cols, layout: Layout::I2, lines };
        if layout == Layout::I2 { matrix } else { matrix.to_layout(layout) }
    }

    /// The same weights in another layout.
    pub fn to_layout(&self, layout: Layout) -> TernaryMatrix {
        TernaryMatrix::from_tiles(self.rows, self.cols, layout, |rows, out| self.unpack(rows, out))
    }

    /// Writes some rows to `out` `[rows, cols]`.
    pub(crate) fn unpack(&self, rows: Range<usize>, out: &mut [i8]) {
        let format = self.layout.format();
        let mut block = vec![0; format.block()];
        let tiles = rows.start / format.tile_rows..rows.end.div_ceil(format.tile_rows);
        for tile in tiles {
            let first = tile * format.tile_rows;
            let within = rows.start.max(first)..rows.end.min(first + format.tile_rows);
            for (g, group) in self.tile(tile).chunks_exact(format.group_lines).enumerate() {
                (format.unpack)(group, &mut block);
                let columns = g * format.group_columns..((g + 1) * format.group_columns).min(self.cols);
                for r in within.clone() {
                    let from = &block[(r - first) * format.group_columns..][..columns.len()];
                    out[(r - rows.start) * self.cols..][columns.clone()].copy_from_slice(from);
                }
            }
        }
    }

    /// The groups of a tile.
    fn tile(&self, tile: usize) -> &[Line] {
        let format = self.layout.format();
        let length = format.tile_lines(self.cols);
        &self.lines[tile * length..][format.header_lines()..length]
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

    /// As [`Lines::spread_over_nodes`].
    pub fn spread_over_nodes(&mut self) {
        self.lines.spread_over_nodes();
    }

    /// Element (r, c): -1, 0 or 1. Slow: for tests and references.
    ///
    /// # Panics
    /// Outside the matrix.
    pub fn get(&self, r: usize, c: usize) -> i8 {
        assert!(r < self.rows && c < self.cols, "({r}, {c}) in a {}×{} matrix", self.rows, self.cols);
        let format = self.layout.format();
        let group = &self.tile(r / format.tile_rows)[c / format.group_columns * format.group_lines..];
        let mut block = vec![0; format.block()];
        (format.unpack)(&group[..format.group_lines], &mut block);
        block[r % format.tile_rows * format.group_columns + c % format.group_columns]
    }

    /// All rows.
    pub fn view(&self) -> TernaryRows<'_> {
        self.row_range(0..self.rows)
    }

    /// Some rows, for one thread: starts at a multiple of [`Layout::tile_rows`]; ends at one too or at the last row.
    ///
    /// # Panics
    /// If the range does not lie so.
    pub fn row_range(&self, rows: Range<usize>) -> TernaryRows<'_> {
        let format = self.layout.format();
        let tile = format.tile_rows;
        assert!(rows.start <= rows.end && rows.end <= self.rows, "rows {rows:?} of {}", self.rows);
        assert!(rows.start.is_multiple_of(tile), "row range starts inside a tile: {rows:?}");
        assert!(rows.end.is_multiple_of(tile) || rows.end == self.rows, "row range ends inside a tile: {rows:?}");
        let length = format.tile_lines(self.cols);
        let lines = &self.lines[rows.start / tile * length..rows.end.div_ceil(tile) * length];
        let groups = self.cols.div_ceil(format.group_columns);
        TernaryRows {
            cols: self.cols,
            layout: self.layout,
            weights: super::Weights { rows: rows.len(), groups, lines },
        }
    }
}

/// A run of rows of a [`TernaryMatrix`].
#[derive(Clone, Copy, Debug)]
pub struct TernaryRows<'a> {
    pub(super) cols: usize,
    pub(super) layout: Layout,
    pub(super) weights: super::Weights<'a>,
}

impl TernaryRows<'_> {
    /// Rows in the run.
    pub fn rows(&self) -> usize {
        self.weights.rows
    }

    /// Columns, C.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The layout.
    pub fn layout(&self) -> Layout {
        self.layout
    }
}
