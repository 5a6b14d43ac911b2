//! The machine's ceilings, measured in the same run as everything that is held to them: read bandwidth by place (level 1
//! cache, level 2 cache, memory), number of streams and number of threads; arithmetic peaks by ISA and number of threads.

use std::hint::black_box;

use anyhow::Result;
use kernels::memory::Purpose;
use kernels::probe::Arithmetic;
use kernels::{Kernels, Lines};
use serde::{Deserialize, Serialize};

use crate::contest::{self, Budget, contest};
use crate::crew::with_crew;
use crate::machine::Machine;
use crate::quantity::Timed;

/// A measured speed may lie above a measured ceiling by this share before it counts as a bug: both are medians of noisy
/// samples, and the ceiling's loop is not perfect either.
pub const MARGIN: f64 = 0.10;

/// The numbers of streams that are tried.
pub const STREAMS: [usize; 3] = [1, 8, 16];

/// Where data lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Level 1 data cache.
    L1,
    /// Level 2 cache.
    L2,
    /// Main memory.
    Memory,
}

impl Place {
    /// Every place, nearest first.
    pub const ALL: [Place; 3] = [Place::L1, Place::L2, Place::Memory];

    /// Its name in a table.
    pub fn name(self) -> &'static str {
        match self {
            Place::L1 => "level 1 cache",
            Place::L2 => "level 2 cache",
            Place::Memory => "memory",
        }
    }

    /// How much each of `threads` threads reads to stay in this place: half a private cache, or far more than the last
    /// level.
    pub fn working_set_bytes(self, machine: &Machine, threads: usize) -> u64 {
        match self {
            Place::L1 => machine.cache_bytes(1).unwrap_or(32 << 10) / 2,
            Place::L2 => machine.cache_bytes(2).unwrap_or(512 << 10) / 2,
            Place::Memory => memory_bytes(machine, threads),
        }
    }
}

/// How much each of `threads` threads must walk through so that little of it is still in the last-level cache when its turn
/// comes again: together four times that cache and at least 256 MiB each, but never more than a quarter of the memory.
pub fn memory_bytes(machine: &Machine, threads: usize) -> u64 {
    let threads = threads.max(1) as u64;
    let wanted = (4 * machine.last_level_bytes() / threads).max(256 << 20);
    wanted.min(machine.memory_bytes.unwrap_or(8 << 30) / 4 / threads)
}

/// Read bandwidth of all threads together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// Where the data lay.
    pub place: Place,
    /// What each thread walked through.
    pub working_set_bytes: u64,
    /// Sequential streams that each thread read side by side.
    pub streams: usize,
    /// Threads that read at the same time, each its own data.
    pub threads: usize,
    /// 10^9 bytes a second, all threads together.
    pub gb_per_s: Timed,
}

/// Arithmetic peak of all threads together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peak {
    /// `int8` or `f32`.
    pub arithmetic: String,
    /// The ISA whose best multiply-add was used.
    pub isa: String,
    /// Threads at the same time.
    pub threads: usize,
    /// 10^9 operations a second, all threads together; a multiply-add is two.
    pub gops: Timed,
}

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    /// Bandwidths by place, streams and threads.
    pub bandwidths: Vec<Bandwidth>,
    /// Peaks by arithmetic, ISA and threads.
    pub peaks: Vec<Peak>,
}

/// The name of an arithmetic in rows and tables.
pub fn arithmetic_name(arithmetic: Arithmetic) -> &'static str {
    match arithmetic {
        Arithmetic::Int8 => "int8",
        Arithmetic::F32 => "f32",
    }
}

/// `len` lines that the calling thread has written, so that they are its own pages and not the one page of zeros that an
/// untouched allocation reads.
pub fn written_lines(bytes: u64) -> Lines {
    let mut lines = Lines::zeroed_for(Purpose::Measuring, (bytes / 64).max(1) as usize);
    for (i, line) in lines.iter_mut().enumerate() {
        line.0[0] = i as u8 | 1;
    }
    lines
}

/// Runs one of the machine's peak loops.
pub fn burst(kernels: &Kernels, arithmetic: Arithmetic, rounds: u64) -> u64 {
    let burst = match arithmetic {
        Arithmetic::Int8 => kernels.int8_peak(rounds),
        Arithmetic::F32 => kernels.f32_peak(rounds),
    };
    black_box(burst.checksum);
    burst.operations
}

impl Ceilings {
    /// Measures on 1 to `threads` threads (one, and all of them). `tick` is told what comes next.
    ///
    /// # Errors
    /// A measuring thread failed, for example for want of memory.
    pub fn measure(machine: &Machine, threads: &[usize], budget: &Budget, tick: &mut dyn FnMut(&str)) -> Result<Self> {
        let mut ceilings = Ceilings::default();
        for &threads in threads {
            for place in Place::ALL {
                tick(&format!("read bandwidth, {}, {threads} threads", place.name()));
                ceilings.bandwidths.extend(bandwidths(machine, place, threads, budget)?);
            }
            for arithmetic in [Arithmetic::Int8, Arithmetic::F32] {
                tick(&format!("{} peak, {threads} threads", arithmetic_name(arithmetic)));
                ceilings.peaks.extend(peaks(arithmetic, threads, budget)?);
            }
        }
        Ok(ceilings)
    }

    /// The highest bandwidth of a place on so many threads, whatever the number of streams.
    pub fn bandwidth(&self, place: Place, threads: usize) -> Option<&Bandwidth> {
        self.bandwidths
            .iter()
            .filter(|b| b.place == place && b.threads == threads)
            .max_by(|a, b| a.gb_per_s.median.total_cmp(&b.gb_per_s.median))
    }

    /// The highest peak of an arithmetic on so many threads, whatever the ISA: what the machine can do.
    pub fn peak(&self, arithmetic: &str, threads: usize) -> Option<&Peak> {
        self.peaks
            .iter()
            .filter(|p| p.arithmetic == arithmetic && p.threads == threads)
            .max_by(|a, b| a.gops.median.total_cmp(&b.gops.median))
    }
}

fn bandwidths(machine: &Machine, place: Place, threads: usize, budget: &Budget) -> Result<Vec<Bandwidth>> {
    let bytes = place.working_set_bytes(machine, threads);
    let kernels = Kernels::best();
    with_crew(
        threads,
        |_| written_lines(bytes),
        |lines, (streams, passes): (usize, u64)| {
            for _ in 0..passes {
                black_box(kernels.read(lines, streams));
            }
        },
        |crew| {
            let mut passes = [1; STREAMS.len()];
            for (passes, streams) in passes.iter_mut().zip(STREAMS) {
                *passes = contest::repetitions(budget, |n| crew.time((streams, n)))?;
            }
            let samples =
                contest(STREAMS.len(), budget, |i| Ok(crew.time((STREAMS[i], passes[i]))? / passes[i] as f64))?;
            let moved = threads as f64 * (bytes / 64 * 64) as f64;
            let row = |(i, streams)| Bandwidth {
                place,
                working_set_bytes: bytes,
                streams,
                threads,
                gb_per_s: samples.seconds(i).map(|seconds| moved / seconds / 1e9),
            };
            Ok(STREAMS.into_iter().enumerate().map(row).collect())
        },
    )
}

fn peaks(arithmetic: Arithmetic, threads: usize, budget: &Budget) -> Result<Vec<Peak>> {
    let tables: Vec<&'static Kernels> = Kernels::available().collect();
    with_crew(
        threads,
        |_| (),
        |(), (kernels, rounds): (&Kernels, u64)| {
            burst(kernels, arithmetic, rounds);
        },
        |crew| {
            let mut rounds = Vec::with_capacity(tables.len());
            for &kernels in &tables {
                rounds.push(contest::repetitions(budget, |n| crew.time((kernels, n)))?);
            }
            let samples = contest(tables.len(), budget, |i| Ok(crew.time((tables[i], rounds[i]))? / rounds[i] as f64))?;
            let row = |(i, kernels): (usize, &&'static Kernels)| {
                let operations = threads as f64 * burst(kernels, arithmetic, 1) as f64;
                Peak {
                    arithmetic: arithmetic_name(arithmetic).to_string(),
                    isa: kernels.isa().name().to_string(),
                    threads,
                    gops: samples.seconds(i).map(|seconds| operations / seconds / 1e9),
                }
            };
            Ok(tables.iter().enumerate().map(row).collect())
        },
    )
}

#[cfg(test)]
mod tests {
    use kernels::Isa;

    use super::*;

    const GLANCE: Budget = Budget { sample_ms: 0.05, min_blocks: 3, max_blocks: 3, seconds: 0.01, precision: 1.0 };

    fn small_machine() -> Machine {
        Machine { memory_bytes: Some(64 << 20), ..Machine::read() }
    }

    #[test]
    fn every_place_arithmetic_and_isa_is_measured() {
        let mut told = 0;
        let ceilings = Ceilings::measure(&small_machine(), &[1, 2], &GLANCE, &mut |_| told += 1).unwrap();
        assert_eq!(told, 2 * 5);
        assert_eq!(ceilings.bandwidths.len(), 2 * Place::ALL.len() * STREAMS.len());
        assert_eq!(ceilings.peaks.len(), 2 * 2 * Isa::available().len());
        for threads in [1, 2] {
            for place in Place::ALL {
                let best = ceilings.bandwidth(place, threads).unwrap();
                assert!(best.gb_per_s.median > 0.0 && best.gb_per_s.low <= best.gb_per_s.high);
            }
            assert!(ceilings.peak("int8", threads).unwrap().gops.median > 0.0);
        }
        assert_eq!(ceilings.peak("int8", 3), None);
    }

    #[test]
    fn working_sets_fit_their_place() {
        let machine = Machine { memory_bytes: Some(16 << 30), ..Machine::read() };
        let [l1, l2, memory] = Place::ALL.map(|place| place.working_set_bytes(&machine, 1));
        assert!(l1 <= l2 && l2 < memory);
        assert!(memory >= 4 * machine.last_level_bytes() || memory == 4 << 30);
        let pressed = Machine { memory_bytes: Some(1 << 30), ..machine };
        assert_eq!(memory_bytes(&pressed, 4), 64 << 20);
    }
}
