//! PyTorch's checkpoints: `.pth` and `pytorch_model.bin`, as `torch.save` has written them since version 1.6.
//!
//! The file is a zip archive of a pickle, which says what the tensors are called and where they lie, and of the storages they
//! lie in, uncompressed. The storages are used where they are, in the mapped file.
//!
//! Not done: checksums (the archive's directory is at its end, so a file that was cut short is found out anyway), views that
//! are neither in order nor transposed.

use super::dense::{Dense, Format};
use super::map::Map;
use super::pickle::{self, Kind, View, shorten};
use super::tensor::{Tensor, Tensors};
use crate::{Error, Result};
use rawzip::{CompressionMethod, ZipArchive};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

mod shards;

pub(crate) use shards::Shards;

/// What checkpoints are called in folders: the only file, or the index of several.
pub(crate) const FILE: &str = "pytorch_model.bin";
pub(crate) const INDEX: &str = "pytorch_model.bin.index.json";
/// What every zip archive of torch begins with.
const MAGIC: &[u8] = b"PK\x03\x04";
/// What files of older versions begin with: the number 0x1950a86a20f9469cfc6c, pickled.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

/// The tensors of one file.
#[derive(Debug)]
pub(crate) struct Torch {
    file: String,
    map: Arc<Map>,
    tensors: HashMap<String, Stored>,
}

/// A tensor as it lies in the file.
#[derive(Debug)]
struct Stored {
    kind: Kind,
    shape: Vec<usize>,
    strides: Vec<usize>,
    order: Order,
    /// From the first number to the last.
    range: Range<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// As the indices.
    Rows,
    /// The last two axes exchanged.
    Swapped,
    /// With gaps, repetitions, or other axes exchanged.
    Other,
}

/// Whether bytes are meant to be a checkpoint of torch, of whatever version.
pub(crate) fn is_torch(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC) || bytes.starts_with(LEGACY)
}

impl Torch {
    /// The tensors of a file, called `file` in errors.
    pub(crate) fn new(file: &str, map: Arc<Map>) -> Result<Torch> {
        let tensors = read(&map).map_err(|problem| Error::format(file, problem))?;
        Ok(Torch { file: file.to_string(), map, tensors })
    }

    fn find(&self, name: &str) -> Result<Tensor> {
        let wrong = |problem: String| Error::tensor(&self.file, name, problem);
        let stored = self.tensors.get(name).ok_or_else(|| wrong("missing".to_string()))?;
        let format = match stored.kind {
            Kind::Float => Format::F32,
            Kind::Half => Format::F16,
            Kind::BFloat16 => Format::Bf16,
            other => {
                let found = other.name();
                return Err(wrong(format!("expected type Float, Half or BFloat16, found {found}")));
            }
        };
        let count = stored.range.len() / format.bytes();
        if count == 0 {
            return Err(wrong("holds no numbers".to_string()));
        }
        let numbers = || Dense::mapped(&self.map, stored.range.clone(), format, 1, count);
        match stored.order {
            Order::Rows => Ok(Tensor::new(&self.file, name, stored.shape.clone(), numbers())),
            Order::Swapped => Ok(Tensor::swapped(&self.file, name, stored.shape.clone(), numbers())),
            Order::Other => Err(wrong(format!(
                "a view of shape {:?} with steps {:?}: expected numbers in order; save it again with .contiguous()",
                stored.shape, stored.strides
            ))),
        }
    }
}

/// The archive's entries by name, each the range of its bytes.
type Entries = HashMap<Vec<u8>, Range<usize>>;

fn read(bytes: &[u8]) -> std::result::Result<HashMap<String, Stored>, String> {
    if bytes.starts_with(LEGACY) {
        return Err(
            "a file of PyTorch before 1.6, which this program does not read: load it with a newer PyTorch and save it \
                    again, torch.save(torch.load(PATH), PATH)"
                .to_string(),
        );
    }
    let entries = entries(bytes)?;
    // All names begin with a folder, called as the file once was.
    let folder =
        |name: &[u8]| name.strip_suffix(b"/data.pkl").filter(|folder| !folder.contains(&b'/')).map(<[u8]>::to_vec);
    let mut folders = entries.keys().filter_map(|name| folder(name));
    let (Some(folder), None) = (folders.next(), folders.next()) else {
        return Err("a zip archive without one FOLDER/data.pkl: not a checkpoint of PyTorch".to_string());
    };
    let entry = |name: &str| entries.get(&[&folder[..], b"/", name.as_bytes()].concat()[..]).cloned();
    if entry("constants.pkl").is_some() {
        return Err("a TorchScript archive, which holds a program: expected plain weights, as \
                    torch.save(torch.jit.load(PATH).state_dict(), PATH) writes"
            .to_string());
    }
    if let Some(order) = entry("byteorder")
        && bytes[order.clone()] != *b"little"
    {
        return Err("its numbers are big endian: expected little endian".to_string());
    }
    let pickle = entry("data.pkl").unwrap_or_default();
    let mut tensors = HashMap::new();
    for (name, view) in pickle::state_dict(&bytes[pickle])? {
        let storage = entry(&format!("data/{}", view.key));
        let stored = storage.ok_or_else(|| format!("no storage data/{} in the archive", shorten(view.key)));
        let stored = stored.and_then(|storage| place(&view, storage));
        tensors.insert(name.to_string(), stored.map_err(|problem| format!("tensor {}: {problem}", shorten(name)))?);
    }
    Ok(tensors)
}

/// All entries of the archive: uncompressed, inside the file, without overlaps.
fn entries(bytes: &[u8]) -> std::result::Result<Entries, String> {
    let not_zip = |e: rawzip::Error| format!("{} bytes that are not a whole zip archive: {e}", bytes.len());
    let archive = ZipArchive::from_slice(bytes).map_err(not_zip)?;
    let mut entries = Entries::new();
    let mut directory = archive.entries();
    while let Some(header) = directory.next_entry().map_err(not_zip)? {
        let name = header.file_path().as_bytes();
        let wrong = |problem: &str| format!("the entry {} {problem}", shorten(&String::from_utf8_lossy(name)));
        if header.compression_method() != CompressionMethod::STORE || header.flags().is_encrypted() {
            return Err(wrong("is compressed or encrypted: expected stored as it is, as torch.save does"));
        }
        let entry = archive.get_entry(header.wayfinder());
        let (start, end) = entry.map_err(|_| wrong("is not whole in the file"))?.compressed_data_range();
        let sizes = (header.compressed_size_hint(), header.uncompressed_size_hint());
        if sizes != (end - start, end - start) {
            return Err(wrong("has two sizes"));
        }
        // Both are within the slice.
        if entries.insert(name.to_vec(), start as usize..end as usize).is_some() {
            return Err(wrong("occurs twice"));
        }
    }
    let mut ranges: Vec<&Range<usize>> = entries.values().filter(|range| !range.is_empty()).collect();
    ranges.sort_unstable_by_key(|range| range.start);
    if ranges.windows(2).any(|pair| pair[0].end > pair[1].start) {
        return Err("entries of its archive overlap".to_string());
    }
    Ok(entries)
}

/// Where a tensor lies in a storage.
fn place(view: &View<'_>, storage: Range<usize>) -> std::result::Result<Stored, String> {
    let size = view.kind.bytes();
    if (view.stored as u128) * (size as u128) != storage.len() as u128 {
        let (count, kind, found) = (view.stored, view.kind.name(), storage.len());
        return Err(format!("its storage has {found} bytes: expected {count} of type {kind}"));
    }
    let outside =
        || format!("shape {:?}, steps {:?} from {} on lie outside its storage", view.shape, view.strides, view.offset);
    // The places of the first number and of the one after the last.
    let empty = view.shape.contains(&0);
    let steps = view.shape.iter().zip(&view.strides);
    let last = steps
        .filter(|_| !empty)
        .try_fold(view.offset, |at, (axis, step)| at.checked_add((axis - 1).checked_mul(*step)?));
    let end = if empty { Some(view.offset) } else { last.and_then(|last| last.checked_add(1)) };
    let end = end.filter(|end| *end <= view.stored).ok_or_else(outside)?;
    // Within the storage, so within the address space; sizes and steps of empty tensors are not looked at again.
    let range = storage.start + view.offset as usize * size..storage.start + end as usize * size;
    let usize_all = |numbers: &[u64]| numbers.iter().map(|n| usize::try_from(*n).ok()).collect::<Option<Vec<_>>>();
    let shape = usize_all(&view.shape).ok_or_else(outside)?;
    let strides = usize_all(&view.strides).ok_or_else(outside)?;
    let order = if empty || in_order(&shape, &strides) {
        Order::Rows
    } else if swapped_in_order(&shape, &strides) {
        Order::Swapped
    } else {
        Order::Other
    };
    Ok(Stored { kind: view.kind, shape, strides, order, range })
}

/// Whether each step is the number of elements behind it; the steps of axes of 1 do not matter.
fn in_order(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1usize;
    for (axis, step) in shape.iter().zip(strides).rev() {
        if *axis != 1 && *step != expected {
            return false;
        }
        // Cannot overflow where every step so far fits into a storage; saturation only ever says no.
        expected = expected.saturating_mul(*axis);
    }
    true
}

fn swapped_in_order(shape: &[usize], strides: &[usize]) -> bool {
    let Some(last) = shape.len().checked_sub(2) else { return false };
    let (mut shape, mut strides) = (shape.to_vec(), strides.to_vec());
    shape[last..].reverse();
    strides[last..].reverse();
    in_order(&shape, &strides)
}

impl Tensors for Torch {
    fn file(&self) -> &str {
        &self.file
    }

    fn tensor(&self, name: &str) -> Result<Tensor> {
        self.find(name)
    }

    fn shape_of(&self, name: &str) -> Option<&[usize]> {
        Some(&self.tensors.get(name)?.shape)
    }

    fn stored(&self) -> impl Iterator<Item = &String> {
        self.tensors.keys()
    }
}

#[cfg(test)]
mod tests;
