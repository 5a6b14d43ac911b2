//! Hugging Face tokenizers, and text as it streams.

use engines::{TextStream, Tokenizer};
use kernels::Rng;
use serde_json::{Value, json};
use std::path::PathBuf;

/// A byte-level BPE with every byte, two merges and an end token.
fn byte_level() -> Value {
    let printable = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let mut vocab = serde_json::Map::new();
    let mut next = 256u32;
    for byte in 0..=255u8 {
        let c = if printable(byte) {
            char::from(byte)
        } else {
            next += 1;
            char::from_u32(next - 1).unwrap()
        };
        vocab.insert(c.to_string(), json!(vocab.len()));
    }
    vocab.insert("th".to_string(), json!(256));
    vocab.insert("the".to_string(), json!(257));
    json!({"version": "1.0", "truncation": {"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [{"id": 258, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": [["t", "h"], ["th", "e"]]}})
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, byte_level().to_string()).unwrap();
    (folder, path)
}

#[test]
fn text_survives_and_is_never_cut_short() {
    let (folder, path) = folder();
    std::fs::write(folder.path().join("tokenizer_config.json"), r#"{"eos_token": {"content": "<end>"}}"#).unwrap();
    let tokenizer = Tokenizer::from_file(&path).unwrap();
    assert_eq!((tokenizer.vocab(), tokenizer.bos(), tokenizer.eos()), (259, None, Some(258)));
    assert_eq!(tokenizer.encode("the the").unwrap()[0], 257);
    for text in ["the quick brown fox", "naïve 日本 🦀\n\ttab", "", " lead", "<end>"] {
        let tokens = tokenizer.encode(text).unwrap();
        assert_eq!(tokenizer.decode(&tokens), text);
        let bytes: Vec<u8> = tokens.iter().flat_map(|t| tokenizer.piece_bytes(*t)).collect();
        assert_eq!(bytes, text.as_bytes());
    }
    assert_eq!(tokenizer.encode("<end>").unwrap(), [258]);
    assert!(tokenizer.piece_bytes(9999).is_empty());
}

#[test]
fn a_stream_gives_whole_characters_only() {
    let (_folder, path) = folder();
    let tokenizer = Tokenizer::from_file(&path).unwrap();
    let text = "the 🦀 and 日本 — done";
    let mut stream = TextStream::new(&tokenizer);
    let mut all = String::new();
    for token in tokenizer.encode(text).unwrap() {
        all.push_str(&stream.push(token));
        assert!(text.starts_with(&all), "{all}");
    }
    assert_eq!(all + &stream.finish(), text);
    // Half a character at the end, and a byte that begins none.
    let crab = tokenizer.encode("🦀").unwrap();
    let mut stream = TextStream::new(&tokenizer);
    assert_eq!(stream.push(crab[1]), "\u{FFFD}");
    assert_eq!(stream.push(crab[0]), "");
    assert_eq!(stream.finish(), "\u{FFFD}");
}

#[test]
fn stop_texts_end_the_stream_wherever_tokens_are_cut() {
    let (_folder, path) = folder();
    let tokenizer = Tokenizer::from_file(&path).unwrap();
    let stops = ["</s>".to_string(), String::new(), "stop".to_string()];
    let run = |text: &str| {
        let mut stream = TextStream::with_stops(&tokenizer, &stops);
        let mut all = String::new();
        for token in tokenizer.encode(text).unwrap() {
            all.push_str(&stream.push(token));
        }
        (all + &stream.finish(), stream.stopped())
    };
    assert_eq!(run("one two</s> three"), ("one two".to_string(), Some(0)));
    assert_eq!(run("sto stop</s>"), ("sto ".to_string(), Some(2)));
    assert_eq!(run("a </s and sto"), ("a </s and sto".to_string(), None));
    assert_eq!(run("é</s>"), ("é".to_string(), Some(0)));
}

#[test]
fn damaged_files_are_errors() {
    let (folder, path) = folder();
    let good = byte_level().to_string().into_bytes();
    for cut in (0..good.len()).step_by(37) {
        std::fs::write(&path, &good[..cut]).unwrap();
        let error = Tokenizer::from_file(&path).unwrap_err().to_string();
        assert!(error.contains("not a tokenizer.json"), "{cut}: {error}");
    }
    let mut rng = Rng::new(3);
    for _ in 0..300 {
        let mut bad = good.clone();
        let at = rng.below(bad.len());
        bad[at] ^= 1 << rng.below(8);
        std::fs::write(&path, bad).unwrap();
        if let Ok(tokenizer) = Tokenizer::from_file(&path) {
            let _ = tokenizer.encode("the crab").map(|tokens| tokenizer.decode(&tokens));
        }
    }
    std::fs::write(&path, good).unwrap();
    std::fs::write(folder.path().join("tokenizer_config.json"), "{").unwrap();
    assert!(Tokenizer::from_file(&path).unwrap_err().to_string().contains("tokenizer_config.json: not JSON"));
}
