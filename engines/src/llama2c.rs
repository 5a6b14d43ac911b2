//! The files of llama2.c (github.com/karpathy/llama2.c): a version-0 checkpoint and its vocabulary. Everything is little
//! endian.

use crate::config::Config;
use crate::weights::dense::{Dense, Format};
use crate::weights::map::Map;
use crate::weights::tensor::Tensor;
use crate::weights::{Source, TernaryForm};
use crate::{Error, Result, Token};
use kernels::activation::Gate;
use kernels::rope::Pairs;
use kernels::ternary::TernaryMatrix;
use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

/// A token and the places of its neighbours; no token where it has been joined to the one before.
#[derive(Clone, Copy, Debug)]
struct Link {
    token: Option<Token>,
    before: Option<usize>,
    after: Option<usize>,
}

/// Two neighbours that can be joined.
#[derive(Clone, Copy, Debug)]
struct Offer {
    score: f32,
    left: usize,
    joined: Token,
}

impl Ord for Offer {
    /// The best score is greatest; of equals the leftmost. Scores are never NaN.
    fn cmp(&self, other: &Offer) -> Ordering {
        // Adding 0 makes one zero of the two: they are equal scores.
        let score = (self.score + 0.0).total_cmp(&(other.score + 0.0));
        score.then(other.left.cmp(&self.left)).then(self.joined.cmp(&other.joined))
    }
}

impl PartialOrd for Offer {
    fn partial_cmp(&self, other: &Offer) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Offer {
    fn eq(&self, other: &Offer) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Offer {}

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
        Ok(self.join(tokens))
    }

    /// Joins neighbours, best first. Tokens stay in their places, linked to the neighbours that are left, so n tokens take
    /// n log n steps.
    fn join(&self, tokens: Vec<Token>) -> Vec<Token> {
        let last = tokens.len().saturating_sub(1);
        let mut links: Vec<Link> = tokens
            .into_iter()
            .enumerate()
            .map(|(i, token)| Link { token: Some(token), before: i.checked_sub(1), after: (i < last).then_some(i + 1) })
            .collect();
        let mut offers: BinaryHeap<Offer> = (0..last).filter_map(|left| self.offer(&links, left)).collect();
        while let Some(offer) = offers.pop() {
            // One of the two may have been joined with another since the offer was made.
            if self.offer(&links, offer.left) != Some(offer) {
                continue;
            }
            let Some(right) = links[offer.left].after else { continue };
            let next = links[right].after;
            links[right].token = None;
            links[offer.left].token = Some(offer.joined);
            links[offer.left].after = next;
            if let Some(next) = next {
                links[next].before = Some(offer.left);
            }
            let around = links[offer.left].before.into_iter().chain([offer.left]);
            offers.extend(around.filter_map(|left| self.offer(&links, left)));
        }
        links.into_iter().filter_map(|link| link.token).collect()
    }

    /// What joining the token at `left` with the one after it would give, if the vocabulary has it.
    fn offer(&self, links: &[Link], left: usize) -> Option<Offer> {
        let (first, second) = (links[left].token?, links[links[left].after?].token?);
        let union = [&self.pieces[first as usize].0[..], &self.pieces[second as usize].0].concat();
        let joined = self.token(&union)?;
        Some(Offer { score: self.pieces[joined as usize].1, left, joined })
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

/// A version-0 checkpoint: seven i32 (D, E, L, H, key/value heads, V, positions; V negative where the head is not the
/// embedding), then f32 tensors in a fixed order. Rotary pairs are interleaved, the base is 10000, eps 1e-5.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    path: PathBuf,
    map: Arc<Map>,
    config: Config,
    /// Byte offset and shape of each tensor, by its Hugging Face name.
    tensors: HashMap<String, (usize, [usize; 2])>,
}

/// Bytes of the header.
const HEADER: usize = 28;

impl Checkpoint {
    /// The checkpoint of a file's bytes, whose header is one.
    pub(crate) fn new(path: PathBuf, map: Arc<Map>) -> Result<Checkpoint> {
        let wrong = |problem: String| Error::format(path.display(), problem);
        let (config, tied) = header(&map).map_err(wrong)?;
        config.check(&path.display().to_string())?;
        let (width, inner, layers, vocab) = (config.width, config.inner, config.layers, config.vocab);
        let (queries, keys) = (config.attention_width(), config.kv_width());
        let mut layout = vec![("model.embed_tokens.weight", 1, [vocab, width])];
        for (name, shape) in [
            ("input_layernorm", [1, width]),
            ("self_attn.q_proj", [queries, width]),
            ("self_attn.k_proj", [keys, width]),
            ("self_attn.v_proj", [keys, width]),
            ("self_attn.o_proj", [width, queries]),
            ("post_attention_layernorm", [1, width]),
            ("mlp.gate_proj", [inner, width]),
            ("mlp.down_proj", [width, inner]),
            ("mlp.up_proj", [inner, width]),
        ] {
            layout.push((name, layers, shape));
        }
        layout.push(("model.norm.weight", 1, [1, width]));
        // Cosines and sines of the angles, which we compute ourselves.
        layout.push(("", 1, [config.context, config.head_width]));
        if !tied {
            layout.push(("lm_head.weight", 1, [vocab, width]));
        }
        // Sizes are below 2^24 each, so only the sum of 128-bit products is safe from overflow.
        let numbers: u128 = layout.iter().map(|(_, n, [r, c])| *n as u128 * *r as u128 * *c as u128).sum();
        let expected = HEADER as u128 + 4 * numbers;
        if map.len() as u128 != expected {
            return Err(wrong(format!("{} bytes: expected {expected} for the sizes in its header", map.len())));
        }
        let mut tensors = HashMap::new();
        let mut offset = HEADER;
        for (name, count, [rows, cols]) in layout {
            for i in 0..count {
                let top = name.starts_with("model.") || name.starts_with("lm_head");
                let full = if top { name.to_string() } else { format!("model.layers.{i}.{name}.weight") };
                if !name.is_empty() {
                    tensors.insert(full, (offset, [rows, cols]));
                }
                offset += 4 * rows * cols;
            }
        }
        Ok(Checkpoint { path, map, config, tensors })
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }
}

/// Whether the first bytes can be the header of a checkpoint; if not, why.
pub(crate) fn check_header(bytes: &[u8]) -> std::result::Result<(), String> {
    header(bytes).map(drop)
}

/// The sizes, and whether the head is the embedding.
fn header(bytes: &[u8]) -> std::result::Result<(Config, bool), String> {
    let (words, _) = bytes.as_chunks::<4>();
    let Some(words) = words.first_chunk::<7>() else {
        return Err(format!("{} bytes, where its header alone has {HEADER}", bytes.len()));
    };
    let mut numbers = words.map(i32::from_le_bytes);
    let tied = numbers[5] > 0;
    numbers[5] = numbers[5].checked_abs().unwrap_or(0);
    if let Some(bad) = numbers.iter().position(|n| !(1..=1 << 24).contains(n)) {
        let name = ["width", "inner width", "layers", "heads", "key/value heads", "vocabulary", "positions"][bad];
        return Err(format!("{name} {} in its header: expected 1 to 2^24", numbers[bad]));
    }
    let [width, inner, layers, heads, kv_heads, vocab, context] = numbers.map(|n| n as usize);
    if !width.is_multiple_of(heads) {
        return Err(format!("width {width} over {heads} heads in its header: expected a multiple"));
    }
    let config = Config {
        architecture: "llama2.c",
        width,
        inner,
        layers,
        heads,
        kv_heads,
        head_width: width / heads,
        vocab,
        context,
        eps: 1e-5,
        rope_theta: 10_000.0,
        pairs: Pairs::Interleaved,
        gate: Gate::SwiGlu,
        tied,
        sub_norms: false,
        attention_bias: false,
        mlp_bias: false,
        quantisation: None,
        bos: Some(1),
        eos: Some(2),
    };
    Ok((config, tied))
}

impl Checkpoint {
    fn tensor(&self, name: &str) -> Result<Tensor> {
        let Some((offset, [rows, cols])) = self.tensors.get(name) else {
            return Err(Error::tensor(self.place(), name, "missing"));
        };
        let range = *offset..*offset + 4 * rows * cols;
        let numbers = Dense::mapped(&self.map, range, Format::F32, *rows, *cols);
        Ok(Tensor::new(&self.place(), name, vec![*rows, *cols], numbers))
    }
}

impl Source for Checkpoint {
    fn vector(&self, name: &str, width: usize) -> Result<Vec<f32>> {
        self.tensor(name)?.vector(width)
    }

    fn flat(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        self.tensor(name)?.flat(len)
    }

    fn dense(&self, name: &str, rows: usize, cols: usize) -> Result<Dense> {
        self.tensor(name)?.dense(rows, cols)
    }

    fn dense_transposed(&self, name: &str, rows: usize, cols: usize) -> Result<Dense> {
        self.tensor(name)?.dense_transposed(rows, cols)
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|(_, shape)| shape.to_vec())
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.tensors.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    fn ternary(&self, name: &str, _: usize, _: usize, _: TernaryForm) -> Result<(TernaryMatrix, f64)> {
        Err(Error::tensor(self.place(), name, "llama2.c has no ternary weights"))
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn check_names(&self, _: &dyn Fn(&str) -> bool) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes as llama2.c has them, then pieces with scores.
    fn vocabulary(pieces: &[(&str, f32)]) -> Vocabulary {
        let special = ["<unk>", "<s>", "</s>"].map(|name| (name.to_string(), 0.0));
        let bytes = (0..=255u8).map(|byte| (format!("<0x{byte:02X}>"), 0.0));
        let pieces = pieces.iter().map(|(piece, score)| (piece.to_string(), *score));
        let mut file = 9i32.to_le_bytes().to_vec();
        for (piece, score) in special.into_iter().chain(bytes).chain(pieces) {
            file.extend(score.to_le_bytes());
            file.extend((piece.len() as i32).to_le_bytes());
            file.extend(piece.bytes());
        }
        Vocabulary::parse(&file, Path::new("toy")).unwrap()
    }

    /// llama2.c's own loop: looks at every pair before each join.
    fn join_slowly(vocabulary: &Vocabulary, mut tokens: Vec<Token>) -> Vec<Token> {
        loop {
            let mut best: Option<(f32, usize, Token)> = None;
            for (i, pair) in tokens.windows(2).enumerate() {
                let union: Vec<u8> =
                    pair.iter().flat_map(|token| vocabulary.pieces[*token as usize].0.clone()).collect();
                if let Some(token) = vocabulary.token(&union) {
                    let score = vocabulary.pieces[token as usize].1;
                    if best.is_none_or(|(best, ..)| score > best) {
                        best = Some((score, i, token));
                    }
                }
            }
            let Some((_, i, token)) = best else { return tokens };
            tokens[i] = token;
            tokens.remove(i + 1);
        }
    }

    const PIECES: &[(&str, f32)] = &[
        (" ", 0.0),
        ("a", 0.0),
        ("b", 0.0),
        ("c", 0.0),
        ("ab", -1.0),
        ("ba", -1.0),
        ("aa", -2.0),
        ("abc", -3.0),
        ("bc", -0.5),
        (" a", -0.0),
        ("aab", -1.5),
        ("abab", -1.0),
    ];

    proptest! {
        #[test]
        fn joining_by_offers_is_joining_pair_by_pair(text in "[abcd é]{0,40}") {
            let vocabulary = vocabulary(PIECES);
            let mut characters = Vec::new();
            if !text.is_empty() {
                vocabulary.push_characters(" ", &mut characters).unwrap();
                vocabulary.push_characters(&text, &mut characters).unwrap();
            }
            prop_assert_eq!(vocabulary.encode(&text).unwrap(), join_slowly(&vocabulary, characters));
        }
    }

    #[test]
    fn a_long_text_does_not_take_forever() {
        let text = "abcab ".repeat(100_000);
        assert!(vocabulary(PIECES).encode(&text).unwrap().len() < text.len());
    }
}
