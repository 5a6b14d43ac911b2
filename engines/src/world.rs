//! The vocabulary of RWKV World models (`rwkv_vocab_v20230424.txt`): bytes are cut into the longest pieces it knows, from
//! left to right.
//!
//! Each line is a number, a Python literal (`'text'` or `b'bytes'`) and the piece's length in bytes; the number 0 is not in
//! the file and ends a text.
//!
//! Source: BlinkDL's ChatRWKV, `rwkv_tokenizer.py`.

use crate::{Error, Result, Token};
use std::path::Path;

/// The name of the vocabulary's file.
pub(crate) const FILE: &str = "rwkv_vocab_v20230424.txt";
/// The token that ends a text.
pub(crate) const END: Token = 0;
/// Numbers of tokens lie below it; the published vocabulary's are below 2^16.
const MAX_TOKENS: usize = 1 << 20;

/// The largest file that is read; the published one has 1.1 MB.
const MAX_BYTES: usize = 8 << 20;

/// Pieces by number, and a tree of them by their bytes.
#[derive(Debug)]
pub(crate) struct World {
    /// All pieces one after another; piece i ends at `ends[i]`, where the next begins. Numbers without a piece are empty.
    bytes: Vec<u8>,
    ends: Vec<u32>,
    nodes: Vec<Node>,
    /// The byte that leads to each node; the children of one node lie together in ascending order.
    labels: Vec<u8>,
}

/// A beginning of pieces.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// The first child.
    first: u32,
    children: u16,
    /// The piece that ends here; [`END`] for none.
    token: Token,
}

impl World {
    /// From the lines of the file, which end with LF or CRLF.
    pub(crate) fn parse(text: &[u8], path: &Path) -> Result<World> {
        read(text).map_err(|problem| Error::format(path.display(), problem))
    }

    /// One more than the highest number.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of a token; none for the end of a text and for numbers without a piece.
    pub(crate) fn piece(&self, token: Token) -> &[u8] {
        let Some(end) = self.ends.get(token as usize) else { return &[] };
        let start = (token as usize).checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start as usize..*end as usize]
    }

    /// The token of exactly these bytes.
    pub(crate) fn token(&self, piece: &[u8]) -> Option<Token> {
        let end = piece.iter().try_fold(0, |node, byte| self.child(node, *byte))?;
        Some(self.nodes[end].token).filter(|token| *token != END)
    }

    /// The longest pieces from left to right.
    pub(crate) fn encode(&self, bytes: &[u8]) -> Result<Vec<Token>> {
        let mut tokens = Vec::with_capacity(bytes.len() / 4);
        let mut at = 0;
        while at < bytes.len() {
            let (token, length) = self.longest(&bytes[at..]).ok_or_else(|| {
                Error::Tokenizer(format!("the vocabulary has no piece for the byte {:#04x} at {at}", bytes[at]))
            })?;
            tokens.push(token);
            at += length;
        }
        Ok(tokens)
    }

    /// The longest piece that `bytes` begins with, and its length.
    fn longest(&self, bytes: &[u8]) -> Option<(Token, usize)> {
        let (mut node, mut found) = (0, None);
        for (depth, byte) in bytes.iter().enumerate() {
            let Some(child) = self.child(node, *byte) else { break };
            node = child;
            if self.nodes[node].token != END {
                found = Some((self.nodes[node].token, depth + 1));
            }
        }
        found
    }

    fn child(&self, node: usize, byte: u8) -> Option<usize> {
        let Node { first, children, .. } = self.nodes[node];
        let first = first as usize;
        let place = self.labels[first..first + usize::from(children)].binary_search(&byte).ok()?;
        Some(first + place)
    }
}

fn read(text: &[u8]) -> std::result::Result<World, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("{} bytes: expected a vocabulary of RWKV World, at most {MAX_BYTES}", text.len()));
    }
    let text = std::str::from_utf8(text).map_err(|_| "not UTF-8: expected a vocabulary of RWKV World")?;
    let mut pieces: Vec<(Vec<u8>, Token)> = Vec::new();
    for (number, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let piece = entry(line).map_err(|problem| format!("line {}: {problem}", number + 1))?;
        pieces.push(piece);
    }
    if pieces.is_empty() {
        return Err("no pieces in it: expected a vocabulary of RWKV World".to_string());
    }
    pieces.sort_unstable_by_key(|piece| piece.1);
    if let Some(pair) = pieces.windows(2).find(|pair| pair[0].1 == pair[1].1) {
        return Err(format!("the number {} occurs twice", pair[0].1));
    }
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    for (piece, token) in &pieces {
        // Numbers left out stand for nothing.
        ends.resize(*token as usize, bytes.len() as u32);
        bytes.extend(piece);
        ends.push(bytes.len() as u32);
    }
    pieces.sort_unstable();
    if let Some(pair) = pieces.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(format!("the numbers {} and {} stand for the same bytes", pair[0].1, pair[1].1));
    }
    let (nodes, labels) = tree(&pieces);
    Ok(World { bytes, ends, nodes, labels })
}

/// The tree of pieces in ascending order, level by level.
fn tree(pieces: &[(Vec<u8>, Token)]) -> (Vec<Node>, Vec<u8>) {
    let mut nodes = vec![Node { first: 0, children: 0, token: END }];
    let mut labels = vec![0];
    // The pieces below each node, and the node's depth.
    let mut below = vec![(0..pieces.len(), 0)];
    let mut next = 0;
    while let Some((mut range, depth)) = below.get(next).cloned() {
        // The shortest comes first.
        if pieces[range.start].0.len() == depth {
            nodes[next].token = pieces[range.start].1;
            range.start += 1;
        }
        nodes[next].first = nodes.len() as u32;
        while let Some((piece, _)) = pieces[range.clone()].first() {
            let label = piece[depth];
            let count = pieces[range.clone()].partition_point(|(piece, _)| piece[depth] <= label);
            nodes.push(Node { first: 0, children: 0, token: END });
            labels.push(label);
            below.push((range.start..range.start + count, depth + 1));
            nodes[next].children += 1;
            range.start += count;
        }
        next += 1;
    }
    (nodes, labels)
}

/// `NUMBER LITERAL LENGTH`.
fn entry(line: &str) -> std::result::Result<(Vec<u8>, Token), String> {
    let parts = line.split_once(' ').and_then(|(number, rest)| Some((number, rest.rsplit_once(' ')?)));
    let Some((number, (text, length))) = parts else {
        return Err("expected a number, a quoted text and its length: not a vocabulary of RWKV World".to_string());
    };
    let number = number.parse::<usize>().ok().filter(|number| (1..MAX_TOKENS).contains(number));
    let number = number.ok_or("expected a number from 1 to 2^20 at its beginning")?;
    let piece = literal(text.trim()).ok_or("expected a quoted text of Python in its middle")?;
    if piece.is_empty() || length.parse() != Ok(piece.len()) {
        return Err(format!("{} bytes, but its length is said to be '{}'", piece.len(), length.escape_debug()));
    }
    Ok((piece, number as Token))
}

/// The bytes of a Python literal: `'...'`, `"..."` in UTF-8, `b'...'`, `b"..."` as they are.
fn literal(text: &str) -> Option<Vec<u8>> {
    let (raw, text) = match text.strip_prefix('b') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    let mut bytes = Vec::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c == quote || (raw && !c.is_ascii()) {
            return None;
        }
        if c != '\\' {
            push(c, &mut bytes);
            continue;
        }
        match chars.next()? {
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            same @ ('\\' | '\'' | '"') => push(same, &mut bytes),
            // A byte in bytes, a character in text.
            'x' => {
                let code = hexadecimal(&mut chars, 2)?;
                if raw { bytes.push(code as u8) } else { push(char::from_u32(code)?, &mut bytes) }
            }
            'u' if !raw => push(char::from_u32(hexadecimal(&mut chars, 4)?)?, &mut bytes),
            'U' if !raw => push(char::from_u32(hexadecimal(&mut chars, 8)?)?, &mut bytes),
            _ => return None,
        }
    }
    Some(bytes)
}

fn push(c: char, bytes: &mut Vec<u8>) {
    bytes.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
}

fn hexadecimal(chars: &mut std::str::Chars<'_>, digits: usize) -> Option<u32> {
    (0..digits).try_fold(0u32, |code, _| Some(code.checked_mul(16)? + chars.next()?.to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<World> {
        World::parse(text.as_bytes(), Path::new("vocabulary"))
    }

    /// Every byte, then a few pieces.
    fn toy() -> World {
        let bytes = (0..=255u8).map(|byte| format!("{} b'\\x{byte:02x}' 1\r\n", u32::from(byte) + 1));
        let pieces = ["ab", "abab", "ba", "bab", "é", "éa", "aaa"];
        let pieces = pieces.iter().enumerate().map(|(i, piece)| format!("{} '{piece}' {}\r\n", 300 + i, piece.len()));
        parse(&bytes.chain(pieces).collect::<String>()).unwrap()
    }

    #[test]
    fn literals_are_those_of_python() {
        for (text, expected) in [
            ("'a b'", &b"a b"[..]),
            ("\"it's\"", b"it's"),
            ("'\\t\\n\\r\\\\\\''", b"\t\n\r\\'"),
            ("'\\xe9'", "é".as_bytes()),
            ("b'\\xe9'", b"\xe9"),
            ("'\\u3000\\U0001f980'", "\u{3000}🦀".as_bytes()),
            ("'日'", "日".as_bytes()),
            ("b\"'\"", b"'"),
            ("' '", b" "),
        ] {
            assert_eq!(literal(text).as_deref(), Some(expected), "{text}");
        }
        for text in
            ["", "'", "a", "'a", "'a\"", "'\\q'", "'\\x1'", "'\\ud800'", "b'\\u0041'", "b'é'", "'a'b'", "'\\'", "b"]
        {
            assert_eq!(literal(text), None, "{text}");
        }
    }

    #[test]
    fn the_longest_piece_wins() {
        let world = toy();
        assert_eq!(
            (world.len(), world.piece(0), world.piece(280), world.piece(5000)),
            (307, &[][..], &[][..], &[][..])
        );
        assert_eq!(world.encode(b"ababab").unwrap(), [301, 300]);
        assert_eq!(world.encode(b"abaab").unwrap(), [300, 98, 300]);
        assert_eq!(world.encode(b"aaba").unwrap(), [98, 300, 98]);
        assert_eq!(world.encode("éaé".as_bytes()).unwrap(), [305, 304]);
        // Half of é.
        assert_eq!(world.encode(b"\xc3").unwrap(), [0xC3 + 1]);
        assert!(world.encode(b"").unwrap().is_empty());
        assert_eq!((world.token(b"abab"), world.token(b"aba"), world.token(b"")), (Some(301), None, None));
    }

    #[test]
    fn damaged_vocabularies_are_errors() {
        let says = |text: &str| parse(text).unwrap_err().to_string();
        assert!(says("").contains("no pieces"));
        assert!(says("1 'a' 1\n2 b\n").contains("vocabulary: line 2: expected a number, a quoted text and its length"));
        assert!(says("0 'a' 1").contains("from 1 to 2^20"));
        assert!(says("1048576 'a' 1").contains("from 1 to 2^20"));
        assert!(says("1 a 1").contains("a quoted text of Python"));
        assert!(says("1 'a' 2").contains("1 bytes, but its length is said to be '2'"));
        assert!(says("1 '' 0").contains("0 bytes"));
        assert!(says("1 'a' 1\n1 'b' 1").contains("the number 1 occurs twice"));
        assert!(says("1 'a' 1\n2 b'a' 1").contains("the numbers 1 and 2 stand for the same bytes"));
        assert!(World::parse(b"1 '\xff' 1", Path::new("v")).unwrap_err().to_string().contains("not UTF-8"));
        let few = parse("1 'a' 1\n5 'ab' 2").unwrap();
        assert_eq!((few.len(), few.piece(3), few.piece(5)), (6, &[][..], &b"ab"[..]));
        assert!(few.encode(b"ac").unwrap_err().to_string().contains("no piece for the byte 0x63 at 1"));
    }

    proptest! {
        #[test]
        fn any_bytes_survive(bytes in proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), any::<u8>()], 0..60)) {
            let world = toy();
            let tokens = world.encode(&bytes).unwrap();
            let back: Vec<u8> = tokens.iter().flat_map(|token| world.piece(*token)).copied().collect();
            prop_assert_eq!(&back, &bytes);
            // Greedy: no longer piece begins where a token does.
            let mut at = 0;
            for token in tokens {
                let length = world.piece(token).len();
                let longer = (length + 1..=bytes.len() - at).any(|more| world.token(&bytes[at..at + more]).is_some());
                prop_assert!(!longer);
                at += length;
            }
        }
    }
}
