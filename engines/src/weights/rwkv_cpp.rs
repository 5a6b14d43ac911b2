//! The model files of rwkv.cpp (github.com/RWKV/rwkv.cpp, docs/FILE_FORMAT.md): a header, then tensors one after another.
//!
//! They come from BlinkDL's checkpoints, and this reader gives back what was in them: names, shapes and numbers. What the
//! converter changes is undone:
//!
//! | generation | tensor | in the file | undone |
//! |---|---|---|---|
//! | 4 | `time_decay` | -exp(w) | log |
//! | 5 | `time_decay` | exp(-exp(w)), axes of 1 | log, log |
//! | 5.1 | `time_first` | exp(u) | log |
//! | 6 | `time_maa_w1`, `time_maa_w2`, `time_decay_w1`, `time_decay_w2` | last two axes exchanged | order only |
//! | 7 | `w1`, `w2`, `a1`, `a2`, `v1`, `v2`, `g1`, `g2` | axes exchanged | order only |
//! | 7 | `x_r`, `x_w`, `x_k`, `x_v`, `x_a`, `x_g` | one tensor `x_rwkvag` | parts of it |
//!
//! Logarithms are taken in f64. Taking the exponentials again gives the numbers of the file to one part in 10^6 or so: an
//! exponential that was rounded to 0 or 1 becomes one that rounds to it.
//!
//! Quantised matrices are widened to f32, each when it is asked for.
//!
//! Not done: quantised tensors of version 100, whose blocks were others.

use super::dense::{Dense, Format};
use super::ggml_blocks::{BLOCK, Blocks};
use super::map::Map;
use super::pickle::shorten;
use super::tensor::{Tensor, Tensors};
use crate::{Error, Result};
use kernels::Lines;
use kernels::memory::Purpose;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// "ggmf", little endian.
const MAGIC: [u8; 4] = 0x6767_6D66_u32.to_le_bytes();
/// The longest name.
const MAX_NAME: usize = 256;
/// The parts of `x_rwkvag`, in its order.
const MIXES: [&str; 6] = ["r", "w", "k", "v", "a", "g"];

/// The tensors of one file, by BlinkDL's names.
#[derive(Debug)]
pub(crate) struct RwkvCpp {
    file: String,
    map: Arc<Map>,
    tensors: HashMap<String, Stored>,
}

/// A tensor as it lies in the file.
#[derive(Clone, Debug)]
struct Stored {
    kind: Kind,
    /// BlinkDL's.
    shape: Vec<usize>,
    range: Range<usize>,
    /// Whether the last two axes are exchanged in the file.
    swapped: bool,
    change: Option<Change>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    F32,
    F16,
    Quantised(Blocks),
}

/// What the converter did to a tensor's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// -exp(x)
    NegatedExponential,
    /// exp(-exp(x))
    DoubleExponential,
    /// exp(x)
    Exponential,
}

impl Change {
    /// The number before the change; none for one that cannot have come out of it.
    fn undo(self, number: f32) -> Option<f32> {
        // Below every positive f32, and exp(-LARGEST) is 0 and exp(-SMALLEST) 1 in f32.
        const TINY: f64 = 1e-45;
        const SMALLEST: f64 = 1.0 / (1u64 << 26) as f64;
        const LARGEST: f64 = 110.0;
        let number = f64::from(number);
        let before = match self {
            Change::NegatedExponential if number <= 0.0 => libm::log((-number).max(TINY)),
            Change::Exponential if number >= 0.0 => libm::log(number.max(TINY)),
            Change::DoubleExponential if (0.0..=1.0).contains(&number) => {
                libm::log((-libm::log(number)).clamp(SMALLEST, LARGEST))
            }
            _ => return None,
        };
        Some(before as f32)
    }
}

/// Whether bytes are meant to be a model of rwkv.cpp.
pub(crate) fn is_rwkv_cpp(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

impl RwkvCpp {
    /// The tensors of a file, called `file` in errors.
    pub(crate) fn new(file: &str, map: Arc<Map>) -> Result<RwkvCpp> {
        let tensors = read(&map).map_err(|problem| Error::format(file, problem))?;
        Ok(RwkvCpp { file: file.to_string(), map, tensors })
    }

    fn find(&self, name: &str) -> Result<Tensor> {
        let stored = self.tensors.get(name).ok_or_else(|| Error::tensor(&self.file, name, "missing"))?;
        let mut numbers = self.numbers(stored);
        if let Some(change) = stored.change {
            numbers = undo(&numbers, change).map_err(|problem| Error::tensor(&self.file, name, problem))?;
        }
        let shape = stored.shape.clone();
        Ok(match stored.swapped {
            true => Tensor::swapped(&self.file, name, shape, numbers),
            false => Tensor::new(&self.file, name, shape, numbers),
        })
    }

    /// A tensor's numbers in the order of the file.
    fn numbers(&self, stored: &Stored) -> Dense {
        let (range, count) = (stored.range.clone(), stored.shape.iter().product());
        match stored.kind {
            Kind::F32 => Dense::mapped(&self.map, range, Format::F32, 1, count),
            Kind::F16 => Dense::mapped(&self.map, range, Format::F16, 1, count),
            Kind::Quantised(blocks) => {
                let mut lines = Lines::zeroed_for(Purpose::Weights, (count * 4).div_ceil(64));
                lines.spread_over_nodes();
                let numbers = bytemuck::cast_slice_mut::<u8, f32>(lines.bytes_mut());
                blocks.widen(&self.map[range], &mut numbers[..count]);
                Dense::owned_f32(lines, 1, count)
            }
        }
    }
}

fn undo(numbers: &Dense, change: Change) -> std::result::Result<Dense, String> {
    let changed = numbers.to_f32();
    let mut lines = Lines::zeroed_for(Purpose::Weights, (changed.len() * 4).div_ceil(64));
    let before = bytemuck::cast_slice_mut::<u8, f32>(lines.bytes_mut());
    for (at, (before, number)) in before.iter_mut().zip(&changed).enumerate() {
        let undone = change.undo(*number);
        *before = undone.ok_or_else(|| format!("number {at} is {number}, which no exponential of this kind can be"))?;
    }
    Ok(Dense::owned_f32(lines, 1, changed.len()))
}

/// Reads from the front.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize, what: &str) -> std::result::Result<&'a [u8], String> {
        let left = &self.bytes[self.at..];
        let taken = left.get(..count).ok_or_else(|| {
            format!("ends inside {what}: {count} bytes expected at byte {}, {} left", self.at, left.len())
        })?;
        self.at += count;
        Ok(taken)
    }

    fn number(&mut self, what: &str) -> std::result::Result<usize, String> {
        let mut word = [0; 4];
        word.copy_from_slice(self.take(4, what)?);
        Ok(u32::from_le_bytes(word) as usize)
    }
}

fn read(bytes: &[u8]) -> std::result::Result<HashMap<String, Stored>, String> {
    let mut reader = Reader { bytes, at: 0 };
    if reader.take(4, "the header")? != MAGIC {
        return Err("does not begin with the number 0x67676d66: not a model of rwkv.cpp".to_string());
    }
    let version = reader.number("the header")?;
    if !matches!(version, 100 | 101) {
        return Err(format!("has version {version}: expected 100 or 101"));
    }
    let mut sizes = [0; 4];
    for size in &mut sizes {
        *size = reader.number("the header")?;
    }
    let [vocab, width, layers, _] = sizes;
    let mut tensors = HashMap::new();
    while reader.at < bytes.len() {
        let (name, stored) = tensor(&mut reader, version)?;
        if tensors.contains_key(&name) {
            return Err(format!("holds two tensors called {}", shorten(&name)));
        }
        tensors.insert(name, stored);
    }
    // A file that was cut between two tensors is found out here or by the model that misses one.
    if tensors.get("emb.weight").map(|stored| &stored.shape[..]) != Some(&[vocab, width]) {
        return Err(format!("has no emb.weight of the shape [{vocab}, {width}], as its header says"));
    }
    let block = |i: usize| tensors.contains_key(&format!("blocks.{i}.ln1.weight"));
    if block(layers) || layers.checked_sub(1).is_none_or(|last| !block(last)) {
        return Err(format!("does not have {layers} blocks, as its header says"));
    }
    restore(tensors)
}

/// One tensor's header, name and place.
fn tensor(reader: &mut Reader<'_>, version: usize) -> std::result::Result<(String, Stored), String> {
    let start = reader.at;
    let header = "the header of a tensor";
    let [axes, length, kind] = [reader.number(header)?, reader.number(header)?, reader.number(header)?];
    if !(1..=3).contains(&axes) || !(1..=MAX_NAME).contains(&length) {
        return Err(format!("a tensor of {axes} axes and {length} bytes of name at byte {start}: the file is damaged"));
    }
    let mut shape = Vec::with_capacity(axes);
    for _ in 0..axes {
        shape.push(reader.number(header)?);
    }
    // The fastest axis comes first in the file.
    shape.reverse();
    let name = std::str::from_utf8(reader.take(length, "the name of a tensor")?);
    let name = name.map_err(|_| format!("a name that is not UTF-8 at byte {start}"))?;
    let wrong = |problem: String| format!("tensor {}: {problem}", shorten(name));
    let kind = match kind {
        0 => Kind::F32,
        1 => Kind::F16,
        2 => Kind::Quantised(Blocks::Q4_0),
        3 => Kind::Quantised(Blocks::Q4_1),
        7 => Kind::Quantised(Blocks::Q5_0),
        8 => Kind::Quantised(Blocks::Q5_1),
        9 => Kind::Quantised(Blocks::Q8_0),
        other => return Err(wrong(format!("type {other}: expected FP32, FP16, Q4_0, Q4_1, Q5_0, Q5_1 or Q8_0"))),
    };
    let count = shape.iter().try_fold(1usize, |count, axis| count.checked_mul(*axis)).filter(|count| *count > 0);
    let (size, per) = match kind {
        Kind::F32 => (4, 1),
        Kind::F16 => (2, 1),
        Kind::Quantised(_) if version == 100 => {
            return Err(wrong(
                "quantised by version 100 of the format: quantise it again with a newer rwkv.cpp".to_string(),
            ));
        }
        Kind::Quantised(blocks) if shape[axes - 1].is_multiple_of(BLOCK) => (blocks.bytes(), BLOCK),
        Kind::Quantised(_) => {
            return Err(wrong(format!("rows of {}: expected a multiple of {BLOCK}", shape[axes - 1])));
        }
    };
    let bytes = count.and_then(|count| (count / per).checked_mul(size));
    let bytes = bytes.ok_or_else(|| wrong(format!("shape {shape:?} is empty or too large")))?;
    let data = reader.at;
    reader.take(bytes, &format!("the tensor {}", shorten(name)))?;
    let stored = Stored { kind, shape, range: data..data + bytes, swapped: false, change: None };
    Ok((name.to_string(), stored))
}

/// From the converter's tensors to BlinkDL's.
fn restore(tensors: HashMap<String, Stored>) -> std::result::Result<HashMap<String, Stored>, String> {
    let has = |name: &str| tensors.contains_key(&format!("blocks.0.att.{name}"));
    let generation = if has("k_k") {
        7
    } else if has("time_maa_x") {
        6
    } else if has("ln_x.weight") {
        5
    } else {
        4
    };
    let mut restored = HashMap::with_capacity(tensors.len());
    for (name, mut stored) in tensors {
        // blocks.N.att.REST
        let rest = name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')).map_or("", |(_, rest)| rest);
        let rest = rest.strip_prefix("att.").unwrap_or("");
        match (generation, rest) {
            (7, "x_rwkvag") => {
                split_mixes(&name, &stored, &mut restored)?;
                continue;
            }
            (7, "w1" | "w2" | "a1" | "a2" | "v1" | "v2" | "g1" | "g2")
            | (6, "time_maa_w1" | "time_maa_w2" | "time_decay_w1" | "time_decay_w2") => swap(&mut stored),
            (4, "time_decay") => stored.change = Some(Change::NegatedExponential),
            (5, "time_decay") => stored.change = Some(Change::DoubleExponential),
            (5, "time_first") => stored.change = Some(Change::Exponential),
            _ => {}
        }
        match (generation, rest) {
            (6, "time_decay") => stored.shape = vec![1, 1, stored.shape.iter().product()],
            // Axes of 1 were added behind.
            (5 | 6, "time_decay" | "time_first" | "time_faaaa") => {
                while stored.shape.len() > 1 && stored.shape.ends_with(&[1]) {
                    stored.shape.pop();
                }
            }
            _ => {}
        }
        restored.insert(name, stored);
    }
    Ok(restored)
}

/// The shape that was, with the numbers as they are.
fn swap(stored: &mut Stored) {
    let axes = stored.shape.len();
    if axes >= 2 {
        stored.shape.swap(axes - 2, axes - 1);
        stored.swapped = true;
    }
}

/// `x_rwkvag` `[6, ...]` as six tensors.
fn split_mixes(name: &str, whole: &Stored, restored: &mut HashMap<String, Stored>) -> std::result::Result<(), String> {
    let (count, size) = (MIXES.len(), whole.range.len() / MIXES.len());
    if whole.shape.first() != Some(&count) || matches!(whole.kind, Kind::Quantised(_)) {
        return Err(format!("tensor {}: shape {:?}, {:?}: expected [6, ...] of floats", name, whole.shape, whole.kind));
    }
    let shape = [&[1, 1][..], &[whole.shape[1..].iter().product()]].concat();
    for (i, mix) in MIXES.iter().enumerate() {
        let start = whole.range.start + i * size;
        let part = Stored { shape: shape.clone(), range: start..start + size, ..whole.clone() };
        restored.insert(name.replace("x_rwkvag", &format!("x_{mix}")), part);
    }
    Ok(())
}

impl Tensors for RwkvCpp {
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
