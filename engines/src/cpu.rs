//! What a model runs on.

use crate::team::{Member, Team};
use crate::{Error, Result};
use kernels::ternary::Layout;
use kernels::{Isa, Kernels};
use std::sync::Arc;

/// A table of kernels and the threads that call them. Cheap to clone: clones share the threads.
#[derive(Clone, Debug)]
pub struct Cpu {
    kernels: &'static Kernels,
    team: Arc<Team>,
}

/// The most threads that can be asked for: far above any machine, far below what would exhaust one.
const MAX_THREADS: usize = 1024;

impl Cpu {
    /// The kernels of a level, on `threads` threads (the calling one included).
    ///
    /// # Errors
    /// A level that this CPU lacks, no threads or more than 1024, or an operating system that refuses to start them.
    pub fn new(isa: Isa, threads: usize) -> Result<Cpu> {
        let isa = isa.require().map_err(|e| Error::Cpu(e.to_string()))?;
        let kernels = Kernels::for_isa(isa).ok_or_else(|| Error::Cpu(format!("this CPU has no {isa}")))?;
        if !(1..=MAX_THREADS).contains(&threads) {
            return Err(Error::Cpu(format!("{threads} threads: expected 1 to {MAX_THREADS}")));
        }
        Ok(Cpu { kernels, team: Arc::new(Team::new(threads)?) })
    }

    /// The table.
    pub fn kernels(&self) -> &'static Kernels {
        self.kernels
    }

    /// The number of threads, the calling one included.
    pub fn threads(&self) -> usize {
        self.team.threads()
    }

    /// One parallel region of `phases` phases in which every member claims one empty item: what handing over between threads
    /// costs a forward pass of so many phases (see [`Facts::decode_phases`](crate::Facts::decode_phases)) beside its work.
    ///
    /// # Errors
    /// None while the threads live.
    pub fn rehearse(&self, phases: usize) -> Result<()> {
        self.team(|member| (0..phases).try_for_each(|_| member.phase(self.threads(), |_| Ok(())))).map(|_| ())
    }

    /// One parallel region: see [`Team::run`].
    pub(crate) fn team<T: Send>(&self, body: impl Fn(&Member<'_>) -> Result<T> + Sync) -> Result<Vec<T>> {
        self.team.run(body)
    }
}

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheFormat {
    /// As computed.
    F32,
    /// Rounded to bf16: half the bytes.
    Bf16,
}

impl CacheFormat {
    /// Bytes to a number.
    pub fn bytes(self) -> usize {
        match self {
            CacheFormat::F32 => 4,
            CacheFormat::Bf16 => 2,
        }
    }
}

impl std::fmt::Display for CacheFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            CacheFormat::F32 => "f32",
            CacheFormat::Bf16 => "bf16",
        })
    }
}

/// How a model is loaded and run; nothing here changes what its weights mean, nor one bit of what it computes (a cache format
/// aside).
#[derive(Clone, Debug)]
pub struct Settings {
    /// Kernels and threads.
    pub cpu: Cpu,
    /// How the key/value cache is kept.
    pub cache: CacheFormat,
    /// How ternary weights are packed by a load; a model that is loaded keeps its own.
    pub layout: Layout,
}
