//! A packed matrix of weights in groups, and its layouts.

use super::format::{Format, GROUP, PAIR, TILE_ROWS, scale, set_scale};
use super::{q4, q8};
use crate::memory::Purpose;
use crate::{Element, Lines, Rng};
use half::f16;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// How the weights are quantised and packed. The drawing is in the layout's module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Layout {
    /// Eight bits a weight: [`crate::grouped::q8`].
    Q8,
    /// Four bits a weight: [`crate::grouped::q4`].
    Q4,
}

impl Layout {
    /// Every layout.
    pub const ALL: [Layout; 2] = [Layout::Q8, Layout::Q4];
    /// Rows to a tile: runs of rows start and end at multiples of it ([`GroupedMatrix::row_range`]).
    pub const TILE_ROWS: usize = TILE_ROWS;

    pub(crate) const fn format(self) -> &'static Format {
        match self {
            Layout::Q8 => &q8::FORMAT,
            Layout::Q4 => &q4::FORMAT,
        }
    }

    /// Its name: `q8`, `q4`.
    pub const fn name(self) -> &'static str {
        self.format().name
    }

    /// Bits that one weight takes with its share of the scale, padding aside.
    pub fn bits(self) -> f64 {
        self.format().bits()
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
            format!("no layout of grouped weights is called '{text}': expected one of {names}")
        })
    }
}

/// Why weights cannot be quantised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PackError {
    /// A weight is infinite or no number.
    NotFinite {
        /// Where it stands.
        row: usize,
        /// Where it stands.
        column: usize,
    },
    /// The largest weight of a group needs a scale beyond the largest of f16.
    TooLarge {
        /// The group's row.
        row: usize,
        /// The group's first column.
        column: usize,
    },
}

impl fmt::Display for PackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PackError::NotFinite { row, column } => write!(f, "the weight at row {row}, column {column} is not finite"),
            PackError::TooLarge { row, column } => {
                write!(f, "row {row} has a weight from column {column} on that is too large for an f16 scale")
            }
        }
    }
}

impl std::error::Error for PackError {}

impl PackError {
    /// The same in a matrix that has so many rows above these.
    #[must_use]
    pub fn after_rows(self, rows: usize) -> PackError {
        match self {
            PackError::NotFinite { row, column } => PackError::NotFinite { row: rows + row, column },
            PackError::TooLarge { row, column } => PackError::TooLarge { row: rows + row, column },
        }
    }
}

/// A matrix `R × C` of integer codes with one f16 scale for each group of 32 columns of a row, packed. The same bytes
/// on every machine. Rows and columns beyond the last ones of its tiles and groups hold weight 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupedMatrix {
    rows: usize,
    cols: usize,
    layout: Layout,
    lines: Lines,
}

impl GroupedMatrix {
    /// Columns that share a scale.
    pub const GROUP: usize = GROUP;

    /// Quantises and packs `weights` `[rows, cols]`.
    ///
    /// # Errors
    /// A weight that is not finite or too large.
    ///
    /// # Panics
    /// If the length is not `rows * cols`.
    pub fn pack<E: Element>(
        weights: &[E],
        rows: usize,
        cols: usize,
        layout: Layout,
    ) -> Result<GroupedMatrix, PackError> {
        assert_eq!(weights.len(), rows * cols, "weights for a {rows}×{cols} matrix");
        GroupedMatrix::from_rows(rows, cols, layout, |r, out| {
            for (out, weight) in out.iter_mut().zip(&weights[r * cols..][..cols]) {
                *out = weight.widen();
            }
        })
    }

    /// Quantises and packs row by row: `fill` writes the row that it is told, `[cols]`.
    ///
    /// # Errors
    /// A weight that is not finite or too large.
    pub fn from_rows(
        rows: usize,
        cols: usize,
        layout: Layout,
        mut fill: impl FnMut(usize, &mut [f32]),
    ) -> Result<GroupedMatrix, PackError> {
        let format = layout.format();
        let groups = cols.div_ceil(PAIR * GROUP) * PAIR;
        let mut matrix = GroupedMatrix::unwritten(rows, cols, layout);
        let mut row = vec![0.0; groups * GROUP];
        let mut codes = vec![[[0i8; GROUP]; TILE_ROWS]; groups];
        for (first, lines) in
            (0..rows).step_by(TILE_ROWS).zip(matrix.lines.chunks_exact_mut(tile_lines(format, cols).max(1)))
        {
            codes.fill([[0; GROUP]; TILE_ROWS]);
            for r in first..(first + TILE_ROWS).min(rows) {
                fill(r, &mut row[..cols]);
                if let Some(column) = row.iter().position(|weight| !weight.is_finite()) {
                    return Err(PackError::NotFinite { row: r, column });
                }
                for (g, (weights, codes)) in row.as_chunks().0.iter().zip(&mut codes).enumerate() {
                    let step = (format.quantise)(weights, &mut codes[r - first]);
                    if !step.is_finite() {
                        return Err(PackError::TooLarge { row: r, column: g * GROUP });
                    }
                    set_scale(&mut lines[g / PAIR * format.block_lines()], g % PAIR, r - first, step);
                }
            }
            for (block, codes) in lines.chunks_exact_mut(format.block_lines()).zip(codes.chunks_exact(PAIR)) {
                for (lines, codes) in block[1..].chunks_exact_mut(format.code_lines).zip(codes) {
                    (format.pack)(codes, lines);
                }
            }
        }
        Ok(matrix)
    }

    /// The rows of several matrices, one below the other: what threads packed piece by piece.
    ///
    /// # Panics
    /// If there is none, if columns or layouts differ, or if a matrix before the last ends inside a tile.
    pub fn stack(parts: &[GroupedMatrix]) -> GroupedMatrix {
        let (first, last) = (&parts[0], parts.len() - 1);
        let mut stacked = GroupedMatrix::unwritten(parts.iter().map(|part| part.rows).sum(), first.cols, first.layout);
        let mut lines = &mut stacked.lines[..];
        for (i, part) in parts.iter().enumerate() {
            assert_eq!((part.cols, part.layout), (first.cols, first.layout), "part {i} of a stack");
            assert!(i == last || part.rows.is_multiple_of(TILE_ROWS), "part {i} of a stack ends inside a tile");
            let (own, rest) = lines.split_at_mut(part.lines.len());
            own.copy_from_slice(&part.lines);
            lines = rest;
        }
        stacked
    }

    /// Random codes and scales: a function of shape and seed. Every code of the layout occurs; scales are around 2^-9.
    pub fn random(rows: usize, cols: usize, layout: Layout, rng: &mut Rng) -> GroupedMatrix {
        let format = layout.format();
        let mut matrix = GroupedMatrix::unwritten(rows, cols, layout);
        let last = cols.div_ceil(PAIR * GROUP).saturating_sub(1);
        let blocks = matrix.lines.chunks_exact_mut(format.block_lines());
        for (i, block) in blocks.enumerate() {
            let (tile, pair) = (i / (last + 1), i % (last + 1));
            let (scales, codes) = block.split_at_mut(1);
            for bytes in codes.iter_mut().flat_map(|line| line.0.chunks_exact_mut(8)) {
                bytes.copy_from_slice(&rng.next_u64().to_le_bytes());
                if layout == Layout::Q8 {
                    // -128 is no code.
                    bytes.iter_mut().for_each(|byte| *byte = if *byte == 0x80 { 0 } else { *byte });
                }
            }
            for (group, row) in (0..PAIR).flat_map(|group| (0..TILE_ROWS).map(move |row| (group, row))) {
                set_scale(&mut scales[0], group, row, f16::from_f32((0.5 + rng.unit()) / 512.0));
            }
            if (tile + 1) * TILE_ROWS <= rows && (pair + 1) * PAIR * GROUP <= cols {
                continue;
            }
            for (group, lines) in codes.chunks_exact_mut(format.code_lines).enumerate() {
                let mut codes = [[0; GROUP]; TILE_ROWS];
                for (r, codes) in codes.iter_mut().enumerate().take(rows - tile * TILE_ROWS) {
                    let width = cols.saturating_sub((pair * PAIR + group) * GROUP).min(GROUP);
                    for (c, code) in codes.iter_mut().enumerate().take(width) {
                        *code = (format.code)(lines, r, c);
                    }
                }
                (format.pack)(&codes, lines);
            }
        }
        matrix
    }

    /// Lines of zeros, which are not yet codes in every layout.
    fn unwritten(rows: usize, cols: usize, layout: Layout) -> GroupedMatrix {
        let count = rows.div_ceil(TILE_ROWS) * tile_lines(layout.format(), cols);
        let lines = Lines::zeroed_for(Purpose::Weights, count);
        GroupedMatrix { rows, cols, layout, lines }
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

    /// Code and scale of element (r, c); the weight is their product. Slow: for tests and references.
    ///
    /// # Panics
    /// Outside the matrix.
    pub fn get(&self, r: usize, c: usize) -> (i8, f32) {
        assert!(r < self.rows && c < self.cols, "({r}, {c}) in a {}×{} matrix", self.rows, self.cols);
        let weights = self.view().weights;
        let (code, scale) = weights.element(self.layout.format(), r, c);
        (code, scale.to_f32())
    }

    /// Writes the weights of a row, which are exact in `f32`, to `out` `[cols]`.
    ///
    /// # Panics
    /// If `out` is not that long or there is no such row.
    pub fn unpack_row(&self, r: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.cols, "a row of {} columns", self.cols);
        for (c, out) in out.iter_mut().enumerate() {
            let (code, scale) = self.get(r, c);
            *out = f32::from(code) * scale;
        }
    }

    /// All rows.
    pub fn view(&self) -> GroupedRows<'_> {
        self.row_range(0..self.rows)
    }

    /// Some rows, for one thread: starts at a multiple of [`Layout::TILE_ROWS`]; ends at one too or at the last row.
    ///
    /// # Panics
    /// If the range does not lie so.
    pub fn row_range(&self, rows: Range<usize>) -> GroupedRows<'_> {
        assert!(rows.start <= rows.end && rows.end <= self.rows, "rows {rows:?} of {}", self.rows);
        assert!(rows.start.is_multiple_of(TILE_ROWS), "row range starts inside a tile: {rows:?}");
        assert!(rows.end.is_multiple_of(TILE_ROWS) || rows.end == self.rows, "row range ends inside a tile: {rows:?}");
        let length = tile_lines(self.layout.format(), self.cols);
        let lines = &self.lines[rows.start / TILE_ROWS * length..rows.end.div_ceil(TILE_ROWS) * length];
        let pairs = self.cols.div_ceil(PAIR * GROUP);
        GroupedRows { cols: self.cols, layout: self.layout, weights: super::Weights { rows: rows.len(), pairs, lines } }
    }
}

/// Lines of a tile of a matrix of so many columns.
const fn tile_lines(format: &Format, columns: usize) -> usize {
    columns.div_ceil(PAIR * GROUP) * format.block_lines()
}

/// A run of rows of a [`GroupedMatrix`].
#[derive(Clone, Copy, Debug)]
pub struct GroupedRows<'a> {
    pub(crate) cols: usize,
    pub(crate) layout: Layout,
    pub(crate) weights: super::Weights<'a>,
}

impl GroupedRows<'_> {
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

impl super::Weights<'_> {
    /// Code and scale of element (r, c).
    pub(crate) fn element(&self, format: &Format, r: usize, c: usize) -> (i8, f16) {
        let (tile, group) = (r / TILE_ROWS, c / GROUP);
        let block = &self.lines[(tile * self.pairs + group / PAIR) * format.block_lines()..][..format.block_lines()];
        let codes = &block[1 + group % PAIR * format.code_lines..][..format.code_lines];
        ((format.code)(codes, r % TILE_ROWS, c % GROUP), scale(&block[0], group % PAIR, r % TILE_ROWS))
    }
}
