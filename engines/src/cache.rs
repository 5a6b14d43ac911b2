//! The key/value cache of one head.

use crate::CacheFormat;
use half::bf16;
use kernels::CacheElement;
use kernels::memory::{Purpose, Reservation};
use std::sync::Arc;

/// Keys and values of one key/value head in one layer. Clones share their numbers until one of them appends.
#[derive(Clone, Debug)]
pub(crate) enum Head {
    F32(Pair<f32>),
    Bf16(Pair<bf16>),
}

/// Keys and values `[n, K]`, each contiguous.
#[derive(Clone, Debug)]
pub(crate) struct Pair<E> {
    keys: Arc<Counted<E>>,
    values: Arc<Counted<E>>,
}

/// Numbers that stand in the books of memory, once for all clones that share them.
#[derive(Debug)]
struct Counted<E> {
    numbers: Vec<E>,
    memory: Reservation,
}

impl Head {
    pub(crate) fn new(format: CacheFormat) -> Head {
        match format {
            CacheFormat::F32 => Head::F32(Pair::new()),
            CacheFormat::Bf16 => Head::Bf16(Pair::new()),
        }
    }

    /// Puts `keys` and `values` `[n, width]` at positions `at..at + n`; whatever stood at or after `at` is gone.
    pub(crate) fn append(&mut self, at: usize, width: usize, keys: &[f32], values: &[f32]) {
        match self {
            Head::F32(pair) => pair.append(at * width, keys, values),
            Head::Bf16(pair) => pair.append(at * width, keys, values),
        }
    }

    /// Bytes allocated; what clones share counts for each.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Head::F32(pair) => pair.bytes(),
            Head::Bf16(pair) => pair.bytes(),
        }
    }
}

impl<E: CacheElement> Pair<E> {
    fn new() -> Pair<E> {
        Pair { keys: Arc::new(Counted::with_capacity(0)), values: Arc::new(Counted::with_capacity(0)) }
    }

    fn bytes(&self) -> usize {
        self.keys.memory.bytes() + self.values.memory.bytes()
    }

    /// Keys of the first `count` elements.
    pub(crate) fn keys(&self, count: usize) -> &[E] {
        &self.keys.numbers[..count]
    }

    /// Values of the first `count` elements.
    pub(crate) fn values(&self, count: usize) -> &[E] {
        &self.values.numbers[..count]
    }

    fn append(&mut self, at: usize, keys: &[f32], values: &[f32]) {
        put(&mut self.keys, at, keys);
        put(&mut self.values, at, values);
    }
}

impl<E: CacheElement> Counted<E> {
    fn with_capacity(count: usize) -> Counted<E> {
        let mut counted = Counted { numbers: Vec::with_capacity(count), memory: Reservation::new(Purpose::Cache, 0) };
        counted.count();
        counted
    }

    fn count(&mut self) {
        self.memory.resize(self.numbers.capacity() * size_of::<E>());
    }

    fn put(&mut self, at: usize, new: &[f32]) {
        self.numbers.truncate(at);
        self.numbers.extend(new.iter().map(|x| E::narrow(*x)));
        self.count();
    }
}

fn put<E: CacheElement>(shared: &mut Arc<Counted<E>>, at: usize, new: &[f32]) {
    if let Some(own) = Arc::get_mut(shared) {
        return own.put(at, new);
    }
    // Copy what stays, with room to grow.
    let end = at + new.len();
    let mut own = Counted::with_capacity(end + end / 4);
    own.numbers.extend_from_slice(&shared.numbers[..at]);
    own.put(at, new);
    *shared = Arc::new(own);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appending_replaces_what_stood_there_and_leaves_clones_alone() {
        for format in [CacheFormat::F32, CacheFormat::Bf16] {
            let mut head = Head::new(format);
            head.append(0, 2, &[1.0, 2.0, 3.0, 4.0], &[5.0, 6.0, 7.0, 8.0]);
            let before = head.clone();
            head.append(1, 2, &[9.0, 9.0, 9.0, 9.0], &[0.5, 0.5, 0.5, 0.5]);
            let keys = |head: &Head| match head {
                Head::F32(pair) => pair.keys.numbers.clone(),
                Head::Bf16(pair) => pair.keys.numbers.iter().map(|k| k.to_f32()).collect(),
            };
            assert_eq!(keys(&head), [1.0, 2.0, 9.0, 9.0, 9.0, 9.0]);
            assert_eq!(keys(&before), [1.0, 2.0, 3.0, 4.0]);
            assert!(head.bytes() >= 12 * format.bytes());
        }
    }
}
