//! Hugging Face folders: model.safetensors, or its shards with an index.

use super::dense::{Dense, Format};
use super::map::Map;
use super::tensor::Tensor;
use super::{Source, TernaryForm, index, quantised};
use crate::{Error, Result};
use kernels::ternary::TernaryMatrix;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, SafeTensors};
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// The tensors of one or several files.
#[derive(Debug)]
pub(crate) struct Files {
    place: String,
    shards: Vec<Shard>,
    /// Which shard holds a tensor.
    index: HashMap<String, usize>,
}

#[derive(Debug)]
struct Shard {
    file: String,
    map: Arc<Map>,
    /// Where the tensors' bytes begin.
    data: usize,
    metadata: Metadata,
}

/// What safetensors files are called in folders: the only one, or the index of several.
pub(crate) const FILE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// Whether bytes are meant to be a safetensors file: the length of its header, which is never large, and the header.
pub(crate) fn is_safetensors(bytes: &[u8]) -> bool {
    bytes.get(4..9) == Some(b"\0\0\0\0{")
}

impl Shard {
    fn new(file: String, map: Arc<Map>) -> Result<Shard> {
        let (header, metadata) =
            SafeTensors::read_metadata(&map).map_err(|e| Error::format(&file, not_safetensors(&map, &e)))?;
        Ok(Shard { file, map, data: 8 + header, metadata })
    }
}

/// Why some bytes are not a safetensors file: with the size that the header asks for, where that is what is wrong.
fn not_safetensors(bytes: &[u8], problem: &impl std::fmt::Display) -> String {
    let found = bytes.len() as u64;
    match promised_bytes(bytes) {
        Some(expected) if expected != found => {
            format!("expected {expected} bytes, as its header says, found {found}: {problem}")
        }
        _ => format!("{found} bytes that are not a safetensors file: {problem}"),
    }
}

/// The size of a file, as far as its first bytes tell: the header's, or where the last tensor ends.
fn promised_bytes(bytes: &[u8]) -> Option<u64> {
    let Some(length) = bytes.first_chunk::<8>() else { return Some(8) };
    let header = u64::from_le_bytes(*length);
    let data = header.checked_add(8)?;
    let Some(text) = bytes.get(8..usize::try_from(data).ok()?) else { return Some(data) };
    let json: serde_json::Value = serde_json::from_slice(text).ok()?;
    let ends = json.as_object()?.values().filter_map(|tensor| tensor["data_offsets"][1].as_u64());
    data.checked_add(ends.max()?)
}

impl Files {
    /// The tensors of a folder.
    pub(crate) fn open(folder: &Path) -> Result<Files> {
        let place = folder.display().to_string();
        let single = folder.join(FILE);
        if single.exists() {
            let shard = Shard::new(single.display().to_string(), Map::open(&single)?)?;
            return Ok(Files::single(place, shard));
        }
        let path = folder.join(INDEX);
        let open = |path: &Path| Shard::new(path.display().to_string(), Map::open(path)?);
        let (shards, index) = index::open(&path, open, |shard, tensor| shard.metadata.info(tensor).is_some())?;
        Ok(Files { place, shards, index })
    }

    /// The tensors of one file's bytes.
    pub(crate) fn from_bytes(place: &str, bytes: &[u8]) -> Result<Files> {
        Files::from_map(place, Map::copy(bytes))
    }

    /// The tensors of one file.
    pub(crate) fn from_map(place: &str, map: Arc<Map>) -> Result<Files> {
        Ok(Files::single(place.to_string(), Shard::new(place.to_string(), map)?))
    }

    fn single(place: String, shard: Shard) -> Files {
        let index = shard.metadata.offset_keys().into_iter().map(|name| (name, 0)).collect();
        Files { place, shards: vec![shard], index }
    }

    /// A tensor's file, type, shape and bytes.
    fn find(&self, name: &str) -> Result<Found<'_>> {
        let shard = self.index.get(name).map(|shard| &self.shards[*shard]);
        let info = shard.and_then(|shard| Some((shard, shard.metadata.info(name)?)));
        let Some((shard, info)) = info else { return Err(Error::tensor(&self.place, name, "missing")) };
        let range = shard.data + info.data_offsets.0..shard.data + info.data_offsets.1;
        Ok(Found {
            file: &shard.file,
            map: &shard.map,
            name: name.to_string(),
            dtype: info.dtype,
            shape: &info.shape,
            range,
        })
    }
}

/// A tensor as it lies in its file.
struct Found<'a> {
    file: &'a str,
    map: &'a Arc<Map>,
    name: String,
    dtype: Dtype,
    shape: &'a [usize],
    range: Range<usize>,
}

impl Found<'_> {
    fn wrong(&self, problem: impl ToString) -> Error {
        Error::tensor(self.file, &self.name, problem)
    }

    fn expect_shape(&self, expected: &[usize]) -> Result<()> {
        if self.shape == expected {
            return Ok(());
        }
        Err(self.wrong(format!("expected shape {expected:?}, found {:?}", self.shape)))
    }

    fn format(&self) -> Result<Format> {
        match self.dtype {
            Dtype::F32 => Ok(Format::F32),
            Dtype::BF16 => Ok(Format::Bf16),
            Dtype::F16 => Ok(Format::F16),
            other => Err(self.wrong(format!("expected type F32, BF16 or F16, found {other}"))),
        }
    }

    /// The numbers, if they are floats.
    fn tensor(&self) -> Result<Tensor> {
        let format = self.format()?;
        let count = self.range.len() / format.bytes();
        let numbers = Dense::mapped(self.map, self.range.clone(), format, 1, count);
        Ok(Tensor::new(self.file, &self.name, self.shape.to_vec(), numbers))
    }
}

impl Source for Files {
    fn vector(&self, name: &str, width: usize) -> Result<Vec<f32>> {
        self.find(name)?.tensor()?.vector(width)
    }

    fn flat(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        self.find(name)?.tensor()?.flat(len)
    }

    fn dense(&self, name: &str, rows: usize, cols: usize) -> Result<Dense> {
        self.find(name)?.tensor()?.dense(rows, cols)
    }

    fn dense_transposed(&self, name: &str, rows: usize, cols: usize) -> Result<Dense> {
        self.find(name)?.tensor()?.dense_transposed(rows, cols)
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        Some(self.find(name).ok()?.shape.to_vec())
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.index.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    fn ternary(&self, name: &str, rows: usize, cols: usize, form: TernaryForm) -> Result<(TernaryMatrix, f64)> {
        if form == TernaryForm::Master {
            let weights = self.dense(name, rows, cols)?;
            if let Some((r, c, value)) = weights.not_finite(0..rows) {
                return Err(self.find(name)?.wrong(format!("the weight at row {r}, column {c} is {value}")));
            }
            return Ok(quantised::absmean(&weights));
        }
        let found = self.find(name)?;
        if found.dtype != Dtype::U8 {
            return Err(found.wrong(format!("expected type U8 (packed ternary weights), found {}", found.dtype)));
        }
        if !rows.is_multiple_of(4) {
            return Err(found.wrong(format!("{rows} rows cannot be packed: expected a multiple of 4")));
        }
        found.expect_shape(&[rows / 4, cols])?;
        let matrix = quantised::unpack(&found.map[found.range.clone()], rows, cols).map_err(|(r, c)| {
            found.wrong(format!("the byte at row {r}, column {c} holds the code 3: expected 0, 1 or 2"))
        })?;
        Ok((matrix, self.factor(&format!("{name}_scale"), form)?))
    }

    fn place(&self) -> String {
        self.place.clone()
    }

    fn check_names(&self, known: &dyn Fn(&str) -> bool) -> Result<()> {
        super::check_known(&self.place, self.index.keys(), known)
    }
}

impl Files {
    /// What a packed matrix's products are multiplied by.
    fn factor(&self, name: &str, form: TernaryForm) -> Result<f64> {
        let found = self.find(name)?;
        if !matches!(found.shape, [] | [1]) {
            return Err(found.wrong(format!("expected one number, found shape {:?}", found.shape)));
        }
        let scale = found.tensor()?.first();
        if !(scale.is_finite() && scale > 0.0) {
            return Err(found.wrong(format!("expected a number above 0, found {scale}")));
        }
        Ok(if form == TernaryForm::Divided { 1.0 / f64::from(scale) } else { f64::from(scale) })
    }
}
