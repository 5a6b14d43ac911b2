//! Files as memory. The only `unsafe` of this crate.

use crate::{Error, Result};
use kernels::memory::{Purpose, Reservation};
use std::fs::File;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

/// Bytes that stay where they are: a mapped file, or a copy in memory.
#[derive(Debug)]
pub(crate) struct Map {
    bytes: Bytes,
    _memory: Reservation,
}

#[derive(Debug)]
enum Bytes {
    File(memmap2::Mmap),
    Memory(Vec<u8>),
}

impl Map {
    /// Maps a file; pages are read when they are touched.
    pub(crate) fn open(path: &Path) -> Result<Arc<Map>> {
        let file = File::open(path).map_err(|e| Error::read(path, e))?;
        let meta = file.metadata().map_err(|e| Error::read(path, e))?;
        if !meta.is_file() {
            return Err(Error::read(path, "not a file"));
        }
        if meta.len() == 0 {
            return Err(Error::format(path.display(), "the file is empty"));
        }
        // SAFETY: the map is read-only and private to this process's view. Its contract is that nobody truncates or rewrites
        // the file while it is mapped; model files are written once, and what is read from them is checked as data, never
        // trusted as structure after the check.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::read(path, e))?;
        let memory = Reservation::new(Purpose::Mapped, map.len());
        Ok(Arc::new(Map { bytes: Bytes::File(map), _memory: memory }))
    }

    /// Keeps a copy of `bytes`.
    pub(crate) fn copy(bytes: &[u8]) -> Arc<Map> {
        let memory = Reservation::new(Purpose::Weights, bytes.len());
        Arc::new(Map { bytes: Bytes::Memory(bytes.to_vec()), _memory: memory })
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::File(map) => map,
            Bytes::Memory(bytes) => bytes,
        }
    }
}
