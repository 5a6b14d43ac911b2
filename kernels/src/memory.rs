//! The books of memory: bytes by purpose, now and at most.
//!
//! Whoever owns a large allocation holds a [`Reservation`] of its size beside it: [`Lines`](crate::Lines) do so
//! themselves, caches and scratch memory of models too. It is counted when it is made, when it changes size and when it is
//! dropped, never in between, by a few relaxed atomic additions and without a lock.
//!
//! **Counted** what owners ask the allocator for: a zeroed page that nobody has touched yet counts, what the allocator keeps
//! or rounds up does not. So the sum is near the resident memory of a process but is not the same. **Not counted** small
//! things (configurations, tokenizers, stacks), the plain vectors of cases that are measured, and the second copy that a
//! vector needs while it moves to grow.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Weights in own allocations: packed matrices, whether of a model or of a case that is measured, tables and vectors.
    Weights,
    /// Files of weights that are mapped: their length, however much of it lies in memory. Not part of the sum.
    Mapped,
    /// Keys and values of what has been read.
    Cache,
    /// What is computed on the way and can be used again: passes, logits, tables.
    Scratch,
    /// Buffers that are only read or written to be timed.
    Measuring,
}

impl Purpose {
    /// Every purpose.
    pub const ALL: [Purpose; 5] =
        [Purpose::Weights, Purpose::Mapped, Purpose::Cache, Purpose::Scratch, Purpose::Measuring];

    /// Its name: `weights`.
    pub const fn name(self) -> &'static str {
        match self {
            Purpose::Weights => "weights",
            Purpose::Mapped => "mapped",
            Purpose::Cache => "cache",
            Purpose::Scratch => "scratch",
            Purpose::Measuring => "measuring",
        }
    }

    /// Whether it is allocated and so part of the sum.
    pub const fn is_allocated(self) -> bool {
        !matches!(self, Purpose::Mapped)
    }
}

/// Bytes at a moment, and the most so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Now.
    pub bytes: usize,
    /// At most, so far.
    pub high_water_bytes: usize,
}

/// What a [`Ledger`] says at a moment. While other threads allocate, its numbers may be a moment apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    purposes: [Usage; Purpose::ALL.len()],
    /// All that is allocated. Its high-water mark is that of the sum, below the sum of the marks of the purposes where
    /// they were reached at different times.
    pub allocated: Usage,
}

impl MemoryStats {
    /// What this process has reserved.
    pub fn now() -> MemoryStats {
        PROCESS.stats()
    }

    /// Bytes for a purpose.
    pub fn of(&self, purpose: Purpose) -> Usage {
        self.purposes[purpose as usize]
    }
}

/// Bytes now and at most.
#[derive(Debug)]
struct Counter {
    bytes: AtomicUsize,
    high_water: AtomicUsize,
}

impl Counter {
    const fn new() -> Counter {
        Counter { bytes: AtomicUsize::new(0), high_water: AtomicUsize::new(0) }
    }

    fn add(&self, bytes: usize) {
        let now = self.bytes.fetch_add(bytes, Relaxed) + bytes;
        self.high_water.fetch_max(now, Relaxed);
    }

    fn subtract(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Relaxed);
        debug_assert!(before >= bytes, "{bytes} bytes given back of {before}");
    }

    fn usage(&self) -> Usage {
        Usage { bytes: self.bytes.load(Relaxed), high_water_bytes: self.high_water.load(Relaxed) }
    }
}

/// Books of reservations. The process has one of its own; a test makes another.
#[derive(Debug)]
pub struct Ledger {
    purposes: [Counter; Purpose::ALL.len()],
    allocated: Counter,
}

/// The books of this process.
static PROCESS: Ledger = Ledger::new();

impl Ledger {
    /// Empty books.
    pub const fn new() -> Ledger {
        Ledger { purposes: [const { Counter::new() }; Purpose::ALL.len()], allocated: Counter::new() }
    }

    /// Writes down so many bytes until the reservation is dropped.
    pub fn reserve(&'static self, purpose: Purpose, bytes: usize) -> Reservation {
        let mut reservation = Reservation { ledger: self, purpose, bytes: 0 };
        reservation.resize(bytes);
        reservation
    }

    /// What the books say.
    pub fn stats(&self) -> MemoryStats {
        MemoryStats { purposes: self.purposes.each_ref().map(Counter::usage), allocated: self.allocated.usage() }
    }

    /// The counters that a purpose concerns.
    fn counters(&self, purpose: Purpose) -> impl Iterator<Item = &Counter> {
        std::iter::once(&self.purposes[purpose as usize]).chain(purpose.is_allocated().then_some(&self.allocated))
    }
}

impl Default for Ledger {
    fn default() -> Ledger {
        Ledger::new()
    }
}

/// Bytes that stand in the books as long as this lives. The owner of the memory holds it; a clone is written down again.
#[derive(Debug)]
pub struct Reservation {
    ledger: &'static Ledger,
    purpose: Purpose,
    bytes: usize,
}

impl Reservation {
    /// So many bytes in the books of this process.
    pub fn new(purpose: Purpose, bytes: usize) -> Reservation {
        PROCESS.reserve(purpose, bytes)
    }

    /// What the memory is for.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Bytes that it stands for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Another one in the same books, for the same purpose.
    pub(crate) fn another(&self, bytes: usize) -> Reservation {
        self.ledger.reserve(self.purpose, bytes)
    }

    /// Says that the memory now takes so many bytes, more or less than before. Costs nothing where it takes as many.
    pub fn resize(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        for counter in self.ledger.counters(self.purpose) {
            match bytes.checked_sub(before) {
                Some(0) => {}
                Some(more) => counter.add(more),
                None => counter.subtract(before - bytes),
            }
        }
    }
}

impl Clone for Reservation {
    fn clone(&self) -> Reservation {
        self.another(self.bytes)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Books that no other test writes in.
    fn ledger() -> &'static Ledger {
        Box::leak(Box::new(Ledger::new()))
    }

    proptest! {
        #[test]
        fn the_books_follow_every_reservation_and_end_at_zero(
            steps in vec((0..4, 0..Purpose::ALL.len(), 0..1usize << 40, any::<proptest::sample::Index>()), 1..60),
        ) {
            let ledger = ledger();
            let mut held: Vec<Reservation> = Vec::new();
            let mut most = MemoryStats::default();
            for (step, purpose, bytes, which) in steps {
                match (step, held.len()) {
                    (0, _) | (_, 0) => held.push(ledger.reserve(Purpose::ALL[purpose], bytes)),
                    (1, count) => held.push(held[which.index(count)].clone()),
                    (2, count) => held[which.index(count)].resize(bytes),
                    (_, count) => drop(held.swap_remove(which.index(count))),
                }
                let sum = |counts: &dyn Fn(Purpose) -> bool| -> usize {
                    held.iter().filter(|r| counts(r.purpose())).map(Reservation::bytes).sum()
                };
                let stats = ledger.stats();
                for purpose in Purpose::ALL {
                    let (now, usage) = (sum(&|p| p == purpose), &mut most.purposes[purpose as usize]);
                    *usage = Usage { bytes: now, high_water_bytes: usage.high_water_bytes.max(now) };
                    prop_assert_eq!(stats.of(purpose), *usage);
                }
                let (now, before) = (sum(&|p| p.is_allocated()), most.allocated.high_water_bytes);
                most.allocated = Usage { bytes: now, high_water_bytes: before.max(now) };
                prop_assert_eq!(stats, most);
            }
            drop(held);
            let stats = ledger.stats();
            prop_assert_eq!(stats.allocated, Usage { bytes: 0, ..most.allocated });
            prop_assert!(Purpose::ALL.iter().all(|purpose| stats.of(*purpose).bytes == 0));
        }
    }

    #[test]
    fn the_mark_of_the_sum_is_not_the_sum_of_the_marks() {
        let ledger = ledger();
        drop(ledger.reserve(Purpose::Weights, 100));
        drop(ledger.reserve(Purpose::Scratch, 60));
        let mapped = ledger.reserve(Purpose::Mapped, 1000);
        let stats = ledger.stats();
        assert_eq!(stats.of(Purpose::Weights), Usage { bytes: 0, high_water_bytes: 100 });
        assert_eq!(stats.of(Purpose::Scratch).high_water_bytes, 60);
        assert_eq!(stats.of(Purpose::Mapped).bytes, mapped.bytes());
        assert_eq!(stats.allocated, Usage { bytes: 0, high_water_bytes: 100 });
    }

    #[test]
    fn threads_that_reserve_at_once_lose_no_byte() {
        let ledger = ledger();
        std::thread::scope(|scope| {
            for thread in 1..=4 {
                scope.spawn(move || {
                    let mut own = ledger.reserve(Purpose::Cache, 0);
                    for i in 0..10_000 {
                        own.resize(i % 7 * thread);
                        drop(own.clone());
                    }
                });
            }
        });
        let stats = ledger.stats();
        assert_eq!((stats.of(Purpose::Cache).bytes, stats.allocated.bytes), (0, 0));
        assert!((6 * 2..=6 * 2 * (1 + 2 + 3 + 4)).contains(&stats.allocated.high_water_bytes));
    }

    #[test]
    fn names_are_unlike_and_in_the_order_of_the_books() {
        for (i, purpose) in Purpose::ALL.into_iter().enumerate() {
            assert_eq!(purpose as usize, i);
            assert!(Purpose::ALL[..i].iter().all(|other| other.name() != purpose.name()));
        }
    }
}
