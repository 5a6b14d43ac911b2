//! Storage in whole cache lines: the one type of large aligned allocations.

use crate::memory::{Purpose, Reservation};
use crate::pages;
use std::ops::{Deref, DerefMut};

/// One cache line: 64 bytes, aligned to 64, so that a full vector never straddles two lines.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Line(pub [u8; 64]);

/// A zero-initialised allocation of whole cache lines that counts itself in [`MemoryStats`](crate::memory::MemoryStats).
/// Large ones ask the operating system for huge pages: a packed matrix is walked in many streams at once, and 4 KiB pages
/// would spend the time on address translation.
pub struct Lines {
    lines: Vec<Line>,
    counted: Reservation,
}

impl Lines {
    /// `count` lines of zeros, counted as scratch memory.
    ///
    /// # Panics
    /// As `Vec` does: if the size overflows `isize` or memory is exhausted. Callers bound sizes that come from outside.
    pub fn zeroed(count: usize) -> Lines {
        Lines::zeroed_for(Purpose::Scratch, count)
    }

    /// `count` lines of zeros for a purpose.
    ///
    /// # Panics
    /// As [`Lines::zeroed`].
    pub fn zeroed_for(purpose: Purpose, count: usize) -> Lines {
        Lines::counted_by(Reservation::new(purpose, 0), count)
    }

    fn counted_by(mut counted: Reservation, count: usize) -> Lines {
        let mut lines: Vec<Line> = bytemuck::zeroed_vec(count);
        pages::advise_huge(bytemuck::cast_slice_mut(&mut lines));
        counted.resize(lines.capacity() * size_of::<Line>());
        Lines { lines, counted }
    }

    /// Spreads the pages of a large allocation over all memory nodes of the machine, so that threads of every node read it
    /// equally fast. For what many threads read for long; does nothing where there is one node.
    pub fn spread_over_nodes(&mut self) {
        pages::interleave(self.bytes_mut());
    }

    /// The lines as bytes.
    pub fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.lines)
    }

    /// The lines as bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.lines)
    }
}

/// The copy is advised and counted as the original is.
impl Clone for Lines {
    fn clone(&self) -> Lines {
        let mut clone = Lines::counted_by(self.counted.another(0), self.lines.len());
        clone.copy_from_slice(self);
        clone
    }
}

impl PartialEq for Lines {
    fn eq(&self, other: &Lines) -> bool {
        self.lines == other.lines
    }
}

impl Eq for Lines {}

impl Deref for Lines {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        &self.lines
    }
}

impl DerefMut for Lines {
    fn deref_mut(&mut self) -> &mut [Line] {
        &mut self.lines
    }
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lines({} of 64 bytes)", self.lines.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Ledger;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lines_are_counted_from_the_allocation_to_the_drop(
            steps in vec((0..3, 0..Purpose::ALL.len(), 0..500usize, any::<proptest::sample::Index>()), 1..40),
        ) {
            let ledger: &'static Ledger = Box::leak(Box::new(Ledger::new()));
            let mut held: Vec<Lines> = Vec::new();
            let mut most = 0;
            for (step, purpose, count, which) in steps {
                match (step, held.len()) {
                    (0, _) | (_, 0) => held.push(Lines::counted_by(ledger.reserve(Purpose::ALL[purpose], 0), count)),
                    (1, len) => held.push(held[which.index(len)].clone()),
                    (_, len) => drop(held.swap_remove(which.index(len))),
                }
                let stats = ledger.stats();
                for purpose in Purpose::ALL {
                    let own = held.iter().filter(|lines| lines.counted.purpose() == purpose);
                    prop_assert_eq!(stats.of(purpose).bytes, own.map(|lines| lines.bytes().len()).sum::<usize>());
                }
                most = most.max(stats.allocated.bytes);
                prop_assert_eq!(stats.allocated.high_water_bytes, most);
            }
            held.clear();
            prop_assert!(Purpose::ALL.iter().all(|purpose| ledger.stats().of(*purpose).bytes == 0));
        }
    }

    #[test]
    fn a_clone_is_equal_stands_for_itself_and_spreading_changes_nothing() {
        // Large enough to be advised and spread.
        let mut lines = Lines::zeroed_for(Purpose::Weights, (4 << 20) / 64 + 3);
        lines.bytes_mut().iter_mut().enumerate().for_each(|(i, byte)| *byte = i as u8);
        let mut clone = lines.clone();
        assert!(clone == lines && clone.counted.purpose() == Purpose::Weights);
        assert_eq!(clone.as_ptr().align_offset(64), 0);
        clone.spread_over_nodes();
        assert!(clone == lines);
        clone[0].0[0] ^= 1;
        assert!(clone != lines);
    }
}
