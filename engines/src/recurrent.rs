//! The memory of a recurrent sequence: a fixed number of f32 that every token changes.
//!
//! A pass never writes where it reads. It reads the snapshot after the tokens before it and writes those after its own
//! last tokens, as many as the sequence can be rewound to: so readers need no lock, a rewind is a step back in a queue,
//! clones share everything, and a pass that fails has changed nothing.

use crate::team::lock;
use crate::{Error, Result};
use kernels::Lines;
use kernels::memory::Purpose;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// Sizes of a recurrent memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RecurrentShape {
    /// A name in `ARCHITECTURES`: equal numbers mean different things to different models.
    pub(crate) architecture: &'static str,
    pub(crate) layers: usize,
    /// Numbers that a layer remembers.
    pub(crate) numbers: usize,
}

/// Everything that was remembered after some token, `[layers, numbers]`.
#[derive(Debug)]
pub(crate) struct Snapshot {
    lines: Lines,
    count: usize,
}

impl Snapshot {
    pub(crate) fn zeroed(shape: RecurrentShape) -> Snapshot {
        let count = shape.layers * shape.numbers;
        Snapshot { lines: Lines::zeroed_for(Purpose::Cache, (count * size_of::<f32>()).div_ceil(64)), count }
    }

    pub(crate) fn numbers(&self) -> &[f32] {
        &bytemuck::cast_slice(self.lines.bytes())[..self.count]
    }

    pub(crate) fn numbers_mut(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(self.lines.bytes_mut())[..self.count]
    }

    fn bytes(&self) -> usize {
        self.lines.bytes().len()
    }
}

/// What a sequence remembers now, and what it did after its last tokens.
#[derive(Debug)]
pub(crate) struct Recurrent {
    shape: RecurrentShape,
    keep: usize,
    /// Before the first token.
    initial: Arc<Snapshot>,
    /// After each of the last lengths, oldest first; never empty.
    recent: VecDeque<Arc<Snapshot>>,
    /// Snapshots that nobody needs any more, to be written anew.
    spare: Vec<Snapshot>,
}

/// A clone shares every number; what it may write anew is its own.
impl Clone for Recurrent {
    fn clone(&self) -> Recurrent {
        let Recurrent { shape, keep, initial, recent, spare: _ } = self;
        Recurrent { shape: *shape, keep: *keep, initial: initial.clone(), recent: recent.clone(), spare: Vec::new() }
    }
}

impl Recurrent {
    /// Before the first token; can be rewound by up to `keep` tokens, and always to the beginning.
    pub(crate) fn new(shape: RecurrentShape, initial: &Arc<Snapshot>, keep: usize) -> Recurrent {
        Recurrent { shape, keep, initial: initial.clone(), recent: [initial.clone()].into(), spare: Vec::new() }
    }

    pub(crate) fn shape(&self) -> RecurrentShape {
        self.shape
    }

    /// What is remembered now.
    pub(crate) fn present(&self) -> &Arc<Snapshot> {
        self.recent.back().unwrap_or(&self.initial)
    }

    /// Forgets the last `len - to` of `len` tokens.
    pub(crate) fn rewind(&mut self, len: usize, to: usize) -> Result<()> {
        let oldest = len + 1 - self.recent.len();
        if to < oldest && to > 0 {
            return Err(Error::Forgotten { wanted: to, oldest, len });
        }
        let stay = (to + 1).saturating_sub(oldest);
        while self.recent.len() > stay
            && let Some(gone) = self.recent.pop_back()
        {
            self.retire(gone);
        }
        if self.recent.is_empty() {
            self.recent.push_back(self.initial.clone());
        }
        Ok(())
    }

    /// Snapshots for a pass of `tokens` tokens to write: those after each of its last tokens that can be rewound to, oldest
    /// first. Their numbers are anything.
    pub(crate) fn begin(&mut self, tokens: usize) -> Vec<Snapshot> {
        let count = tokens.min(self.keep.saturating_add(1));
        (0..count).map(|_| self.spare.pop().unwrap_or_else(|| Snapshot::zeroed(self.shape))).collect()
    }

    /// Remembers what a pass wrote.
    pub(crate) fn commit(&mut self, written: Vec<Snapshot>) {
        self.recent.extend(written.into_iter().map(Arc::new));
        while self.recent.len() > self.keep.saturating_add(1) {
            if let Some(gone) = self.recent.pop_front() {
                self.retire(gone);
            }
        }
    }

    fn retire(&mut self, gone: Arc<Snapshot>) {
        if let Ok(own) = Arc::try_unwrap(gone)
            && self.spare.len() <= self.keep
        {
            self.spare.push(own);
        }
    }

    /// Bytes held; what clones share counts for each.
    pub(crate) fn bytes(&self) -> usize {
        let recent = self.recent.iter().map(|snapshot| snapshot.bytes()).sum::<usize>();
        recent + self.spare.iter().map(Snapshot::bytes).sum::<usize>()
    }
}

/// How a layer's memory is divided among those who compute it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cells {
    /// Each cell's pieces of the layer's numbers, disjoint.
    pieces: Vec<Vec<Range<usize>>>,
    /// Cell and piece, by where they lie.
    order: Vec<(usize, usize)>,
}

/// The pieces of a snapshot that one member writes at a time.
pub(crate) type Cell<'b> = Vec<&'b mut [f32]>;

impl Cells {
    /// # Panics
    /// If pieces overlap.
    pub(crate) fn new(pieces: Vec<Vec<Range<usize>>>) -> Cells {
        let mut order: Vec<(usize, usize)> = pieces
            .iter()
            .enumerate()
            .flat_map(|(cell, list)| (0..list.len()).map(move |piece| (cell, piece)))
            .collect();
        order.sort_by_key(|(cell, piece)| pieces[*cell][*piece].start);
        let at = |(cell, piece): (usize, usize)| &pieces[cell][piece];
        assert!(order.windows(2).all(|pair| at(pair[0]).end <= at(pair[1]).start), "cells overlap: {pieces:?}");
        Cells { pieces, order }
    }

    /// Cuts a layer's numbers.
    fn cut<'l>(&self, mut layer: &'l mut [f32]) -> Vec<Cell<'l>> {
        let mut cells: Vec<Cell<'l>> =
            self.pieces.iter().map(|list| list.iter().map(|_| [].as_mut_slice()).collect()).collect();
        let mut at = 0;
        for (cell, piece) in &self.order {
            let range = self.pieces[*cell][*piece].clone();
            let (_, rest) = layer.split_at_mut(range.start - at);
            let (found, rest) = rest.split_at_mut(range.len());
            cells[*cell][*piece] = found;
            (layer, at) = (rest, range.end);
        }
        cells
    }
}

/// A sequence's memory during a pass.
pub(crate) struct Recalled<'b> {
    shape: RecurrentShape,
    cells: &'b Cells,
    /// After the tokens before this pass, `[layers, numbers]`.
    before: &'b [f32],
    /// What the pass writes, in order of tokens.
    after: Vec<After<'b>>,
}

/// A snapshot that a pass writes.
struct After<'b> {
    /// Tokens of the run that it has read.
    tokens: usize,
    /// `[layers, cells]`.
    cells: Vec<Mutex<Cell<'b>>>,
}

impl<'b> Recalled<'b> {
    /// For a run of `tokens` tokens that reads `before` and writes the last of `after`, each layer divided into `cells`.
    pub(crate) fn new(
        shape: RecurrentShape,
        cells: &'b Cells,
        tokens: usize,
        before: &'b Snapshot,
        after: &'b mut [Snapshot],
    ) -> Recalled<'b> {
        let first = tokens + 1 - after.len();
        let after = after.iter_mut().enumerate().map(|(i, snapshot)| {
            let layers = snapshot.numbers_mut().chunks_exact_mut(shape.numbers);
            let cells = layers.flat_map(|layer| cells.cut(layer)).map(Mutex::new).collect();
            After { tokens: first + i, cells }
        });
        Recalled { shape, cells, before: before.numbers(), after: after.collect() }
    }

    /// What a layer remembered of the tokens before this pass, at a range of its numbers.
    pub(crate) fn before(&self, layer: usize, range: Range<usize>) -> &[f32] {
        &self.before[layer * self.shape.numbers..][range]
    }

    /// Takes a layer's cell through the run's tokens: `step` reads a range of them, counted from the run's first, and changes
    /// the cell's pieces in place.
    pub(crate) fn walk(&self, layer: usize, cell: usize, mut step: impl FnMut(Range<usize>, &mut [&mut [f32]])) {
        let index = layer * self.cells.pieces.len() + cell;
        let mut read = 0;
        for (i, after) in self.after.iter().enumerate() {
            let mut pieces = lock(&after.cells[index]);
            match i.checked_sub(1) {
                None => {
                    for (piece, range) in pieces.iter_mut().zip(&self.cells.pieces[cell]) {
                        piece.copy_from_slice(self.before(layer, range.clone()));
                    }
                }
                Some(earlier) => {
                    let earlier = lock(&self.after[earlier].cells[index]);
                    pieces.iter_mut().zip(&*earlier).for_each(|(piece, earlier)| piece.copy_from_slice(earlier));
                }
            }
            step(read..after.tokens, &mut pieces);
            read = after.tokens;
        }
    }

    /// Writes a layer's cell anew after those of the run's `tokens` that are remembered: `write` hears which token, counted from
    /// the run's first.
    pub(crate) fn save(
        &self,
        layer: usize,
        cell: usize,
        tokens: Range<usize>,
        mut write: impl FnMut(usize, &mut [&mut [f32]]),
    ) {
        let index = layer * self.cells.pieces.len() + cell;
        for after in self.after.iter().filter(|after| tokens.contains(&(after.tokens - 1))) {
            write(after.tokens - 1, &mut lock(&after.cells[index]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: RecurrentShape = RecurrentShape { architecture: "test", layers: 2, numbers: 5 };

    /// Every number counts tokens; the second piece of the first cell adds what it is told.
    fn read(memory: &mut Recurrent, tokens: &[f32]) {
        let cells = Cells::new(vec![vec![3..5, 0..1], vec![1..3]]);
        let before = memory.present().clone();
        let mut after = memory.begin(tokens.len());
        let recalled = Recalled::new(SHAPE, &cells, tokens.len(), &before, &mut after);
        for layer in 0..2 {
            recalled.walk(layer, 0, |range, pieces| {
                pieces[0].iter_mut().for_each(|x| *x += range.len() as f32);
                pieces[1][0] += tokens[range].iter().sum::<f32>();
            });
            recalled.save(layer, 1, 0..tokens.len(), |token, pieces| pieces[0].fill(tokens[token]));
        }
        drop(recalled);
        memory.commit(after);
    }

    fn numbers(memory: &Recurrent) -> Vec<f32> {
        memory.present().numbers().to_vec()
    }

    #[test]
    fn rewinding_by_up_to_keep_tokens_and_to_the_beginning_restores_what_was() {
        let initial = Arc::new(Snapshot::zeroed(SHAPE));
        let tokens: Vec<f32> = (1..40).map(|i| i as f32).collect();
        for keep in [0, 1, 3, 8, usize::MAX] {
            // What is remembered after each length, read token by token.
            let mut plain = Recurrent::new(SHAPE, &initial, 0);
            let expected: Vec<Vec<f32>> = std::iter::once(numbers(&plain))
                .chain(tokens.iter().map(|token| {
                    read(&mut plain, &[*token]);
                    numbers(&plain)
                }))
                .collect();
            for calls in [vec![1, 1, 1], vec![5, 2], vec![20, 1, 6, 1], vec![3, 1, 1, 1, 30]] {
                let mut memory = Recurrent::new(SHAPE, &initial, keep);
                let mut len = 0;
                for count in calls {
                    read(&mut memory, &tokens[len..len + count]);
                    len += count;
                    assert_eq!(numbers(&memory), expected[len]);
                    for to in 0..=len {
                        let mut clone = memory.clone();
                        let possible = to == 0 || len - to <= keep;
                        assert_eq!(clone.rewind(len, to).is_ok(), possible, "keep {keep}: from {len} to {to}");
                        if possible {
                            assert_eq!(numbers(&clone), expected[to]);
                            read(&mut clone, &tokens[to..to + 1]);
                            assert_eq!(numbers(&clone), expected[to + 1]);
                        }
                        assert_eq!(numbers(&memory), expected[len], "a clone disturbed the original");
                    }
                }
            }
        }
    }

    #[test]
    fn reading_on_token_by_token_needs_no_more_memory_than_is_kept() {
        let initial = Arc::new(Snapshot::zeroed(SHAPE));
        let mut memory = Recurrent::new(SHAPE, &initial, 2);
        (0..100).for_each(|_| read(&mut memory, &[1.0]));
        assert_eq!(memory.bytes(), 64 * 4, "three to rewind to and one to write");
    }

    #[test]
    #[should_panic(expected = "overlap")]
    fn overlapping_cells_are_a_mistake() {
        Cells::new(vec![vec![0..3], vec![2..4]]);
    }
}
