//! The part of Python's pickle format that PyTorch writes weights in.
//!
//! A pickle is a program for a machine with a stack and a memo. This machine knows only the instructions that write numbers,
//! texts, tuples, lists, dictionaries and references to tensors; a function can be named only if it is on a short list, and
//! none is ever called: what they would have made is written down. Anything else is an error that names it.
//!
//! What is made lies in one list and refers to its parts by number, so that neither depth nor cycles nor sharing cost
//! anything: each instruction makes at most one thing, and nothing is walked recursively.
//!
//! Source: Python's `pickletools` (the instructions) and `torch.serialization` (the functions and persistent ids).

mod globals;
mod machine;

use machine::Machine;

/// The largest pickle that is read. The weights are not in it: a tensor takes some hundred bytes.
pub(crate) const MAX_BYTES: usize = 16 << 20;

/// What went wrong, as a sentence.
type Result<T> = std::result::Result<T, String>;

/// The kinds of numbers that torch stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Float,
    Half,
    BFloat16,
    Double,
    Long,
    Int,
    Short,
    Char,
    Byte,
    Bool,
}

const KINDS: [(&str, Kind, usize); 10] = [
    ("Float", Kind::Float, 4),
    ("Half", Kind::Half, 2),
    ("BFloat16", Kind::BFloat16, 2),
    ("Double", Kind::Double, 8),
    ("Long", Kind::Long, 8),
    ("Int", Kind::Int, 4),
    ("Short", Kind::Short, 2),
    ("Char", Kind::Char, 1),
    ("Byte", Kind::Byte, 1),
    ("Bool", Kind::Bool, 1),
];

impl Kind {
    /// Bytes to a number.
    pub(crate) fn bytes(self) -> usize {
        KINDS[self as usize].2
    }

    pub(crate) fn name(self) -> &'static str {
        KINDS[self as usize].0
    }
}

/// A tensor: numbers of a storage, which the zip archive holds under `key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View<'a> {
    pub(crate) kind: Kind,
    pub(crate) key: &'a str,
    /// Numbers in the storage.
    pub(crate) stored: u64,
    /// The first number of the tensor.
    pub(crate) offset: u64,
    pub(crate) shape: Vec<u64>,
    /// Numbers from one index of an axis to the next.
    pub(crate) strides: Vec<u64>,
}

/// The named tensors of a pickled dictionary, in its order; each name once.
pub(crate) fn state_dict(bytes: &[u8]) -> Result<Vec<(&str, View<'_>)>> {
    if bytes.len() > MAX_BYTES {
        return Err(format!("its pickle has {} bytes: expected at most {MAX_BYTES}", bytes.len()));
    }
    let mut machine = Machine::new(bytes);
    let top = machine.run()?;
    machine.tensors(top)
}

/// The first hundred characters of a text that a file chose, printable.
pub(crate) fn shorten(text: &str) -> String {
    text.chars().take(100).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
pub(crate) mod tests;
