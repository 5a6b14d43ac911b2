//! What a packed layout is: where each trit lies.

use crate::Line;

/// A layout, as data. A matrix is cut into tiles of rows and groups of columns; a tile is stored as a header, which may be
/// empty, and its groups one after the other, a group of a tile as a run of whole lines.
#[derive(Debug)]
pub(crate) struct Format {
    /// What experiments and command lines call it.
    pub(crate) name: &'static str,
    /// Rows to a tile.
    pub(crate) tile_rows: usize,
    /// Columns to a group.
    pub(crate) group_columns: usize,
    /// Lines to a group of a tile.
    pub(crate) group_lines: usize,
    /// What a tile begins with.
    pub(crate) header: Option<Header>,
    /// Packs the trits `[tile_rows, group_columns]` of a group of a tile.
    pub(crate) pack: fn(&[i8], &mut [Line]),
    /// The inverse of `pack`.
    pub(crate) unpack: fn(&[Line], &mut [i8]),
}

/// What a tile begins with.
#[derive(Debug)]
pub(crate) struct Header {
    /// How long it is.
    pub(crate) lines: usize,
    /// Fills it from the tile's groups.
    pub(crate) fill: fn(&[Line], &mut [Line]),
}

impl Format {
    /// Lines to a tile's header.
    pub(crate) const fn header_lines(&self) -> usize {
        match &self.header {
            Some(header) => header.lines,
            None => 0,
        }
    }

    /// Trits to a group of a tile.
    pub(crate) const fn block(&self) -> usize {
        self.tile_rows * self.group_columns
    }

    /// Lines of a tile of a matrix of so many columns.
    pub(crate) const fn tile_lines(&self, columns: usize) -> usize {
        self.header_lines() + columns.div_ceil(self.group_columns) * self.group_lines
    }

    /// Bits that one weight takes, headers aside.
    pub(crate) fn bits(&self) -> f64 {
        (self.group_lines * 512) as f64 / self.block() as f64
    }
}
