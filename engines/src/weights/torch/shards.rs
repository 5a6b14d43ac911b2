//! A checkpoint of PyTorch in several files, with an index beside them.

use super::Torch;
use crate::weights::index;
use crate::weights::map::Map;
use crate::weights::tensor::{Tensor, Tensors};
use crate::{Error, Result};
use std::collections::HashMap;
use std::path::Path;

/// The tensors of several files.
#[derive(Debug)]
pub(crate) struct Shards {
    place: String,
    files: Vec<Torch>,
    /// Which file holds a tensor.
    index: HashMap<String, usize>,
}

impl Shards {
    /// The tensors of the files that the index at `path` names.
    pub(crate) fn open(path: &Path) -> Result<Shards> {
        let open = |path: &Path| Torch::new(&path.display().to_string(), Map::open(path)?);
        let (files, index) = index::open(path, open, |file, tensor| file.tensors.contains_key(tensor))?;
        let place = path.parent().unwrap_or(path).display().to_string();
        Ok(Shards { place, files, index })
    }

    fn file_of(&self, name: &str) -> Option<&Torch> {
        self.index.get(name).map(|file| &self.files[*file])
    }
}

impl Tensors for Shards {
    fn file(&self) -> &str {
        &self.place
    }

    fn tensor(&self, name: &str) -> Result<Tensor> {
        match self.file_of(name) {
            Some(file) => file.tensor(name),
            None => Err(Error::tensor(&self.place, name, "missing")),
        }
    }

    fn shape_of(&self, name: &str) -> Option<&[usize]> {
        self.file_of(name)?.shape_of(name)
    }

    fn stored(&self) -> impl Iterator<Item = &String> {
        self.index.keys()
    }
}
