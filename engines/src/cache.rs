//! The key/value cache of one head.

use crate::CacheFormat;
use half::bf16;
use kernels::CacheElement;
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
    keys: Arc<Vec<E>>,
    values: Arc<Vec<E>>,
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
            Head::F32(pair) => 4 * (pair.keys.capacity() + pair.values.capacity()),
            Head::Bf16(pair) => 2 * (pair.keys.capacity() + pair.values.capacity()),
        }
    }
}

impl<E: CacheElement> Pair<E> {
    fn new() -> Pair<E> {
        Pair { keys: Arc::new(Vec::new()), values: Arc::new(Vec::new()) }
    }

    /// Keys of the first `count` elements.
    pub(crate) fn keys(&self, count: usize) -> &[E] {
        &self.keys[..count]
    }

    /// Values of the first `count` elements.
    pub(crate) fn values(&self, count: usize) -> &[E] {
        &self.values[..count]
    }

    fn append(&mut self, at: usize, keys: &[f32], values: &[f32]) {
        put(&mut self.keys, at, keys);
        put(&mut self.values, at, values);
    }
}

fn put<E: CacheElement>(numbers: &mut Arc<Vec<E>>, at: usize, new: &[f32]) {
    let end = at + new.len();
    if Arc::get_mut(numbers).is_none() {
        // Shared: copy what stays, with room to grow.
        let mut own = Vec::with_capacity(end + end / 4);
        own.extend_from_slice(&numbers[..at]);
        *numbers = Arc::new(own);
    }
    let own = Arc::make_mut(numbers);
    own.truncate(at);
    own.extend(new.iter().map(|x| E::narrow(*x)));
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
                Head::F32(pair) => pair.keys(pair.keys.len()).to_vec(),
                Head::Bf16(pair) => pair.keys(pair.keys.len()).iter().map(|k| k.to_f32()).collect(),
            };
            assert_eq!(keys(&head), [1.0, 2.0, 9.0, 9.0, 9.0, 9.0]);
            assert_eq!(keys(&before), [1.0, 2.0, 3.0, 4.0]);
            assert!(head.bytes() >= 12 * format.bytes());
        }
    }
}
