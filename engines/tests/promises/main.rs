//! What the engines promise, held against models that the tests write themselves.

mod bad_files;
mod decoding;
mod forms;
mod llama2c;
mod recurrent;
mod same_bits;
mod sampling;
mod screen;
mod tiny;
mod tokenizer;
mod watching;
