//! Text to tokens and back.

use crate::llama2c::Vocabulary;
use crate::world::{self, World};
use crate::{Error, Result, Token};
use std::collections::HashSet;
use std::path::Path;

/// A tokenizer: a Hugging Face `tokenizer.json`, the vocabulary of RWKV World models or that of llama2.c.
#[derive(Debug)]
pub struct Tokenizer {
    kind: Kind,
    bos: Option<Token>,
    eos: Option<Token>,
}

#[derive(Debug)]
enum Kind {
    HuggingFace { inner: Box<tokenizers::Tokenizer>, pieces: Pieces, added: HashSet<Token> },
    World(World),
    Llama2c(Vocabulary),
}

/// How a Hugging Face vocabulary writes bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pieces {
    /// GPT-2's: each byte is a printable character.
    ByteLevel,
    /// SentencePiece's: "▁" is a space, "<0x0A>" a byte.
    SentencePiece,
    /// As they stand.
    Plain,
}

/// The largest tokenizer file that is read.
const MAX_BYTES: u64 = 256 << 20;

impl Tokenizer {
    /// Reads `tokenizer.json` (with the special tokens that `tokenizer_config.json` beside it names), a vocabulary of RWKV
    /// World (`.txt`) or a llama2.c vocabulary (any other name).
    ///
    /// # Errors
    /// A file that cannot be read or is not what its name says.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Tokenizer> {
        let path = path.as_ref();
        let bytes = read(path)?;
        if path.extension().is_some_and(|extension| extension == "txt") {
            let world = World::parse(&bytes, path)?;
            return Ok(Tokenizer { kind: Kind::World(world), bos: None, eos: Some(world::END) });
        }
        if path.extension().is_none_or(|extension| extension != "json") {
            let vocabulary = Vocabulary::parse(&bytes, path)?;
            // Fixed by llama2.c: 1 begins a text, 2 ends it.
            return Ok(Tokenizer { kind: Kind::Llama2c(vocabulary), bos: Some(1), eos: Some(2) });
        }
        let mut tokenizer = Tokenizer::from_json(&bytes).map_err(|problem| Error::format(path.display(), problem))?;
        let beside = path.with_file_name("tokenizer_config.json");
        if beside.exists() {
            let config: serde_json::Value = serde_json::from_slice(&read(&beside)?)
                .map_err(|e| Error::format(beside.display(), format!("not JSON: {e}")))?;
            let special = |key: &str| {
                let token = &config[key];
                tokenizer.token(token.as_str().or_else(|| token["content"].as_str())?)
            };
            (tokenizer.bos, tokenizer.eos) = (special("bos_token"), special("eos_token"));
        }
        Ok(tokenizer)
    }

    /// From the bytes of a `tokenizer.json`; the error is a sentence without the file's name.
    fn from_json(bytes: &[u8]) -> std::result::Result<Tokenizer, String> {
        let wrong = |e: &dyn std::fmt::Display| format!("not a tokenizer.json: {e}");
        let json: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| wrong(&e))?;
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| wrong(&e))?;
        // A file may ask for a fixed length; a language model never wants one.
        inner.with_truncation(None).map_err(|e| wrong(&e))?;
        inner.with_padding(None);
        let decoder = json["decoder"].to_string();
        let pieces = if decoder.contains("\"ByteLevel\"") {
            Pieces::ByteLevel
        } else if decoder.contains("\"ByteFallback\"") || decoder.contains('▁') {
            Pieces::SentencePiece
        } else {
            Pieces::Plain
        };
        let added = json["added_tokens"].as_array().into_iter().flatten();
        let added = added.filter_map(|token| Token::try_from(token["id"].as_u64()?).ok()).collect();
        let kind = Kind::HuggingFace { inner: Box::new(inner), pieces, added };
        Ok(Tokenizer { kind, bos: None, eos: None })
    }

    /// Tokens of a text; no special tokens are added.
    ///
    /// # Errors
    /// Text that the vocabulary cannot write.
    pub fn encode(&self, text: &str) -> Result<Vec<Token>> {
        match &self.kind {
            Kind::HuggingFace { inner, .. } => {
                let encoding = inner.encode(text, false).map_err(|e| Error::Tokenizer(e.to_string()))?;
                Ok(encoding.get_ids().to_vec())
            }
            Kind::World(world) => world.encode(text.as_bytes()),
            Kind::Llama2c(vocabulary) => vocabulary.encode(text),
        }
    }

    /// The text of tokens. Bytes that are not UTF-8 become U+FFFD; tokens outside the vocabulary are left out.
    pub fn decode(&self, tokens: &[Token]) -> String {
        match &self.kind {
            Kind::HuggingFace { inner, .. } => inner.decode(tokens, false).unwrap_or_else(|_| self.join(tokens)),
            Kind::World(_) => self.join(tokens),
            Kind::Llama2c(_) => {
                let text = self.join(tokens);
                // SentencePiece writes a space before the first word.
                text.strip_prefix(' ').map(str::to_string).unwrap_or(text)
            }
        }
    }

    fn join(&self, tokens: &[Token]) -> String {
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| self.piece_bytes(*token)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The bytes that one token stands for in the middle of a text; none for a token outside the vocabulary.
    pub fn piece_bytes(&self, token: Token) -> Vec<u8> {
        match &self.kind {
            Kind::HuggingFace { inner, pieces, added } => {
                let Some(piece) = inner.id_to_token(token) else { return Vec::new() };
                match pieces {
                    Pieces::ByteLevel if !added.contains(&token) => byte_level(&piece),
                    Pieces::SentencePiece if !added.contains(&token) => sentence_piece(&piece),
                    _ => piece.into_bytes(),
                }
            }
            Kind::World(world) => world.piece(token).to_vec(),
            Kind::Llama2c(vocabulary) => vocabulary.piece_bytes(token),
        }
    }

    /// The number of a token written out in full, for example `<|endoftext|>`.
    pub fn token(&self, piece: &str) -> Option<Token> {
        match &self.kind {
            Kind::HuggingFace { inner, .. } => inner.token_to_id(piece),
            Kind::World(world) => world.token(piece.as_bytes()),
            Kind::Llama2c(vocabulary) => vocabulary.token(piece.as_bytes()),
        }
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<Token> {
        self.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<Token> {
        self.eos
    }

    /// V.
    pub fn vocab(&self) -> usize {
        match &self.kind {
            Kind::HuggingFace { inner, .. } => inner.get_vocab_size(true),
            Kind::World(world) => world.len(),
            Kind::Llama2c(vocabulary) => vocabulary.len(),
        }
    }

    /// The vocabulary of RWKV World in the folder of a model file, where there is one.
    pub(crate) fn world_beside(model: &Path) -> Result<Option<Tokenizer>> {
        let path = model.with_file_name(world::FILE);
        if path.exists() { Tokenizer::from_file(path).map(Some) } else { Ok(None) }
    }

    /// Fills in special tokens that the tokenizer's own files did not name.
    pub(crate) fn fill_special(&mut self, bos: Option<Token>, eos: Option<Token>) {
        self.bos = self.bos.or(bos);
        self.eos = self.eos.or(eos);
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let size = std::fs::metadata(path).map_err(|e| Error::read(path, e))?.len();
    if size > MAX_BYTES {
        return Err(Error::format(path.display(), format!("{size} bytes: expected at most {MAX_BYTES}")));
    }
    std::fs::read(path).map_err(|e| Error::read(path, e))
}

/// GPT-2's alphabet undone: printable bytes stand for themselves, the others for U+0100 and up in order.
fn byte_level(piece: &str) -> Vec<u8> {
    let printable = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let mut bytes = Vec::with_capacity(piece.len());
    for c in piece.chars() {
        let code = c as u32;
        match u8::try_from(code) {
            Ok(byte) if printable(byte) => bytes.push(byte),
            _ => match (0..=255u8).filter(|b| !printable(*b)).nth((code as usize).wrapping_sub(256)) {
                Some(byte) => bytes.push(byte),
                // Not of the alphabet: the character itself.
                None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            },
        }
    }
    bytes
}

fn sentence_piece(piece: &str) -> Vec<u8> {
    let byte = piece.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    match byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
        Some(byte) => vec![byte],
        None => piece.replace('▁', " ").into_bytes(),
    }
}

/// Turns tokens into text as they come: only whole characters are given out, and nothing that may still turn out to be part
/// of a stop text.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    stops: &'a [String],
    /// Decoded and not yet given out.
    held: String,
    /// The beginning of a character.
    bytes: Vec<u8>,
    stopped: Option<usize>,
}

impl<'a> TextStream<'a> {
    /// Without stop texts.
    pub fn new(tokenizer: &'a Tokenizer) -> TextStream<'a> {
        TextStream::with_stops(tokenizer, &[])
    }

    /// Ends at the first of `stops` to appear; empty ones are ignored.
    pub fn with_stops(tokenizer: &'a Tokenizer, stops: &'a [String]) -> TextStream<'a> {
        TextStream { tokenizer, stops, held: String::new(), bytes: Vec::new(), stopped: None }
    }

    /// Takes a token; gives the text that is now certain. Nothing after a stop text.
    pub fn push(&mut self, token: Token) -> String {
        if self.stopped.is_some() {
            return String::new();
        }
        self.bytes.extend(self.tokenizer.piece_bytes(token));
        self.take_characters();
        let found = self.stops.iter().enumerate().filter(|(_, stop)| !stop.is_empty());
        let found = found.filter_map(|(i, stop)| Some((self.held.find(stop.as_str())?, i))).min();
        if let Some((at, stop)) = found {
            self.stopped = Some(stop);
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        std::mem::replace(&mut self.held, rest)
    }

    /// The text still held back, when no more tokens come. A half character becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        if self.stopped.is_some() {
            return String::new();
        }
        let bytes = std::mem::take(&mut self.bytes);
        std::mem::take(&mut self.held) + &String::from_utf8_lossy(&bytes)
    }

    /// Which stop text ended the stream.
    pub fn stopped(&self) -> Option<usize> {
        self.stopped
    }

    /// Moves whole characters from `bytes` to `held`.
    fn take_characters(&mut self) {
        loop {
            match std::str::from_utf8(&self.bytes) {
                Ok(text) => {
                    self.held.push_str(text);
                    return self.bytes.clear();
                }
                Err(error) => {
                    let good = error.valid_up_to();
                    self.held.push_str(&String::from_utf8_lossy(&self.bytes[..good]));
                    let Some(bad) = error.error_len() else {
                        self.bytes.drain(..good);
                        return;
                    };
                    self.held.push(char::REPLACEMENT_CHARACTER);
                    self.bytes.drain(..good + bad);
                }
            }
        }
    }
}

/// The length of the longest end of `text` that begins `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    let ends = (0..stop.len()).rev().filter(|n| stop.is_char_boundary(*n));
    ends.filter(|n| text.ends_with(&stop[..*n])).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_the_gpt2_alphabet() {
        let printable = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
        let mut next = 256;
        for byte in 0..=255u8 {
            let c = if printable(byte) {
                char::from(byte)
            } else {
                next += 1;
                char::from_u32(next - 1).unwrap()
            };
            assert_eq!(byte_level(&c.to_string()), [byte]);
        }
        assert_eq!(byte_level("Ġthe"), b" the");
        assert_eq!(sentence_piece("<0x0A>"), b"\n");
        assert_eq!(sentence_piece("▁the"), b" the");
    }

    #[test]
    fn overlaps_are_the_longest_end_that_begins_the_stop() {
        assert_eq!(overlap("ab</", "</s>"), 2);
        assert_eq!(overlap("aaa", "aab"), 2);
        assert_eq!(overlap("x", "</s>"), 0);
        assert_eq!(overlap("é", "éa"), 2);
    }
}
