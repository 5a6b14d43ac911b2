//! What a model runs on, as it is said on the command line: threads, ISA level, cache format.

use anyhow::Result;
use engines::{CacheFormat, Cpu, DensePacking, Packing, Settings};
use kernels::Isa;
use kernels::ternary::Layout;

use crate::cli::UserError;
use crate::machine::Machine;

/// Flags of every command that runs a model.
#[derive(Clone, Debug, clap::Args)]
pub struct Compute {
    /// Threads to compute with [default: one for each physical core]
    #[arg(long, short = 't', value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
    /// ISA level of the kernels: scalar, avx2 or avx512 [default: RYZANSTEIN_ISA, else the best that this CPU has]
    #[arg(long, value_name = "LEVEL", value_parser = isa)]
    pub isa: Option<Isa>,
    /// How the key/value cache is kept: f32 or bf16
    #[arg(long, value_name = "FORMAT", default_value = "f32", value_parser = cache)]
    pub cache: CacheFormat,
    /// How ternary weights are packed: see `harness list` [default: i2]
    #[arg(long, value_name = "LAYOUT", default_value_t = Layout::I2)]
    pub layout: Layout,
    /// How the head is packed: stored (as in the files), or rounded to q8 or q4
    #[arg(long, value_name = "FORMAT", default_value_t = DensePacking::Stored)]
    pub head: DensePacking,
    /// How dense linear layers are packed: stored, q8 or q4
    #[arg(long, value_name = "FORMAT", default_value_t = DensePacking::Stored)]
    pub dense: DensePacking,
}

impl Compute {
    /// The settings of a model, with defaults filled in.
    ///
    /// # Errors
    /// [`UserError`] where the environment names a level that this CPU lacks; threads that cannot be started.
    pub fn settings(&self) -> Result<Settings> {
        let packing = Packing { ternary: self.layout, dense: self.dense, head: self.head };
        settings(self.isa, self.threads, self.cache, packing)
    }
}

/// Settings from what was asked for; the defaults are the best level and a thread for each physical core.
///
/// # Errors
/// As [`Compute::settings`].
pub fn settings(isa: Option<Isa>, threads: Option<usize>, cache: CacheFormat, packing: Packing) -> Result<Settings> {
    let isa = match isa {
        Some(isa) => isa,
        None => Isa::from_environment()?,
    };
    let threads = threads.unwrap_or_else(default_threads);
    Ok(Settings { cpu: Cpu::new(isa, threads)?, cache, packing })
}

/// One thread for each physical core: a second thread on a core shares its memory bandwidth and its multipliers.
pub fn default_threads() -> usize {
    let machine = Machine::read();
    machine.cores.unwrap_or(machine.threads).clamp(1, machine.threads.max(1))
}

/// The most threads that make sense here: more would only wait for each other.
fn most_threads() -> usize {
    4 * std::thread::available_parallelism().map_or(1, usize::from).max(4)
}

/// Reads a number of threads.
///
/// # Errors
/// A sentence for anything but 1 to four times the machine's threads (at least 16).
pub fn threads(text: &str) -> Result<usize, String> {
    let most = most_threads();
    match text.parse() {
        Ok(threads) if (1..=most).contains(&threads) => Ok(threads),
        _ => Err(format!("expected 1 to {most} threads on this machine")),
    }
}

/// Reads an ISA level that this CPU has.
///
/// # Errors
/// A sentence for an unknown level or one that this CPU lacks.
pub fn isa(text: &str) -> Result<Isa, String> {
    text.parse::<Isa>().and_then(Isa::require).map_err(|error| error.to_string())
}

/// Reads a cache format.
///
/// # Errors
/// A sentence for anything but `f32` and `bf16`.
pub fn cache(text: &str) -> Result<CacheFormat, String> {
    let known = [CacheFormat::F32, CacheFormat::Bf16];
    known
        .into_iter()
        .find(|format| format.to_string() == text)
        .ok_or_else(|| "expected a cache format: f32 or bf16".to_string())
}

/// Reads a whole number of at least 1.
///
/// # Errors
/// A sentence for anything else.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "expected a whole number of at least 1".to_string())
}

/// A model that cannot be had because of what was asked: tells the user's mistakes (a name, a shape, a flag) from files
/// and machines that fail.
pub fn user_or_failure(error: engines::Error) -> anyhow::Error {
    match error {
        engines::Error::Spec(_) | engines::Error::Cpu(_) | engines::Error::Sample(_) => {
            UserError::new(error.to_string())
        }
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_or_refused_with_what_is_expected() {
        assert_eq!(threads("1"), Ok(1));
        for bad in ["0", "-1", "two", "1000000000000", ""] {
            assert!(threads(bad).unwrap_err().contains("expected 1 to"), "{bad}");
        }
        assert_eq!(isa("scalar"), Ok(Isa::Scalar));
        assert!(isa("sse9").unwrap_err().contains("sse9"));
        assert_eq!(cache("bf16"), Ok(CacheFormat::Bf16));
        assert!(cache("f16").unwrap_err().contains("f32 or bf16"));
        assert!(at_least_one("0").is_err() && at_least_one("7") == Ok(7));
    }

    #[test]
    fn the_default_is_at_least_one_thread_and_no_more_than_there_are() {
        let all = std::thread::available_parallelism().map_or(1, usize::from);
        assert!((1..=all).contains(&default_threads()));
    }
}
