//! How members of a team hand numbers to each other between two phases: a matrix `[R, T]` that one phase writes in blocks of
//! rows and the next reads by tokens.
//!
//! With few tokens it is one array of atomic words: readers share cache lines and nobody takes a lock, which is what counts
//! when every member reads everything and a phase lasts microseconds. With many tokens each part is an allocation of its own
//! behind a lock, and writing swaps a member's buffer in without a copy. Phases end in barriers, so no lock is ever waited
//! for and no word read before it is written.

use crate::plan::Block;
use crate::team::{own, read, write};
use kernels::Kernels;
use kernels::transpose::Grid;
use std::ops::Range;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Up to so many tokens are exchanged through atomic words.
pub(crate) const FEW: usize = 4;

/// Parts, each written by one member in a phase.
#[derive(Debug)]
pub(crate) struct Parts {
    storage: Storage,
    /// Where each part begins in the whole; one more than there are parts.
    starts: Vec<usize>,
}

#[derive(Debug)]
enum Storage {
    Words(Vec<AtomicU32>),
    Buffers(Vec<RwLock<Vec<f32>>>),
}

impl Parts {
    /// Parts of the given sizes, for an exchange of `tokens` tokens.
    pub(crate) fn new(sizes: impl Iterator<Item = usize>, tokens: usize) -> Parts {
        let mut starts = vec![0];
        for size in sizes {
            starts.push(starts[starts.len() - 1] + size);
        }
        let storage = if tokens <= FEW {
            Storage::Words((0..starts[starts.len() - 1]).map(|_| AtomicU32::new(0)).collect())
        } else {
            Storage::Buffers(starts.windows(2).map(|pair| RwLock::new(vec![0.0; pair[1] - pair[0]])).collect())
        };
        Parts { storage, starts }
    }

    /// Bytes allocated for the numbers.
    pub(crate) fn bytes(&mut self) -> usize {
        match &mut self.storage {
            Storage::Words(words) => words.capacity() * size_of::<AtomicU32>(),
            Storage::Buffers(buffers) => {
                buffers.iter_mut().map(|buffer| own(buffer.get_mut()).capacity() * size_of::<f32>()).sum()
            }
        }
    }

    fn size(&self, part: usize) -> usize {
        self.starts[part + 1] - self.starts[part]
    }

    /// A buffer's first numbers become the part; the buffer's contents are lost.
    pub(crate) fn put(&self, part: usize, buffer: &mut Vec<f32>) {
        let size = self.size(part);
        match &self.storage {
            Storage::Words(words) => {
                for (word, value) in words[self.starts[part]..][..size].iter().zip(&buffer[..size]) {
                    word.store(value.to_bits(), Relaxed);
                }
            }
            Storage::Buffers(buffers) => {
                std::mem::swap(&mut *write(&buffers[part]), buffer);
            }
        }
    }

    /// Looks at a range of a part. `scratch` is used where the numbers must be gathered first.
    pub(crate) fn look(&self, part: usize, range: Range<usize>, scratch: &mut Vec<f32>, look: impl FnOnce(&[f32])) {
        debug_assert!(range.end <= self.size(part));
        match &self.storage {
            Storage::Words(words) => {
                let words = &words[self.starts[part]..][range];
                scratch.clear();
                scratch.extend(words.iter().map(|word| f32::from_bits(word.load(Relaxed))));
                look(scratch);
            }
            Storage::Buffers(buffers) => {
                look(&read(&buffers[part])[range]);
            }
        }
    }
}

/// A matrix `[R, T]` whose parts are blocks of rows. Inside a block tokens lie in groups, each `[rows, tokens of the group]`.
#[derive(Debug)]
pub(crate) struct Exchange {
    parts: Parts,
    /// Rows before each block; one more than there are blocks.
    starts: Vec<usize>,
}

impl Exchange {
    pub(crate) fn new(blocks: &[Block], tokens: usize) -> Exchange {
        let parts = Parts::new(blocks.iter().map(|block| block.rows.len() * tokens), tokens);
        let mut starts: Vec<usize> = blocks.iter().map(|block| block.start).collect();
        starts.push(blocks.last().map_or(0, |block| block.start + block.rows.len()));
        Exchange { parts, starts }
    }

    /// Bytes allocated for the numbers.
    pub(crate) fn bytes(&mut self) -> usize {
        self.parts.bytes()
    }

    /// A buffer becomes block `block`.
    pub(crate) fn put(&self, block: usize, buffer: &mut Vec<f32>) {
        self.parts.put(block, buffer);
    }

    /// Rows `rows` of tokens `tokens`, which lie within `group`, transposed: `out[t * stride + r]`.
    pub(crate) fn get(
        &self,
        kernels: &Kernels,
        rows: Range<usize>,
        tokens: Range<usize>,
        group: Range<usize>,
        scratch: &mut Vec<f32>,
        (out, stride): (&mut [f32], usize),
    ) {
        let mut block = self.starts.partition_point(|start| *start <= rows.start) - 1;
        let mut row = rows.start;
        while row < rows.end {
            let (first, last) = (self.starts[block], self.starts[block + 1]);
            let end = rows.end.min(last);
            let base = (last - first) * group.start;
            let range = base + (row - first) * group.len()..base + (end - first) * group.len();
            let out = &mut out[row - rows.start..];
            let grid = Grid { rows: end - row, cols: tokens.len(), stride: group.len(), out_stride: stride };
            self.parts.look(block, range, scratch, |values| {
                if group.len() == 1 {
                    out[..values.len()].copy_from_slice(values);
                } else {
                    kernels.transpose(&values[tokens.start - group.start..], grid, out);
                }
            });
            (row, block) = (end, block + 1);
        }
    }
}

/// Rows of tokens `[T, W]` whose parts are ranges of columns, each `[T, columns]`: what items that own some channels hand on.
#[derive(Debug)]
pub(crate) struct Columns {
    parts: Parts,
    /// Where each part's columns begin; one more than there are parts.
    starts: Vec<usize>,
}

impl Columns {
    /// Parts of so many columns.
    pub(crate) fn new(widths: impl Iterator<Item = usize> + Clone, tokens: usize) -> Columns {
        let mut starts = vec![0];
        for width in widths.clone() {
            starts.push(starts[starts.len() - 1] + width);
        }
        Columns { parts: Parts::new(widths.map(|width| width * tokens), tokens), starts }
    }

    /// Bytes allocated for the numbers.
    pub(crate) fn bytes(&mut self) -> usize {
        self.parts.bytes()
    }

    /// A buffer's first numbers `[T, columns]` become a part.
    pub(crate) fn put(&self, part: usize, buffer: &mut Vec<f32>) {
        self.parts.put(part, buffer);
    }

    /// All columns of tokens `tokens` into `out` `[tokens, W]`.
    pub(crate) fn get(&self, tokens: Range<usize>, scratch: &mut Vec<f32>, out: &mut [f32]) {
        let width = self.starts[self.starts.len() - 1];
        for (part, range) in self.starts.windows(2).enumerate() {
            let columns = range[1] - range[0];
            self.parts.look(part, tokens.start * columns..tokens.end * columns, scratch, |values| {
                for (out, values) in out.chunks_exact_mut(width).zip(values.chunks_exact(columns)) {
                    out[range[0]..range[1]].copy_from_slice(values);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan;

    #[test]
    fn columns_put_by_parts_are_got_by_tokens() {
        for tokens in [1, 4, 5, 9] {
            let columns = Columns::new([3, 1, 4].into_iter(), tokens);
            let value = |t: usize, c: usize| (t * 10 + c) as f32;
            for (part, range) in [0..3, 3..4, 4..8].into_iter().enumerate() {
                let mut buffer = (0..tokens).flat_map(|t| range.clone().map(move |c| value(t, c))).collect();
                columns.put(part, &mut buffer);
            }
            let some = tokens / 2..tokens;
            let mut out = vec![-1.0; some.len() * 8];
            columns.get(some.clone(), &mut Vec::new(), &mut out);
            let expected: Vec<f32> = some.flat_map(|t| (0..8).map(move |c| value(t, c))).collect();
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn what_is_put_in_blocks_is_got_by_tokens() {
        let kernels = Kernels::best();
        for ends in [vec![1], vec![3], vec![4], vec![5], vec![8, 16, 19]] {
            let groups: Vec<Range<usize>> = [0].iter().chain(&ends).zip(&ends).map(|(a, b)| *a..*b).collect();
            let tokens = ends[ends.len() - 1];
            let blocks = plan::blocks(&[100, 33], 16, 3, usize::MAX);
            let exchange = Exchange::new(&blocks, tokens);
            let value = |r: usize, t: usize| (r * 1000 + t) as f32;
            for (i, block) in blocks.iter().enumerate() {
                let mut buffer = Vec::new();
                for group in &groups {
                    for r in 0..block.rows.len() {
                        buffer.extend(group.clone().map(|t| value(block.start + r, t)));
                    }
                }
                exchange.put(i, &mut buffer);
            }
            let mut scratch = Vec::new();
            for group in &groups {
                for rows in [0..133, 5..6, 31..97, 99..101] {
                    let some = group.start + group.len() / 2..group.end;
                    let stride = rows.len() + 3;
                    let mut out = vec![-1.0; some.len() * stride];
                    exchange.get(kernels, rows.clone(), some.clone(), group.clone(), &mut scratch, (&mut out, stride));
                    for (i, t) in some.enumerate() {
                        for r in rows.clone() {
                            assert_eq!(out[i * stride + r - rows.start], value(r, t));
                        }
                    }
                }
            }
        }
    }
}
