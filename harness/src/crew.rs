//! Threads that start together and are timed as one.
//!
//! Each thread makes its own data and keeps it (so pages lie near the core that reads them, and nothing is shared that
//! a kernel would not share). A command is carried out by all of them, started together behind a spinning gate; its time
//! runs from the first start to the last end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use anyhow::{Result, anyhow};

/// The handle that gives commands of type `C` to a crew.
pub struct Crew<C> {
    commands: Vec<Sender<(C, usize)>>,
    replies: Receiver<Reply>,
    /// Threads that have come to the gate of the present command.
    arrived: Arc<AtomicUsize>,
}

enum Reply {
    Ready,
    Done(Instant, Instant),
    Failed(String),
}

/// Runs `body` with a crew of `threads` threads, each holding what `make(thread)` returned in it and doing
/// `work(state, command)` for each command.
///
/// # Errors
/// What `body` returns, or that a thread failed while making its state.
pub fn with_crew<S, C, R>(
    threads: usize,
    make: impl Fn(usize) -> S + Sync,
    work: impl Fn(&mut S, C) + Sync,
    body: impl FnOnce(&mut Crew<C>) -> Result<R>,
) -> Result<R>
where
    C: Copy + Send,
{
    let arrived = Arc::new(AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let (reply, replies) = channel();
        let mut commands = Vec::with_capacity(threads);
        for thread in 0..threads {
            let (command, orders) = channel();
            commands.push(command);
            let (reply, make, work, arrived) = (reply.clone(), &make, &work, &arrived);
            scope.spawn(move || serve(thread, make, work, arrived, &orders, &reply));
        }
        drop(reply);
        let mut crew = Crew { commands, replies, arrived: arrived.clone() };
        crew.collect(threads)?;
        body(&mut crew)
    })
}

/// What one thread does until its orders end.
fn serve<S, C>(
    thread: usize,
    make: &impl Fn(usize) -> S,
    work: &impl Fn(&mut S, C),
    arrived: &AtomicUsize,
    orders: &Receiver<(C, usize)>,
    reply: &Sender<Reply>,
) {
    // A panic in a kernel is a bug that must end the run with a message, not leave the others waiting.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut state = make(thread);
        if reply.send(Reply::Ready).is_err() {
            return;
        }
        for (command, together) in orders {
            meet(arrived, together);
            let start = Instant::now();
            work(&mut state, command);
            if reply.send(Reply::Done(start, Instant::now())).is_err() {
                return;
            }
        }
    }));
    if let Err(cause) = outcome {
        let text = cause.downcast_ref::<String>().cloned();
        let text = text.or_else(|| cause.downcast_ref::<&str>().map(ToString::to_string));
        // Nobody is left to tell only when the run has ended anyway.
        let _ = reply.send(Reply::Failed(text.unwrap_or_else(|| "for a reason that it did not tell".to_string())));
    }
}

/// Waits until `threads` threads have come. Spins, since waking a sleeping thread takes longer than some of the work that
/// is timed; yields in between, since there may be fewer cores than threads.
fn meet(arrived: &AtomicUsize, threads: usize) {
    arrived.fetch_add(1, Ordering::AcqRel);
    let mut turns = 0u32;
    while arrived.load(Ordering::Acquire) < threads {
        turns += 1;
        if turns.is_multiple_of(4096) {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}

impl<C: Copy> Crew<C> {
    /// Has every thread carry out `command` once, and returns the seconds from the first start to the last end.
    ///
    /// # Errors
    /// A thread failed; the sentence says why.
    pub fn time(&mut self, command: C) -> Result<f64> {
        self.time_on(self.commands.len(), command)
    }

    /// As [`Crew::time`], but only the first `threads` threads carry it out; the others sleep.
    ///
    /// # Errors
    /// As [`Crew::time`].
    pub fn time_on(&mut self, threads: usize, command: C) -> Result<f64> {
        let threads = threads.clamp(1, self.commands.len());
        // All threads have left the gate: they have replied since.
        self.arrived.store(0, Ordering::Release);
        for orders in &self.commands[..threads] {
            // A thread that is gone has left its reason among the replies.
            let _ = orders.send((command, threads));
        }
        let times = self.collect(threads)?;
        let start = times.iter().map(|(start, _)| *start).min();
        let end = times.iter().map(|(_, end)| *end).max();
        match (start, end) {
            (Some(start), Some(end)) => Ok((end - start).as_secs_f64()),
            _ => Err(anyhow!("no thread carried out the work")),
        }
    }

    fn collect(&mut self, threads: usize) -> Result<Vec<(Instant, Instant)>> {
        let mut times = Vec::with_capacity(threads);
        for _ in 0..threads {
            match self.replies.recv() {
                Ok(Reply::Done(start, end)) => times.push((start, end)),
                Ok(Reply::Ready) => {}
                Ok(Reply::Failed(reason)) => {
                    return Err(anyhow!("a measuring thread stopped: {reason}"));
                }
                Err(_) => return Err(anyhow!("the measuring threads have ended")),
            }
        }
        Ok(times)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_thread_keeps_its_own_state_and_does_every_command() {
        let total = AtomicU64::new(0);
        let work = |state: &mut u64, add: u64| {
            *state += add;
            total.fetch_add(*state, Ordering::Relaxed);
        };
        with_crew(
            3,
            |thread| thread as u64 * 100,
            work,
            |crew| {
                crew.time(1)?;
                crew.time(1)
            },
        )
        .unwrap();
        assert_eq!(total.load(Ordering::Relaxed), 2 * 300 + 3 * (1 + 2));
    }

    #[test]
    fn some_threads_can_rest_while_others_work() {
        let total = AtomicU64::new(0);
        let work = |thread: &mut u64, ()| {
            total.fetch_add(1 << (8 * *thread), Ordering::Relaxed);
        };
        with_crew(
            3,
            |thread| thread as u64,
            work,
            |crew| {
                crew.time_on(1, ())?;
                crew.time_on(2, ())?;
                crew.time(())
            },
        )
        .unwrap();
        assert_eq!(total.load(Ordering::Relaxed), 0x01_02_03);
    }

    #[test]
    fn the_time_runs_from_the_first_start_to_the_last_end() {
        let slow = |thread: &mut u64, ()| std::thread::sleep(Duration::from_millis(10 + 20 * *thread));
        let seconds = with_crew(2, |thread| thread as u64, slow, |crew| crew.time(())).unwrap();
        assert!(seconds >= 0.030, "{seconds}");
    }

    #[test]
    fn a_failing_thread_ends_the_crew_with_its_reason() {
        let work = |_: &mut (), ()| panic!("shapes disagree");
        let error = with_crew(2, |_| (), work, |crew| crew.time(())).unwrap_err();
        assert_eq!(error.to_string(), "a measuring thread stopped: shapes disagree");
        let make = |thread| assert!(thread != 1, "no memory");
        let error = with_crew(2, make, |_: &mut (), ()| {}, |crew| crew.time(())).unwrap_err();
        assert!(error.to_string().contains("no memory"));
    }
}
