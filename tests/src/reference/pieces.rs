//! The tokenizer of llama2.c, as slowly and plainly as it can be written: scored byte-pair merges.

use std::collections::HashMap;
use std::path::Path;

/// A vocabulary of pieces with scores.
#[derive(Debug)]
pub struct Pieces {
    /// Pieces by token id.
    pieces: Vec<Vec<u8>>,
    scores: Vec<f32>,
    ids: HashMap<Vec<u8>, u32>,
}

impl Pieces {
    /// The token that begins every sequence.
    pub const BOS: u32 = 1;

    /// Reads a llama2.c tokenizer: the longest piece's length, then score, length and bytes of each piece.
    ///
    /// # Panics
    /// If the file ends inside a piece.
    pub fn open(path: &Path) -> Pieces {
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut rest = &bytes[4..];
        let mut take =
            |n: usize| rest.split_off(..n).unwrap_or_else(|| panic!("{} ends early", path.display())).to_vec();
        let (mut pieces, mut scores, mut left) = (Vec::new(), Vec::new(), bytes.len() - 4);
        while left > 0 {
            scores.push(f32::from_le_bytes(take(4).try_into().expect("four bytes")));
            let length = u32::from_le_bytes(take(4).try_into().expect("four bytes")) as usize;
            pieces.push(take(length));
            left -= 8 + length;
        }
        // Where a piece occurs twice (a byte token and a character), the one reachable by text wins: the later one.
        let ids = pieces.iter().cloned().zip(0..).collect();
        Pieces { pieces, scores, ids }
    }

    /// Token ids of a text, without BOS: a space is put before it, characters without a piece become bytes (ids from 3
    /// on), then the neighbouring pair whose joined piece scores highest is merged until none is a piece.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids: Vec<u32> = Vec::new();
        for character in if text.is_empty() { String::new() } else { format!(" {text}") }.chars() {
            let bytes = character.to_string().into_bytes();
            match self.ids.get(&bytes) {
                Some(id) => ids.push(*id),
                None => ids.extend(bytes.iter().map(|byte| u32::from(*byte) + 3)),
            }
        }
        loop {
            let joined = |i: usize| {
                let bytes = [self.pieces[ids[i] as usize].as_slice(), &self.pieces[ids[i + 1] as usize]].concat();
                self.ids.get(&bytes).map(|id| (i, *id, self.scores[*id as usize]))
            };
            // The first of equal scores.
            let better = |best: (usize, u32, f32), next: (usize, u32, f32)| if next.2 > best.2 { next } else { best };
            let Some((i, id, _)) = (0..ids.len().saturating_sub(1)).filter_map(joined).reduce(better) else {
                return ids;
            };
            ids[i] = id;
            ids.remove(i + 1);
        }
    }
}
