//! A team of threads that walks through a computation in step.
//!
//! A decode step is one parallel region, not hundreds: every member runs the same code, and inside it
//! [`Member::phase`] shares out items and ends in a barrier. Items are claimed one at a time from a counter, so a core that
//! another process has taken holds up no more than the item it is working on. The barrier spins briefly (a phase of a
//! decode step ends within microseconds everywhere) and then parks, so that threads waiting for a core that was taken
//! away do not burn the others.
//!
//! A member that fails or panics poisons the barrier: the others leave at their next wait, and the region returns the
//! first real error.

use crate::{Error, Result, Step, Watch};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use std::sync::{Condvar, LockResult, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How often a waiting member looks before it parks: some tens of microseconds.
const SPINS: usize = 1000;

/// The threads.
#[derive(Debug)]
pub(crate) struct Team {
    /// The members beside the calling thread; none for a team of one.
    pool: Option<rayon::ThreadPool>,
    /// One region at a time: members of two regions interleaved on the same threads would wait for each other for ever.
    region: Mutex<()>,
}

impl Team {
    /// A team of `threads`, the calling thread included.
    pub(crate) fn new(threads: usize) -> Result<Team> {
        let pool = (threads > 1)
            .then(|| rayon::ThreadPoolBuilder::new().num_threads(threads - 1).build())
            .transpose()
            .map_err(|e| Error::Cpu(format!("cannot start {threads} threads: {e}")))?;
        Ok(Team { pool, region: Mutex::new(()) })
    }

    /// Members of the team.
    pub(crate) fn threads(&self) -> usize {
        1 + self.pool.as_ref().map_or(0, rayon::ThreadPool::current_num_threads)
    }

    /// Runs `body` once on every member at the same time and gives what each returned, by index. `watch` hears where they
    /// are.
    ///
    /// # Errors
    /// The first error of a member, or [`Error::Thread`] if one panicked.
    pub(crate) fn run<T: Send>(
        &self,
        watch: Option<&dyn Watch>,
        body: impl Fn(&Member<'_>) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let _region = lock(&self.region);
        let barrier = Barrier::new(self.threads());
        let results: Vec<Mutex<Option<Result<T>>>> = (0..self.threads()).map(|_| Mutex::new(None)).collect();
        let member = |index: usize| {
            let member = Member { index, barrier: &barrier, watch };
            let result = catch_unwind(AssertUnwindSafe(|| body(&member)))
                .unwrap_or_else(|panic| Err(Error::Thread(message(&*panic))));
            if result.is_err() {
                barrier.poison();
            }
            *lock(&results[index]) = Some(result);
        };
        match &self.pool {
            None => member(0),
            Some(pool) => pool.in_place_scope(|scope| {
                scope.spawn_broadcast(|_, context| member(context.index() + 1));
                member(0);
            }),
        }
        let results = results.into_iter().map(|slot| {
            let result = slot.into_inner().unwrap_or_else(PoisonError::into_inner);
            result.unwrap_or_else(|| Err(Error::Thread("a member never ran".to_string())))
        });
        collect(results)
    }
}

/// All values, or the error that is not only a consequence of another's.
fn collect<T>(results: impl Iterator<Item = Result<T>>) -> Result<Vec<T>> {
    let mut values = Vec::new();
    let mut first: Option<Error> = None;
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(error) => {
                let consequence = |error: &Error| matches!(error, Error::Thread(text) if text == ABANDONED);
                if first.as_ref().is_none_or(|first| consequence(first) && !consequence(&error)) {
                    first = Some(error);
                }
            }
        }
    }
    first.map_or(Ok(values), Err)
}

/// What a member says that left because another failed.
const ABANDONED: &str = "another thread failed first";

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "unknown panic".to_string())
}

/// Locks, whether or not a thread panicked with the lock in its hands: the region it belonged to has failed then, and what it
/// wrote is never looked at.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As [`lock`], for reading.
pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// As [`lock`], for writing.
pub(crate) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// What a lock guards, for who owns the lock: nothing is locked.
pub(crate) fn own<T>(guarded: LockResult<&mut T>) -> &mut T {
    guarded.unwrap_or_else(PoisonError::into_inner)
}

/// One thread inside a region.
pub(crate) struct Member<'a> {
    index: usize,
    barrier: &'a Barrier,
    watch: Option<&'a dyn Watch>,
}

impl Member<'_> {
    /// 0 for the calling thread, then 1, 2, ...
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Says that this member begins its share of a step, which ends with the next [`Member::phase`] or [`Member::end`].
    pub(crate) fn begin(&self, step: Step) {
        if let Some(watch) = self.watch {
            watch.begin(self.index, step);
        }
    }

    /// Says that a step without a phase is over.
    pub(crate) fn end(&self) {
        if let Some(watch) = self.watch {
            watch.done(self.index);
            watch.left(self.index);
        }
    }

    /// Shares `items` among the members: each index goes to one of them, in ascending order of claiming. Returns when
    /// all are done. Every member must come here with the same number.
    ///
    /// # Errors
    /// Another member failed.
    pub(crate) fn phase(&self, items: usize, mut work: impl FnMut(usize) -> Result<()>) -> Result<()> {
        loop {
            let item = self.barrier.claims.fetch_add(1, Relaxed);
            if item >= items {
                break;
            }
            work(item)?;
        }
        if let Some(watch) = self.watch {
            watch.done(self.index);
        }
        self.barrier.wait()?;
        if let Some(watch) = self.watch {
            watch.left(self.index);
        }
        Ok(())
    }
}

/// A barrier that can be used again and again, with the counter of claimed items. Aligned so that the two words that all
/// members write do not share a cache line with the one that they watch.
#[derive(Debug)]
struct Barrier {
    members: usize,
    claims: Padded<AtomicUsize>,
    arrived: Padded<AtomicUsize>,
    generation: Padded<AtomicUsize>,
    poisoned: AtomicBool,
    parked: Mutex<usize>,
    released: Condvar,
}

/// On its own pair of cache lines (adjacent lines are fetched together).
#[repr(align(128))]
#[derive(Debug)]
struct Padded<T>(T);

impl<T> std::ops::Deref for Padded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl Barrier {
    fn new(members: usize) -> Barrier {
        Barrier {
            members,
            claims: Padded(AtomicUsize::new(0)),
            arrived: Padded(AtomicUsize::new(0)),
            generation: Padded(AtomicUsize::new(0)),
            poisoned: AtomicBool::new(false),
            parked: Mutex::new(0),
            released: Condvar::new(),
        }
    }

    /// Waits until every member has come.
    fn wait(&self) -> Result<()> {
        let generation = self.generation.load(Acquire);
        if self.arrived.fetch_add(1, AcqRel) + 1 == self.members {
            // Nobody claims now: everyone has come, and nobody has left.
            self.claims.store(0, Relaxed);
            self.arrived.store(0, Relaxed);
            self.generation.store(generation + 1, Release);
            self.wake();
        } else if !self.spin(generation) {
            let mut parked = lock(&self.parked);
            *parked += 1;
            while self.generation.load(Acquire) == generation && !self.poisoned.load(Acquire) {
                parked = self.released.wait(parked).unwrap_or_else(PoisonError::into_inner);
            }
            *parked -= 1;
        }
        // A member that was released and then finds poison must not go on: a later wait would never end.
        if self.poisoned.load(Acquire) { Err(Error::Thread(ABANDONED.to_string())) } else { Ok(()) }
    }

    /// Whether the wait ended while spinning.
    fn spin(&self, generation: usize) -> bool {
        for _ in 0..SPINS {
            if self.generation.load(Acquire) != generation || self.poisoned.load(Acquire) {
                return true;
            }
            std::hint::spin_loop();
        }
        false
    }

    /// Wakes the parked. They look at the generation under the lock, so whoever has not counted itself yet will see it.
    fn wake(&self) {
        if *lock(&self.parked) > 0 {
            self.released.notify_all();
        }
    }

    fn poison(&self) {
        self.poisoned.store(true, Release);
        self.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_of_every_phase_is_done_once_and_before_the_next_phase() {
        for threads in [1, 2, 3, 8] {
            let team = Team::new(threads).unwrap();
            assert_eq!(team.threads(), threads);
            let cells: Vec<AtomicUsize> = (0..100).map(|_| AtomicUsize::new(0)).collect();
            let sizes = [0, 1, 7, 100];
            let all = team.run(None, |member| {
                for phase in 0..50 {
                    member.phase(sizes[phase % 4], |i| {
                        cells[i].fetch_add(1, Relaxed);
                        Ok(())
                    })?;
                    for (i, cell) in cells.iter().enumerate() {
                        let expected = (0..=phase).filter(|p| sizes[p % 4] > i).count();
                        assert_eq!(cell.load(Relaxed), expected, "item {i} after phase {phase}");
                    }
                    // Nobody begins the next phase while another still looks.
                    member.phase(0, |_| Ok(()))?;
                }
                Ok(member.index())
            });
            assert_eq!(all.unwrap(), (0..threads).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_failing_member_stops_the_others_and_its_error_is_returned() {
        let team = Team::new(3).unwrap();
        for culprit in 0..3 {
            let error = team
                .run(None, |member| {
                    for _ in 0..10 {
                        member.phase(5, |_| Ok(()))?;
                        if member.index() == culprit {
                            return Err(Error::Input("the culprit".to_string()));
                        }
                    }
                    Ok(())
                })
                .unwrap_err();
            assert!(matches!(&error, Error::Input(text) if text == "the culprit"), "{error}");
        }
        assert!(team.run(None, |_| Ok(())).is_ok(), "the team can be used again");
    }

    #[test]
    fn a_panicking_member_becomes_an_error() {
        let team = Team::new(2).unwrap();
        let error = team.run(None, |member| member.phase(8, |i| if i == 3 { panic!("item three") } else { Ok(()) }));
        assert!(error.unwrap_err().to_string().contains("item three"));
        assert!(team.run(None, |member| member.phase(8, |_| Ok(()))).is_ok());
    }

    #[test]
    fn regions_started_from_several_threads_take_turns() {
        let team = Team::new(2).unwrap();
        let count = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        team.run(None, |member| {
                            member.phase(3, |_| {
                                count.fetch_add(1, Relaxed);
                                Ok(())
                            })
                        })
                        .unwrap();
                    }
                });
            }
        });
        assert_eq!(count.load(Relaxed), 4 * 50 * 3);
    }
}
