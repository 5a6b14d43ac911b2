//! Checkpoints of llama2.c.

use crate::tiny::{settings, tokens};
use engines::{Model, Spec, Tokenizer, load, load_from_memory};
use kernels::Rng;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;
use std::path::Path;

const WIDTH: usize = 24;
const INNER: usize = 40;
const LAYERS: usize = 2;
const HEADS: usize = 3;
const HEAD_WIDTH: usize = 8;
const VOCAB: usize = 300;
const CONTEXT: usize = 64;

/// Tensors in the order of the file: name, copies, rows, columns.
const LAYOUT: [(&str, usize, usize, usize); 11] = [
    ("model.embed_tokens", 1, VOCAB, WIDTH),
    ("input_layernorm", LAYERS, 1, WIDTH),
    ("self_attn.q_proj", LAYERS, WIDTH, WIDTH),
    ("self_attn.k_proj", LAYERS, HEAD_WIDTH, WIDTH),
    ("self_attn.v_proj", LAYERS, HEAD_WIDTH, WIDTH),
    ("self_attn.o_proj", LAYERS, WIDTH, WIDTH),
    ("post_attention_layernorm", LAYERS, 1, WIDTH),
    ("mlp.gate_proj", LAYERS, INNER, WIDTH),
    ("mlp.down_proj", LAYERS, WIDTH, INNER),
    ("mlp.up_proj", LAYERS, INNER, WIDTH),
    ("model.norm", 1, 1, WIDTH),
];

/// A tensor's name, shape and numbers.
type Named = (String, Vec<usize>, Vec<f32>);

/// The file, and the same tensors by name.
fn checkpoint() -> (Vec<u8>, Vec<Named>) {
    let mut rng = Rng::new(1);
    let header = [WIDTH, INNER, LAYERS, HEADS, 1, VOCAB, CONTEXT];
    let mut bytes: Vec<u8> = header.iter().flat_map(|n| (*n as i32).to_le_bytes()).collect();
    let mut tensors = Vec::new();
    for (name, copies, rows, cols) in LAYOUT {
        for i in 0..copies {
            let scale = if rows == 1 { 1.0 } else { 1.0 / (cols as f32).sqrt() };
            let values: Vec<f32> = (0..rows * cols).map(|_| rng.normal() * scale).collect();
            bytes.extend(values.iter().flat_map(|x| x.to_le_bytes()));
            let name = if copies == 1 { format!("{name}.weight") } else { format!("model.layers.{i}.{name}.weight") };
            tensors.push((name, if rows == 1 { vec![cols] } else { vec![rows, cols] }, values));
        }
    }
    bytes.extend(vec![0; CONTEXT * HEAD_WIDTH * 4]);
    (bytes, tensors)
}

fn load_file(path: &Path) -> Result<engines::Loaded, String> {
    load(&Spec::parse(path.to_str().unwrap()).unwrap(), &settings(), &|_, _| ()).map_err(|e| e.to_string())
}

/// The same model as Hugging Face writes it: rotary pairs are split in halves, so rows of q and k move from (2i, 2i + 1) to
/// (i, i + K/2).
fn half_split(tensors: &[Named]) -> std::sync::Arc<dyn Model> {
    let moved = |name: &str, values: &[f32]| -> Vec<f32> {
        if !name.contains("q_proj") && !name.contains("k_proj") {
            return values.to_vec();
        }
        let from = |r: usize| {
            let (head, i) = (r / HEAD_WIDTH, r % HEAD_WIDTH);
            head * HEAD_WIDTH + if i < HEAD_WIDTH / 2 { 2 * i } else { 2 * (i - HEAD_WIDTH / 2) + 1 }
        };
        (0..values.len() / WIDTH).flat_map(|r| values[from(r) * WIDTH..][..WIDTH].to_vec()).collect()
    };
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, shape, values)| {
            (name.clone(), shape.clone(), moved(name, values).iter().flat_map(|x| x.to_le_bytes()).collect())
        })
        .collect();
    let views = bytes
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    let weights = safetensors::serialize(views, None).unwrap();
    let config = json!({"model_type": "llama", "hidden_size": WIDTH, "intermediate_size": INNER,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": 1, "vocab_size": VOCAB,
        "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5, "tie_word_embeddings": true});
    load_from_memory(config.to_string().as_bytes(), &weights, &settings()).unwrap()
}

#[test]
fn a_checkpoint_is_the_same_model_as_its_hugging_face_form() {
    let (bytes, tensors) = checkpoint();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.bin");
    std::fs::write(&path, bytes).unwrap();
    let loaded = load_file(&path).unwrap();
    assert!(loaded.tokenizer.is_none() && loaded.name == "model.bin");
    assert_eq!(loaded.model.facts().architecture, "llama2.c");
    let tokens = tokens(CONTEXT, VOCAB, 2);
    let trace = |model: &dyn Model| model.trace(&mut model.start(0), &tokens).unwrap().logits;
    let (found, expected) = (trace(&*loaded.model), trace(&*half_split(&tensors)));
    let worst = found.as_slice().iter().zip(expected.as_slice()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-4, "{worst}");
}

#[test]
fn damaged_checkpoints_are_errors() {
    let (bytes, _) = checkpoint();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.bin");
    let says = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        load_file(&path).err().expect("damaged")
    };
    for cut in (1..40).chain((40..bytes.len()).step_by(997)) {
        assert!(says(&bytes[..cut]).contains("model.bin"), "{cut}");
    }
    for field in 0..7 {
        for value in [0i32, -1, i32::MIN, i32::MAX, 5, 1 << 24] {
            let mut bytes = bytes.clone();
            bytes[4 * field..][..4].copy_from_slice(&value.to_le_bytes());
            says(&bytes);
        }
    }
    let mut nan = bytes.clone();
    nan[1000..1004].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(says(&nan).contains("model.embed_tokens.weight: the number at row"));
}

#[test]
fn a_file_of_no_known_format_is_told_by_its_first_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.bin");
    let says = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        load_file(&path).err().expect("not a model")
    };
    let other = says(&[b"GGUF\x03\0\0\0".as_slice(), &[7; 100]].concat());
    for needle in
        ["model.bin: its first bytes, 47 47 55 46 03 00 00 00 (GGUF....)", "safetensors", "PyTorch", "rwkv.cpp"]
    {
        assert!(other.contains(needle), "{other}");
    }
    assert!(other.contains("llama2.c: width 1179993927 in its header"), "{other}");
    assert!(says(b"hi").contains("68 69 (hi)"));
    assert!(says(b"hi").contains("2 bytes, where its header alone has 28"));
}

/// A vocabulary of three special tokens, all bytes, and some pieces.
fn vocabulary() -> Vec<u8> {
    let mut bytes = 9i32.to_le_bytes().to_vec();
    let mut push = |piece: &[u8], score: f32| {
        bytes.extend(score.to_le_bytes());
        bytes.extend((piece.len() as i32).to_le_bytes());
        bytes.extend(piece);
    };
    ["<unk>", "<s>", "</s>"].into_iter().for_each(|special| push(special.as_bytes(), 0.0));
    (0..=255u8).for_each(|byte| push(format!("<0x{byte:02X}>").as_bytes(), 0.0));
    for (piece, score) in
        [(" ", -1.0), ("a", -2.0), ("b", -3.0), ("ab", -0.5), (" a", -0.7), ("abab", -0.2), ("é", -4.0)]
    {
        push(piece.as_bytes(), score);
    }
    bytes
}

#[test]
fn the_vocabulary_joins_the_best_pair_first_and_falls_back_to_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.bin");
    std::fs::write(&path, vocabulary()).unwrap();
    let tokenizer = Tokenizer::from_file(&path).unwrap();
    assert_eq!((tokenizer.vocab(), tokenizer.bos(), tokenizer.eos()), (266, Some(1), Some(2)));
    let piece = |text: &str| tokenizer.token(text).unwrap();
    assert_eq!(tokenizer.encode("abab").unwrap(), [piece(" "), piece("abab")]);
    assert_eq!(tokenizer.encode("a").unwrap(), [piece(" a")]);
    assert_eq!(tokenizer.encode("é\n").unwrap(), [piece(" "), piece("é"), 3 + 10]);
    assert_eq!(tokenizer.encode("").unwrap(), [0u32; 0]);
    for text in ["abab", "a b", "héllo\n", " two  spaces", "日本", ""] {
        assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap()), text);
    }
    let mut rng = Rng::new(1);
    let good = vocabulary();
    for _ in 0..300 {
        let mut bad = good[..1 + rng.below(good.len() - 1)].to_vec();
        let at = rng.below(bad.len());
        bad[at] ^= 1 << rng.below(8);
        std::fs::write(&path, &bad).unwrap();
        if let Ok(tokenizer) = Tokenizer::from_file(&path) {
            let _ = tokenizer.encode("abab é").map(|tokens| tokenizer.decode(&tokens));
        }
    }
}
