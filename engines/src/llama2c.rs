//! The files of llama2.c (github.com/karpathy/llama2.c): a version-0 checkpoint and its vocabulary. Everything is little
//! endian.

use crate::{Error, Result, Token};
use std::collections::HashMap;
use std::path::Path;

/// Reads numbers from the front of a file.
struct Reader<'a> {
    bytes: &'a [u8],
    path: &'a Path,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize, what: &str) -> Result<&'a [u8]> {
        let Some((taken, rest)) = self.bytes.split_at_checked(count) else {
            let problem = format!("ends inside {what}: {count} bytes expected, {} left", self.bytes.len());
            return Err(Error::format(self.path.display(), problem));
        };
        self.bytes = rest;
        Ok(taken)
    }

    fn word(&mut self, what: &str) -> Result<[u8; 4]> {
        let mut word = [0; 4];
        word.copy_from_slice(self.take(4, what)?);
        Ok(word)
    }
}

/// A vocabulary: pieces with merge scores.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    pieces: Vec<(Vec<u8>, f32)>,
    index: HashMap<Vec<u8>, Token>,
}

/// Pieces are a few bytes; the format's length field could claim 2 GiB.
const MAX_PIECE_BYTES: i32 = 1 << 16;

impl Vocabulary {
    /// The longest piece's length as i32, then for each piece its score as f32, its length as i32 and its bytes.
    pub(crate) fn parse(bytes: &[u8], path: &Path) -> Result<Vocabulary> {
        let mut reader = Reader { bytes, path };
        reader.word("the length of the longest piece")?;
        let mut pieces = Vec::new();
        while !reader.bytes.is_empty() {
            let what = format!("piece {}", pieces.len());
            let score = f32::from_le_bytes(reader.word(&what)?);
            let len = i32::from_le_bytes(reader.word(&what)?);
            if score.is_nan() || !(0..=MAX_PIECE_BYTES).contains(&len) {
                let problem = format!("{what} has score {score} and {len} bytes: not a vocabulary of llama2.c");
                return Err(Error::format(path.display(), problem));
            }
            pieces.push((reader.take(len as usize, &what)?.to_vec(), score));
        }
        let mut index = HashMap::with_capacity(pieces.len());
        for (token, (piece, _)) in pieces.iter().enumerate() {
            index.entry(piece.clone()).or_insert(token as Token);
        }
        Ok(Vocabulary { pieces, index })
    }

    pub(crate) fn len(&self) -> usize {
        self.pieces.len()
    }

    pub(crate) fn token(&self, piece: &[u8]) -> Option<Token> {
        self.index.get(piece).copied()
    }

    /// Byte-pair encoding: a space and the text, character by character (bytes where a character is not in the vocabulary);
    /// then the neighbours whose union has the best score are joined, the first of equals, until none is left.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<Token>> {
        let mut tokens = Vec::new();
        if !text.is_empty() {
            self.push_characters(" ", &mut tokens)?;
            self.push_characters(text, &mut tokens)?;
        }
        let mut joined = Vec::new();
        loop {
            let mut best: Option<(f32, usize, Token)> = None;
            for (i, pair) in tokens.windows(2).enumerate() {
                joined.clear();
                pair.iter().for_each(|t: &Token| joined.extend_from_slice(&self.pieces[*t as usize].0));
                if let Some(token) = self.token(&joined) {
                    let score = self.pieces[token as usize].1;
                    if best.is_none_or(|(best, ..)| score > best) {
                        best = Some((score, i, token));
                    }
                }
            }
            let Some((_, i, token)) = best else { return Ok(tokens) };
            tokens[i] = token;
            tokens.remove(i + 1);
        }
    }

    fn push_characters(&self, text: &str, tokens: &mut Vec<Token>) -> Result<()> {
        for c in text.chars() {
            let mut buffer = [0; 4];
            let bytes = c.encode_utf8(&mut buffer).as_bytes();
            match self.token(bytes) {
                Some(token) => tokens.push(token),
                // Bytes follow the three special tokens.
                None => tokens.extend(bytes.iter().map(|b| Token::from(*b) + 3)),
            }
        }
        match tokens.iter().find(|t| **t as usize >= self.len()) {
            None => Ok(()),
            Some(token) => Err(Error::Token { token: *token, vocab: self.len() }),
        }
    }

    /// "<0x0A>" is a byte, anything else itself.
    pub(crate) fn piece_bytes(&self, token: Token) -> Vec<u8> {
        let Some((piece, _)) = self.pieces.get(token as usize) else { return Vec::new() };
        let digits = piece.strip_prefix(b"<0x").and_then(|rest| rest.strip_suffix(b">"));
        let byte = digits.and_then(|d| std::str::from_utf8(d).ok()).and_then(|d| u8::from_str_radix(d, 16).ok());
        byte.map_or_else(|| piece.clone(), |byte| vec![byte])
    }
}
