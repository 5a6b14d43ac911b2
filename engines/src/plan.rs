//! How rows of weights are shared out.

use crate::linear::Linear;
use std::ops::Range;

/// Some rows of one of several matrices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Which matrix.
    pub(crate) matrix: usize,
    /// Rows of it; starts at a multiple of the tile, ends at one or at the last row.
    pub(crate) rows: Range<usize>,
    /// Rows of all matrices before these.
    pub(crate) start: usize,
}

/// Tiles that a kernel walks side by side, each its own memory stream: the unit of all but the smallest blocks.
const TILES: usize = 8;

/// Channels that belong together where a block is not of a matrix but of channels: kernels walk them sixteen at a time.
pub(crate) const CHANNELS: usize = 16;

/// Cuts matrices of the given numbers of rows, packed in tiles of `tile` rows, into blocks for `threads` members that claim them in order: each block is a
/// fraction of what is left for each member, so that streams are long at first and the last blocks are short enough for
/// everyone to end together (guided self-scheduling, Polychronopoulos and Kuck 1987). No block has more than `most` rows
/// (rounded up to a unit), which is how a product of many tokens keeps a block in a core's cache.
pub(crate) fn blocks(rows: &[usize], tile: usize, threads: usize, most: usize) -> Vec<Block> {
    let unit = TILES * tile;
    let most = most.max(1).checked_next_multiple_of(unit).unwrap_or(usize::MAX);
    let mut blocks = Vec::new();
    let mut left: usize = rows.iter().sum();
    let mut start = 0;
    for (matrix, rows) in rows.iter().copied().enumerate() {
        let mut from = 0;
        while from < rows {
            let fair = left.div_ceil(2 * threads);
            let size = if fair >= unit { fair / unit * unit } else { fair.next_multiple_of(2 * tile) };
            let size = if threads == 1 { most } else { size.min(most) };
            let end = from.saturating_add(size).min(rows);
            blocks.push(Block { matrix, rows: from..end, start });
            start += end - from;
            left -= end - from;
            from = end;
        }
    }
    blocks
}

/// Bytes of weights that a block has at most when it meets many tokens: they stay in a core's second-level cache.
const CACHED_BYTES: usize = 384 << 10;

/// Blocks of the rows of some layers, for few tokens or for `many`; `together` layers of one shape share each block.
pub(crate) fn of_linears(linears: &[Linear], together: usize, threads: usize, many: bool) -> Vec<Block> {
    let rows: Vec<usize> = linears.iter().map(Linear::rows).collect();
    let row_bytes = together * linears[0].bytes() / linears[0].rows();
    let most = if many { CACHED_BYTES / row_bytes.max(1) } else { usize::MAX };
    blocks(&rows, linears[0].tile_rows(), threads, most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn blocks_cover_every_row_once_and_end_small(
            rows in vec(1..10_000usize, 1..4),
            tile in prop_oneof![Just(16), Just(32), Just(64)],
            threads in 1..33usize,
            most in prop_oneof![Just(usize::MAX), 1..3000usize],
        ) {
            let blocks = blocks(&rows, tile, threads, most);
            let mut next = vec![0; rows.len()];
            let mut start = 0;
            for block in &blocks {
                prop_assert_eq!((block.rows.start, block.start), (next[block.matrix], start));
                prop_assert!(block.rows.start.is_multiple_of(tile) && !block.rows.is_empty());
                prop_assert!(block.rows.end.is_multiple_of(tile) || block.rows.end == rows[block.matrix]);
                prop_assert!(block.rows.len() <= most.max(1).saturating_add(TILES * tile));
                next[block.matrix] = block.rows.end;
                start += block.rows.len();
            }
            prop_assert_eq!(next, rows);
            prop_assert!(threads == 1 || blocks[blocks.len() - 1].rows.len() <= TILES * tile);
        }
    }
}
