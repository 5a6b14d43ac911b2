//! What a grouped layout is: how a group of weights is quantised, and where its codes lie.

use crate::Line;
use half::f16;

/// Rows to a tile: a 32-bit lane of a 512-bit register each.
pub(crate) const TILE_ROWS: usize = 16;
/// Columns that share a scale.
pub(crate) const GROUP: usize = 32;
/// Groups to a block: their scales fill one line.
pub(crate) const PAIR: usize = 2;

/// A layout, as data. A matrix is cut into tiles of sixteen rows, a tile into blocks of two groups of columns: a line
/// of scales, then the lines of codes of the first group and of the second.
#[derive(Debug)]
pub(crate) struct Format {
    /// What experiments and command lines call it.
    pub(crate) name: &'static str,
    /// Lines of codes to a group of a tile.
    pub(crate) code_lines: usize,
    /// Quantises a group of finite weights: codes and the scale, infinite where a weight is too large.
    pub(crate) quantise: fn(&[f32; GROUP], &mut [i8; GROUP]) -> f16,
    /// Packs the codes `[tile rows, GROUP]` of a group of a tile.
    pub(crate) pack: fn(&[[i8; GROUP]; TILE_ROWS], &mut [Line]),
    /// The code of (row of the tile, column of the group) in the lines of a group.
    pub(crate) code: fn(&[Line], usize, usize) -> i8,
}

impl Format {
    /// Lines to a block.
    pub(crate) const fn block_lines(&self) -> usize {
        1 + PAIR * self.code_lines
    }

    /// Bits that one weight takes, its share of the scale included.
    pub(crate) fn bits(&self) -> f64 {
        (self.block_lines() * 512) as f64 / (TILE_ROWS * PAIR * GROUP) as f64
    }
}

/// The smallest f16 that is not below `value`, which is not negative; infinite where there is none.
pub(crate) fn f16_above(value: f64) -> f16 {
    let near = f16::from_f64(value);
    if near.to_f64() < value { f16::from_bits(near.to_bits() + 1) } else { near }
}

/// The scale of a row in the line of scales of a block.
pub(crate) fn scale(line: &Line, group: usize, row: usize) -> f16 {
    let at = 2 * (group * TILE_ROWS + row);
    f16::from_le_bytes([line.0[at], line.0[at + 1]])
}

/// Writes the scale of a row.
pub(crate) fn set_scale(line: &mut Line, group: usize, row: usize, scale: f16) {
    let at = 2 * (group * TILE_ROWS + row);
    line.0[at..at + 2].copy_from_slice(&scale.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_is_rounded_up_to_the_next_f16() {
        for value in [0.0, 1.0, 1.0001, 1e-9, 6e-8, 0.333, 65503.0, 65504.0] {
            let above = f16_above(value);
            assert!(above.to_f64() >= value, "{value}");
            assert!(above.to_bits() == 0 || f16::from_bits(above.to_bits() - 1).to_f64() < value, "{value}");
        }
        assert!(f16_above(65505.0).is_infinite());
    }
}
