//! The machine that pickles are programs of.

use super::globals::{Global, REFUSED, global};
use super::{Kind, Result, View, shorten};
use std::collections::{HashMap, HashSet};

/// Things that a pickle may make, and keep in its memo; about fifteen to a tensor.
pub(super) const MAX_NODES: usize = 1 << 20;
/// Axes of a tensor.
const MAX_AXES: usize = 8;
/// The longest name of a module or function.
const MAX_GLOBAL: usize = 128;

/// The place of a thing in the machine's list.
pub(super) type Id = usize;

/// A thing.
#[derive(Debug)]
pub(super) enum Node<'a> {
    Nothing,
    Bool,
    Int(i64),
    Float,
    Text(&'a str),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage { kind: Kind, key: &'a str, stored: u64 },
    Tensor(View<'a>),
}

impl Node<'_> {
    fn name(&self) -> &'static str {
        match self {
            Node::Nothing => "None",
            Node::Bool => "a truth value",
            Node::Int(_) => "a whole number",
            Node::Float => "a number",
            Node::Text(_) => "a text",
            Node::Tuple(_) => "a tuple",
            Node::List(_) => "a list",
            Node::Dict(_) => "a dictionary",
            Node::Global(_) => "a function",
            Node::Storage { .. } => "a storage",
            Node::Tensor(_) => "a tensor",
        }
    }
}

/// The stack, the memo, and what lies there.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Everything that was made.
    pub(super) nodes: Vec<Node<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<usize, Id>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Machine<'a> {
        Machine { bytes, at: 0, nodes: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() }
    }

    /// Runs up to STOP; gives what is then on the stack.
    pub(super) fn run(&mut self) -> Result<Id> {
        loop {
            let at = self.at;
            let [opcode] = self.word()?;
            if opcode == b'.' {
                return match (&self.stack[..], &self.marks[..]) {
                    ([top], []) => Ok(*top),
                    _ => Err(format!("its pickle ends with {} things on the stack: expected 1", self.stack.len())),
                };
            }
            self.step(opcode).map_err(|problem| format!("{problem} (byte {at} of the pickle)"))?;
        }
    }

    fn step(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            // PROTO
            0x80 => {
                let [version] = self.word()?;
                if version > 5 {
                    return Err(format!("its pickle has protocol {version}: expected at most 5"));
                }
            }
            // FRAME: how much to read at once.
            0x95 => drop(self.word::<8>()?),
            // MARK
            b'(' => self.marks.push(self.stack.len()),
            // NONE, NEWTRUE, NEWFALSE
            b'N' => self.make(Node::Nothing)?,
            0x88 | 0x89 => self.make(Node::Bool)?,
            // BININT, BININT1, BININT2, LONG1, BINFLOAT
            b'J' => {
                let number = i32::from_le_bytes(self.word()?);
                self.make(Node::Int(number.into()))?;
            }
            b'K' => {
                let [number] = self.word()?;
                self.make(Node::Int(number.into()))?;
            }
            b'M' => {
                let number = u16::from_le_bytes(self.word()?);
                self.make(Node::Int(number.into()))?;
            }
            0x8A => self.long()?,
            b'G' => {
                self.word::<8>()?;
                self.make(Node::Float)?;
            }
            // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8
            b'X' => {
                let length = u32::from_le_bytes(self.word()?);
                self.text(length.into())?;
            }
            0x8C => {
                let [length] = self.word()?;
                self.text(length.into())?;
            }
            0x8D => {
                let length = u64::from_le_bytes(self.word()?);
                self.text(length)?;
            }
            // EMPTY_TUPLE, TUPLE1, TUPLE2, TUPLE3, TUPLE
            b')' => self.make(Node::Tuple(Vec::new()))?,
            0x85..=0x87 => {
                let parts = self.pop_many(usize::from(opcode - 0x84))?;
                self.make(Node::Tuple(parts))?;
            }
            b't' => {
                let parts = self.pop_marked()?;
                self.make(Node::Tuple(parts))?;
            }
            // EMPTY_LIST, APPEND, APPENDS
            b']' => self.make(Node::List(Vec::new()))?,
            b'a' => {
                let parts = self.pop_many(1)?;
                self.append(parts)?;
            }
            b'e' => {
                let parts = self.pop_marked()?;
                self.append(parts)?;
            }
            // EMPTY_DICT, SETITEM, SETITEMS
            b'}' => self.make(Node::Dict(Vec::new()))?,
            b's' => {
                let parts = self.pop_many(2)?;
                self.set_items(&parts)?;
            }
            b'u' => {
                let parts = self.pop_marked()?;
                self.set_items(&parts)?;
            }
            // BINPUT, LONG_BINPUT, MEMOIZE
            b'q' => {
                let [place] = self.word()?;
                self.put(place.into())?;
            }
            b'r' => {
                let place = u32::from_le_bytes(self.word()?);
                self.put(place as usize)?;
            }
            0x94 => self.put(self.memo.len())?,
            // BINGET, LONG_BINGET
            b'h' => {
                let [place] = self.word()?;
                self.get(place.into())?;
            }
            b'j' => {
                let place = u32::from_le_bytes(self.word()?);
                self.get(place as usize)?;
            }
            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.make(Node::Global(global(module, name)?))?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Node::Text(module), Node::Text(name)) = (&self.nodes[module], &self.nodes[name]) else {
                    return Err("its pickle names a function by something else than two texts".to_string());
                };
                self.make(Node::Global(global(module, name)?))?;
            }
            // BINPERSID, REDUCE, BUILD
            b'Q' => self.storage()?,
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            _ => {
                let known = REFUSED.iter().find(|known| known.0 == opcode);
                let name = known.map_or(String::new(), |known| format!(" ({})", known.1));
                return Err(format!(
                    "its pickle uses the instruction {opcode:#04x}{name}, which plain weights do not need"
                ));
            }
        }
        Ok(())
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8]> {
        let left = &self.bytes[self.at..];
        let taken = usize::try_from(count).ok().and_then(|count| left.get(..count));
        let taken =
            taken.ok_or_else(|| format!("its pickle ends early: {count} bytes expected, {} left", left.len()))?;
        self.at += taken.len();
        Ok(taken)
    }

    fn word<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut word = [0; N];
        word.copy_from_slice(self.take(N as u64)?);
        Ok(word)
    }

    /// Up to the next newline.
    fn line(&mut self) -> Result<&'a str> {
        let left = &self.bytes[self.at..];
        let end = left.iter().take(MAX_GLOBAL + 1).position(|byte| *byte == b'\n');
        let end = end.ok_or_else(|| format!("its pickle names something longer than {MAX_GLOBAL} bytes"))?;
        self.at += end + 1;
        std::str::from_utf8(&left[..end]).map_err(|_| "its pickle names something that is not UTF-8".to_string())
    }

    fn make(&mut self, node: Node<'a>) -> Result<()> {
        if self.nodes.len() == MAX_NODES {
            return Err(format!("its pickle makes more than {MAX_NODES} things"));
        }
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
        Ok(())
    }

    fn text(&mut self, length: u64) -> Result<()> {
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| "its pickle holds a text that is not UTF-8")?;
        self.make(Node::Text(text))
    }

    /// LONG1: a number of so many bytes, in two's complement.
    fn long(&mut self) -> Result<()> {
        let [length] = self.word()?;
        let bytes = self.take(length.into())?;
        if bytes.len() > 8 {
            return Err(format!("its pickle holds a number of {} bytes: expected at most 8", bytes.len()));
        }
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut word = [if negative { 0xFF } else { 0 }; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        self.make(Node::Int(i64::from_le_bytes(word)))
    }

    /// The lowest place of the stack that instructions may now take from.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>> {
        if self.stack.len() - self.floor() < count {
            return Err("its pickle takes more from the stack than there is".to_string());
        }
        Ok(self.stack.split_off(self.stack.len() - count))
    }

    fn pop(&mut self) -> Result<Id> {
        Ok(self.pop_many(1)?[0])
    }

    fn pop_marked(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or("its pickle looks for a mark that is not there")?;
        Ok(self.stack.split_off(mark))
    }

    /// What is on top and stays there.
    fn top(&self) -> Result<Id> {
        if self.stack.len() == self.floor() {
            return Err("its pickle takes more from the stack than there is".to_string());
        }
        Ok(self.stack[self.stack.len() - 1])
    }

    fn append(&mut self, parts: Vec<Id>) -> Result<()> {
        let top = self.top()?;
        match &mut self.nodes[top] {
            Node::List(list) => list.extend(parts),
            other => return Err(format!("its pickle appends to {}", other.name())),
        }
        Ok(())
    }

    fn set_items(&mut self, parts: &[Id]) -> Result<()> {
        let top = self.top()?;
        let Node::Dict(pairs) = &mut self.nodes[top] else {
            return Err(format!("its pickle sets items of {}", self.nodes[top].name()));
        };
        let (items, rest) = parts.as_chunks::<2>();
        if !rest.is_empty() {
            return Err("its pickle sets a key without a value".to_string());
        }
        pairs.extend(items.iter().map(|[key, value]| (*key, *value)));
        Ok(())
    }

    fn put(&mut self, place: usize) -> Result<()> {
        let top = self.top()?;
        if self.memo.len() == MAX_NODES {
            return Err(format!("its pickle keeps more than {MAX_NODES} things in its memo"));
        }
        self.memo.insert(place, top);
        Ok(())
    }

    fn get(&mut self, place: usize) -> Result<()> {
        let id = self.memo.get(&place).ok_or_else(|| format!("its pickle recalls {place}, which it never kept"))?;
        self.stack.push(*id);
        Ok(())
    }

    fn tuple(&self, id: Id) -> Option<&[Id]> {
        match &self.nodes[id] {
            Node::Tuple(parts) => Some(parts),
            _ => None,
        }
    }

    fn int(&self, id: Id) -> Option<u64> {
        match &self.nodes[id] {
            Node::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// A tuple of a few sizes.
    fn sizes(&self, id: Id) -> Option<Vec<u64>> {
        let parts = self.tuple(id).filter(|parts| parts.len() <= MAX_AXES)?;
        parts.iter().map(|part| self.int(*part)).collect()
    }

    /// ("storage", class, key, device, numbers).
    fn storage(&mut self) -> Result<()> {
        let id = self.pop()?;
        let read = || {
            let [label, class, key, _, stored] = *self.tuple(id)? else { return None };
            let (Node::Text("storage"), Node::Global(Global::Storage(kind))) = (&self.nodes[label], &self.nodes[class])
            else {
                return None;
            };
            let Node::Text(key) = self.nodes[key] else { return None };
            Some(Node::Storage { kind: *kind, key, stored: self.int(stored)? })
        };
        let node = read().ok_or("its pickle refers to something else than a storage of torch")?;
        self.make(node)
    }

    /// What calling a function with a tuple would give.
    fn reduce(&mut self) -> Result<()> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Node::Global(function) = self.nodes[function] else {
            return Err(format!("its pickle calls {}", self.nodes[function].name()));
        };
        let arguments = self.tuple(arguments).ok_or("its pickle calls a function with something else than a tuple")?;
        match function {
            Global::OrderedDict if arguments.is_empty() => self.make(Node::Dict(Vec::new())),
            Global::RebuildTensor => {
                let view = self.view(arguments);
                let view = view.ok_or_else(|| {
                    format!("its pickle makes a tensor from something else than a storage, a place, and up to {MAX_AXES} sizes and steps")
                })?;
                self.make(Node::Tensor(view))
            }
            Global::RebuildParameter => match arguments.first() {
                Some(tensor) if matches!(self.nodes[*tensor], Node::Tensor(_)) => {
                    self.stack.push(*tensor);
                    Ok(())
                }
                _ => Err("its pickle makes a parameter from something else than a tensor".to_string()),
            },
            Global::OrderedDict | Global::Storage(_) => {
                Err(format!("its pickle calls {function:?} with {} arguments", arguments.len()))
            }
        }
    }

    /// (storage, offset, sizes, strides, ...).
    fn view(&self, arguments: &[Id]) -> Option<View<'a>> {
        let [storage, offset, shape, strides, ..] = *arguments else { return None };
        let Node::Storage { kind, key, stored } = self.nodes[storage] else { return None };
        let (shape, strides) = (self.sizes(shape)?, self.sizes(strides)?);
        let same = shape.len() == strides.len();
        same.then_some(View { kind, key, stored, offset: self.int(offset)?, shape, strides })
    }

    /// Attributes of a dictionary, such as a module's `_metadata`: passed over.
    fn build(&mut self) -> Result<()> {
        self.pop()?;
        match &self.nodes[self.top()?] {
            Node::Dict(_) => Ok(()),
            other => Err(format!("its pickle gives attributes to {}", other.name())),
        }
    }

    /// The tensors of the dictionary `top`.
    pub(super) fn tensors(&self, top: Id) -> Result<Vec<(&'a str, View<'a>)>> {
        const WANTED: &str =
            "expected a dictionary of names and tensors, as torch.save(model.state_dict(), PATH) writes";
        let Node::Dict(pairs) = &self.nodes[top] else {
            return Err(format!("its pickle holds {}: {WANTED}", self.nodes[top].name()));
        };
        let mut tensors = Vec::with_capacity(pairs.len());
        let mut names = HashSet::with_capacity(pairs.len());
        for (key, value) in pairs {
            let Node::Text(name) = self.nodes[*key] else {
                return Err(format!("its pickle has {} for a name: {WANTED}", self.nodes[*key].name()));
            };
            let Node::Tensor(view) = &self.nodes[*value] else {
                let found = self.nodes[*value].name();
                return Err(format!("its pickle holds {found} under {}: {WANTED}", shorten(name)));
            };
            // A text that is recalled costs a few bytes however long it is, so nothing may multiply it.
            if !names.insert(name) {
                return Err(format!("its pickle holds two tensors called {}", shorten(name)));
            }
            tensors.push((name, view.clone()));
        }
        Ok(tensors)
    }
}
