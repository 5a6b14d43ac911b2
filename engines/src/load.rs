//! From the name of a model to a model.

use crate::{Error, Model, Result, SHAPES, Settings, Tokenizer};
use std::path::PathBuf;
use std::sync::Arc;

/// What a model's name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    /// A Hugging Face folder: config.json, model.safetensors or its shards, and perhaps tokenizer.json.
    Folder(PathBuf),
    /// A checkpoint of llama2.c; its vocabulary (`tokenizer.bin` or `tok512.bin`) is looked for beside it.
    File(PathBuf),
    /// Random weights in a named shape: `synthetic:SHAPE[:SEED]`.
    Synthetic {
        /// A name in [`SHAPES`].
        shape: String,
        /// What the weights are a function of; 0 where none is given.
        seed: u64,
    },
}

impl Spec {
    /// Reads a name.
    ///
    /// # Errors
    /// A path that does not exist, an unknown shape or a seed that is not a number.
    pub fn parse(text: &str) -> Result<Spec> {
        let Some(rest) = text.strip_prefix("synthetic:") else {
            let path = PathBuf::from(text);
            return match std::fs::metadata(&path) {
                Ok(meta) if meta.is_dir() => Ok(Spec::Folder(path)),
                Ok(_) => Ok(Spec::File(path)),
                Err(e) => Err(Error::read(path, e)),
            };
        };
        let (shape, seed) = rest.split_once(':').unwrap_or((rest, "0"));
        let names: Vec<&str> = SHAPES.iter().map(|shape| shape.name).collect();
        if !names.contains(&shape) {
            return Err(Error::Spec(format!(
                "unknown shape '{shape}' in '{text}': expected one of {}",
                names.join(", ")
            )));
        }
        let seed = seed.parse().map_err(|_| {
            Error::Spec(format!("'{seed}' in '{text}' is not a seed: expected a whole number below 2^64"))
        })?;
        Ok(Spec::Synthetic { shape: shape.to_string(), seed })
    }
}

/// A model ready to run.
pub struct Loaded {
    /// The model.
    pub model: Arc<dyn Model>,
    /// Its tokenizer, where it came with one.
    pub tokenizer: Option<Tokenizer>,
    /// A short name: the folder's or file's, or the spec itself.
    pub name: String,
}

/// Loads a model. `progress` hears how much is done, in bytes, now and then and at the end.
///
/// # Errors
/// Anything wrong with the files, in one sentence; a synthetic shape too large for this machine's memory.
pub fn load(spec: &Spec, settings: &Settings, progress: &dyn Fn(u64, u64)) -> Result<Loaded> {
    progress(0, 0);
    let _ = settings;
    Err(Error::Spec(format!("{spec:?} cannot be loaded yet")))
}

/// Builds a model from the bytes of config.json and of one safetensors file.
///
/// # Errors
/// As [`load`].
pub fn load_from_memory(config: &[u8], weights: &[u8], settings: &Settings) -> Result<Arc<dyn Model>> {
    let _ = settings;
    Err(Error::Spec(format!("{} bytes of config and {} of weights cannot be loaded yet", config.len(), weights.len())))
}
