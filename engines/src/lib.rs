//! Models that read tokens.
//!
//! Three things are never mixed: **weights** (immutable, shared), **state** (what one sequence has left behind) and
//! **decoding** (choosing the next token). A [`LanguageModel`] reads [`Segment`]s of tokens after whatever their
//! [`State`]s have read and answers with [`Logits`]; everything else is built on that one call.
//!
//! * [`load()`] turns a [`Spec`] (a Hugging Face folder, a llama2.c file, or `synthetic:SHAPE[:SEED]`) into a model.
//! * [`TensorFile`] looks into one file of weights: safetensors, PyTorch's, rwkv.cpp's.
//! * [`Cpu`] is the table of kernels and the threads; neither it nor the batching ever changes a bit of the logits.
//! * [`decode::generate`] is the decoding loop, [`sample::Sampler`] chooses.
//!
//! No clock, no printing. The only `unsafe` is the memory map of a file, in one module.
//!
//! # Glossary
//! T tokens, V vocabulary, D model width, E inner width, H heads, K head width, L layers, `R × C` a matrix (rows ×
//! columns). Products are `[R, T]`, everything else is `[T, ...]`, row-major.

mod cache;
mod config;
mod cpu;
pub mod decode;
mod error;
mod exchange;
mod linear;
mod llama2c;
mod load;
mod model;
mod models;
mod nucleus;
mod pass;
mod plan;
mod recurrent;
mod rope;
pub mod sample;
mod shapes;
mod state;
mod team;
mod tokenizer;
mod watch;
mod weights;
mod world;

pub use cpu::{CacheFormat, Cpu, DensePacking, Packing, Settings};
pub use error::{Error, Result};
pub use load::{Loaded, Spec, load, load_from_memory};
pub use model::{
    ARCHITECTURES, Architecture, Facts, Inspect, LanguageModel, Logits, Model, Remembered, Segment, Token, Trace, Want,
};
pub use shapes::{NamedShape, SHAPES};
pub use state::State;
pub use tokenizer::{TextStream, Tokenizer};
pub use watch::{Step, StepCost, StepKind, Watch};
pub use weights::tensor_file::TensorFile;
