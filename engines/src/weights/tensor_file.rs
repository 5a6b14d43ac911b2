//! One file of tensors, of whatever format.

use super::Source;
use super::map::Map;
use super::rwkv_cpp::{self, RwkvCpp};
use super::safetensors::{self, Files};
use super::torch::{self, Torch};
use crate::{Error, Result};
use std::path::Path;
use std::sync::Arc;

/// The tensors of one file: a checkpoint of PyTorch (its zip form), a model of rwkv.cpp or a safetensors file. Which of them
/// it is, its first bytes tell.
pub struct TensorFile {
    source: Box<dyn Source + Send>,
    rwkv_cpp: bool,
}

impl TensorFile {
    /// Maps a file and reads what it says of its tensors; their numbers are read when they are asked for.
    ///
    /// # Errors
    /// A file that cannot be read, or that is damaged or of another kind.
    pub fn open(path: impl AsRef<Path>) -> Result<TensorFile> {
        let path = path.as_ref();
        TensorFile::new(&path.display().to_string(), Map::open(path)?)
    }

    /// The same for a file's bytes, called `place` in errors.
    ///
    /// # Errors
    /// As [`open`](TensorFile::open).
    pub fn from_bytes(place: &str, bytes: &[u8]) -> Result<TensorFile> {
        TensorFile::new(place, Map::copy(bytes))
    }

    /// The tensors of a file, if its first bytes are those of a format for tensors; none for a file of another kind.
    pub(crate) fn open_if_one(path: &Path) -> Result<Option<TensorFile>> {
        let map = Map::open(path)?;
        let one = torch::is_torch(&map) || rwkv_cpp::is_rwkv_cpp(&map) || safetensors::is_safetensors(&map);
        one.then(|| TensorFile::new(&path.display().to_string(), map)).transpose()
    }

    fn new(place: &str, map: Arc<Map>) -> Result<TensorFile> {
        let rwkv_cpp = rwkv_cpp::is_rwkv_cpp(&map);
        Ok(TensorFile { source: source(place, map)?, rwkv_cpp })
    }

    /// Whether it is a model of rwkv.cpp.
    pub(crate) fn is_rwkv_cpp(&self) -> bool {
        self.rwkv_cpp
    }

    /// The names of all tensors in alphabetical order.
    pub fn names(&self) -> Vec<String> {
        self.source.names()
    }

    /// The shape of a tensor, where there is one of this name.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.source.shape(name)
    }

    /// All numbers of a tensor in the order of their indices.
    ///
    /// # Errors
    /// A tensor that is missing, is not of floats, or holds NaN or infinities.
    pub fn read(&self, name: &str) -> Result<Vec<f32>> {
        let count = self.shape(name).and_then(|shape| shape.iter().try_fold(1usize, |n, axis| n.checked_mul(*axis)));
        let count = count.ok_or_else(|| Error::tensor(self.source.place(), name, "missing"))?;
        self.source.flat(name, count)
    }

    /// What models are built from.
    pub(crate) fn source(&self) -> &dyn Source {
        &*self.source
    }
}

/// The tensors of a file, called `place` in errors.
fn source(place: &str, map: Arc<Map>) -> Result<Box<dyn Source + Send>> {
    if torch::is_torch(&map) {
        return Ok(Box::new(Torch::new(place, map)?));
    }
    if rwkv_cpp::is_rwkv_cpp(&map) {
        return Ok(Box::new(RwkvCpp::new(place, map)?));
    }
    Ok(Box::new(Files::from_map(place, map)?))
}
