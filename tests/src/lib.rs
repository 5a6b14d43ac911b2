//! Promises that cross crates, and what they are held to.
//!
//! * [`mod@reference`] is a plain f64 forward pass of every transformer that the engines run, and of Mamba-1 and 2 and
//!   RWKV-4 to 7: slow, obvious, with its own reading of the files. It is the oracle where no golden file exists, and is
//!   itself held to the golden files.
//! * [`parity`] holds the pass marks, and why they are what they are.
//! * [`recipe`] writes small random models in every published form, so that promises need no download.
//! * [`recurrent_recipe`] does the same for recurrent models.
//! * [`golden`] reads golden files and compares with them.
//! * [`upstream`] holds an engine or a reference to a golden model: logits, hidden states, greedy text.
//! * [`running`] runs engines the way promises do.
//! * [`external`] finds fixtures and datasets that lie outside the repository, and says so where they are missing.
//!
//! The promises themselves are the files in `tests/`, each test named as the sentence that it promises.

pub mod external;
pub mod golden;
pub mod parity;
pub mod recipe;
pub mod recurrent_recipe;
pub mod reference;
pub mod running;
pub mod tensors;
pub mod upstream;
