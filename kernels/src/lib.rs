//! Numbers on slices: the kernels of language models on CPUs, each with a scalar specification and one variant per ISA.
//!
//! * [`Isa`] is a CPU generation, [`Kernels`] a table of the best variants for one of them. A table is a value that is
//!   passed down, so one process can run every ISA side by side.
//! * An op is a folder: its front door checks shapes once, its scalar file is the specification, its other files are
//!   variants that must give the same bits (or keep the tolerance that the op declares).
//! * [`probe::OPS`] lists every op; conformance, property tests, benchmarks and the kernel experiment all read that list.
//!
//! No I/O, no threads, no clock. Nothing here allocates while computing.
//!
//! # Glossary
//! T tokens, V vocabulary, D model width, E inner width, H heads, K head width, L layers, `R × C` a matrix (rows ×
//! columns). All matrices are row-major unless a packed type says otherwise. Results of a matrix product are `[R, T]`,
//! so that threads can split them by rows.

pub mod activation;
pub mod attention;
#[cfg(target_arch = "x86_64")]
mod blocking;
pub mod ceiling;
pub mod comparator;
pub mod conformance;
pub mod conv;
pub mod dense;
mod element;
pub mod embedding;
pub mod grouped;
mod isa;
mod lanes;
mod lines;
mod math;
pub mod memory;
pub mod mix;
pub mod norm;
mod pages;
pub mod probe;
pub mod quantise;
mod rng;
pub mod rope;
mod rows;
pub mod scan;
pub mod screen;
pub mod softmax;
#[cfg(target_arch = "x86_64")]
mod streams;
mod table;
pub mod ternary;
pub mod top_k;
pub mod transpose;
#[cfg(target_arch = "x86_64")]
mod widen;
pub mod wkv;

pub use element::{CacheElement, Element};
pub use isa::{ENVIRONMENT as ISA_ENVIRONMENT, Isa, IsaError};
pub use lines::{Line, Lines};
pub use pages::page_bytes;
pub use rng::Rng;
pub use rows::{Rows, RowsMut};
pub use table::Kernels;
