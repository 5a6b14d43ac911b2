//! What a model runs on.

use crate::team::{Member, Team};
use crate::{Error, Result, Watch};
use kernels::ternary::Layout;
use kernels::{Isa, Kernels, grouped};
use std::sync::Arc;

/// A table of kernels and the threads that call them. Cheap to clone: clones share the threads.
#[derive(Clone)]
pub struct Cpu {
    kernels: &'static Kernels,
    team: Arc<Team>,
    watch: Option<Arc<dyn Watch>>,
}

impl std::fmt::Debug for Cpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Cpu { kernels, team, watch } = self;
        let isa = kernels.isa();
        f.debug_struct("Cpu")
            .field("isa", &isa)
            .field("threads", &team.threads())
            .field("watched", &watch.is_some())
            .finish()
    }
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
        Ok(Cpu { kernels, team: Arc::new(Team::new(threads)?), watch: None })
    }

    /// The same threads, with `watch` hearing where they are in each forward pass.
    #[must_use]
    pub fn watched(&self, watch: Arc<dyn Watch>) -> Cpu {
        Cpu { watch: Some(watch), ..self.clone() }
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
        self.team.run(None, body)
    }

    /// One parallel region whose members say where they are, if anyone watches.
    pub(crate) fn watched_team<T: Send>(&self, body: impl Fn(&Member<'_>) -> Result<T> + Sync) -> Result<Vec<T>> {
        self.team.run(self.watch.as_deref(), body)
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

/// How weights are packed in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Packing {
    /// Of ternary matrices: the same numbers, and the same results bit for bit, in every layout.
    pub ternary: Layout,
    /// Of dense linear layers.
    pub dense: DensePacking,
    /// Of the head, which is dense in every model.
    pub head: DensePacking,
}

impl Default for Packing {
    /// Two bits a ternary weight, and all dense weights as they are stored: what the model's files say, to the bit.
    fn default() -> Packing {
        Packing { ternary: Layout::I2, dense: DensePacking::Stored, head: DensePacking::Stored }
    }
}

/// How dense weights are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DensePacking {
    /// In the numbers that the files hold.
    Stored,
    /// Rounded to integers, 32 of which share a scale ([`kernels::grouped`]), and multiplied by activations that are
    /// rounded likewise: fewer bytes, at a price in quality that the perplexity experiment states.
    Grouped(grouped::Layout),
}

impl DensePacking {
    /// Every way.
    pub const ALL: [DensePacking; 3] =
        [DensePacking::Stored, DensePacking::Grouped(grouped::Layout::Q8), DensePacking::Grouped(grouped::Layout::Q4)];
}

impl std::fmt::Display for DensePacking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            DensePacking::Stored => "stored",
            DensePacking::Grouped(layout) => layout.name(),
        })
    }
}

impl std::str::FromStr for DensePacking {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<DensePacking, String> {
        DensePacking::ALL.into_iter().find(|packing| packing.to_string() == text).ok_or_else(|| {
            let names = DensePacking::ALL.map(|packing| packing.to_string()).join(", ");
            format!("no packing of dense weights is called '{text}': expected one of {names}")
        })
    }
}

/// How a model is loaded and run. Threads, ISA and ternary layout change no bit of what it computes; the cache's format and the
/// packing of dense weights do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Kernels and threads.
    pub cpu: Cpu,
    /// How the key/value cache is kept.
    pub cache: CacheFormat,
    /// How a load packs weights; a model that is loaded keeps its own.
    pub packing: Packing,
}
