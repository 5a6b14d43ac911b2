//! Files that others wrote: checkpoints of PyTorch against safetensors files of the same weights, and vocabularies against
//! the tokens that their publishers' programs give.

use engines::{Spec, TensorFile, Tokenizer};
use promises::external::{fixtures, or_skip, report};
use promises::recurrent_recipe::{Kind, RECURRENT_RECIPES};
use promises::running::{bits, logits, plain};
use serde_json::Value;
use std::path::Path;

/// Every tensor of `checkpoint` has the bits and, apart from axes of 1, the shape of the safetensors file beside it. Gives
/// how many there were.
fn compare(checkpoint: &Path, safetensors: &Path, rename: impl Fn(&str) -> Option<String>) -> usize {
    let (found, expected) = (TensorFile::open(checkpoint).unwrap(), TensorFile::open(safetensors).unwrap());
    let names = found.names();
    for name in &names {
        let Some(other) = rename(name) else { continue };
        assert_eq!(found.shape(name), expected.shape(&other), "{name}");
        let bits = |numbers: Vec<f32>| numbers.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(found.read(name).unwrap()), bits(expected.read(&other).unwrap()), "{name}");
    }
    let renamed: std::collections::BTreeSet<String> = names.iter().filter_map(|name| rename(name)).collect();
    assert!(expected.names().iter().all(|name| renamed.contains(name)), "the checkpoint lacks a tensor");
    names.len()
}

#[test]
fn torch_checkpoints_hold_the_bits_of_safetensors() {
    let promise = "a checkpoint of PyTorch gives the same bits as safetensors";
    for model in ["rwkv4_f32", "rwkv7_f32"] {
        let Some(folder) = or_skip(promise, fixtures(), model) else { return };
        let count =
            compare(&folder.join("model.pth"), &folder.join("model.safetensors"), |name| Some(name.to_string()));
        report(promise, &format!("{model}: {count} tensors"));
    }
    for model in ["mamba1_f32", "mamba2_f32"] {
        let Some(folder) = or_skip(promise, fixtures(), model) else { return };
        let checkpoint = folder.join("mamba_ssm_format/pytorch_model.bin");
        // The original's names, and its copy of the tied embedding.
        let count = compare(&checkpoint, &folder.join("model.safetensors"), |name| match name {
            "lm_head.weight" | "backbone.embedding.weight" => Some("backbone.embeddings.weight".to_string()),
            other => Some(other.to_string()),
        });
        report(promise, &format!("{model}: {count} tensors"));
    }
}

#[test]
fn an_rwkv_runs_from_its_checkpoint_as_from_safetensors() {
    let promise = "an RWKV gives the same bits from PyTorch's file as from safetensors";
    for model in ["rwkv4_f32", "rwkv7_f32"] {
        let Some(folder) = or_skip(promise, fixtures(), model) else { return };
        let load = |spec| engines::load(&spec, &plain(), &|_, _| {}).unwrap_or_else(|error| panic!("{error}"));
        let whole = load(Spec::Folder(folder.clone()));
        let tokens: Vec<u32> = (0..60).map(|i| i * 7 % 512).collect();
        let expected = bits(logits(&*whole.model, &tokens).as_slice());
        for file in ["model.pth", "model.safetensors"] {
            let alone = load(Spec::File(folder.join(file)));
            assert!(bits(logits(&*alone.model, &tokens).as_slice()) == expected, "{model}/{file}");
            assert!(alone.tokenizer.is_some() && whole.tokenizer.is_some(), "{model}: the tokenizer beside it");
        }
    }
}

#[test]
fn a_checkpoint_in_several_files_runs_as_one() {
    let promise = "a Mamba gives the same bits from the shards of PyTorch's file as from safetensors";
    let Some(golden) = or_skip(promise, fixtures(), "mamba1_f32") else { return };
    let load = |folder: &Path| {
        let loaded = engines::load(&Spec::Folder(folder.to_path_buf()), &plain(), &|_, _| {});
        loaded.unwrap_or_else(|error| panic!("{error}"))
    };
    let tokens: Vec<u32> = (0..60).map(|i| i * 7 % 512).collect();
    let expected = bits(logits(&*load(&golden).model, &tokens).as_slice());
    let whole = golden.join("mamba_ssm_format/pytorch_model.bin");
    let names: Vec<String> =
        TensorFile::open(&whole).unwrap().names().into_iter().filter(|name| name != "lm_head.weight").collect();
    // Two files that hold all, and an index that takes every other tensor from each.
    let copy = tempfile::tempdir().unwrap();
    let files = [1, 2].map(|i| format!("pytorch_model-0000{i}-of-00002.bin"));
    for file in &files {
        std::fs::copy(&whole, copy.path().join(file)).unwrap();
    }
    std::fs::copy(golden.join("config.json"), copy.path().join("config.json")).unwrap();
    let map: serde_json::Map<String, Value> =
        names.iter().enumerate().map(|(i, name)| (name.clone(), files[i % 2].clone().into())).collect();
    let index = copy.path().join("pytorch_model.bin.index.json");
    std::fs::write(&index, serde_json::json!({ "weight_map": map }).to_string()).unwrap();
    assert!(bits(logits(&*load(copy.path()).model, &tokens).as_slice()) == expected);
    report(promise, &format!("{} tensors in two files", names.len()));
}

#[test]
fn the_world_vocabulary_is_found_beside_a_model() {
    let recipe = RECURRENT_RECIPES.iter().find(|recipe| recipe.kind == Kind::Rwkv7).unwrap();
    let folder = tempfile::tempdir().unwrap();
    recipe.write(folder.path(), 1);
    let specs = [Spec::Folder(folder.path().to_path_buf()), Spec::File(folder.path().join("model.safetensors"))];
    let tokenizer = |spec: &Spec| {
        let loaded = engines::load(spec, &plain(), &|_, _| {});
        loaded.map(|loaded| loaded.tokenizer).map_err(|error| error.to_string())
    };
    for spec in &specs {
        assert!(tokenizer(spec).unwrap().is_none(), "nothing beside it yet");
    }
    let vocabulary = folder.path().join("rwkv_vocab_v20230424.txt");
    std::fs::write(&vocabulary, "1 'a' 1\n2 'b' 1\n3 'ab' 2\n4 ' ' 1\n5 b'\\xff' 1\n").unwrap();
    for spec in &specs {
        let found = tokenizer(spec).unwrap().expect("the vocabulary beside it");
        assert_eq!((found.vocab(), found.eos()), (6, Some(0)), "{spec:?}");
        assert_eq!(found.encode("ab ba").unwrap(), [3, 4, 2, 1], "{spec:?}");
        assert_eq!(found.decode(&[3, 4, 2, 1]), "ab ba", "{spec:?}");
    }
    std::fs::write(&vocabulary, "1 'a' 2\n").unwrap();
    for spec in &specs {
        assert!(tokenizer(spec).unwrap_err().contains("rwkv_vocab_v20230424.txt"), "{spec:?}");
    }
}

/// Every text gives the tokens of the golden file, and they give the text again.
fn tokens_are_golden(promise: &str, tokenizer: &Tokenizer, golden: &Path) {
    let cases: Value = serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
    let cases = cases.as_array().unwrap();
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let ids: Vec<u32> = case["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        assert_eq!(tokenizer.encode(text).unwrap(), ids, "{text:?}");
        let decoded = case["decoded"].as_str().unwrap_or(text);
        assert_eq!(tokenizer.decode(&ids), decoded, "{text:?}");
    }
    report(promise, &format!("{} texts of {}", cases.len(), golden.display()));
}

#[test]
fn the_world_vocabulary_gives_the_golden_tokens() {
    let promise = "RWKV World's vocabulary gives the tokens of the rwkv package";
    let Some(folder) = or_skip(promise, fixtures(), "rwkv_world_tokenizer") else { return };
    let published = folder.join("rwkv_vocab_v20230424.txt");
    let tokenizer = Tokenizer::from_file(&published).unwrap();
    assert_eq!((tokenizer.vocab(), tokenizer.bos(), tokenizer.eos()), (65530, None, Some(0)));
    tokens_are_golden(promise, &tokenizer, &folder.join("golden.json"));
    // The same file with the other line ends.
    let text = std::fs::read_to_string(&published).unwrap();
    let other = if text.contains("\r\n") { text.replace("\r\n", "\n") } else { text.replace('\n', "\r\n") };
    let copy = tempfile::tempdir().unwrap();
    let copy = copy.path().join("vocabulary.txt");
    std::fs::write(&copy, other).unwrap();
    tokens_are_golden(promise, &Tokenizer::from_file(&copy).unwrap(), &folder.join("golden.json"));
}

#[test]
fn byte_level_vocabularies_give_the_golden_tokens() {
    let promise = "a tokenizer.json in the style of GPT-NeoX gives the tokens of the tokenizers library";
    for model in ["mamba1_f32", "mamba2_f32", "rwkv4_f32", "rwkv4_hf_f32", "rwkv5_2_f32", "rwkv6_f32", "rwkv7_f32"] {
        let Some(folder) = or_skip(promise, fixtures(), model) else { return };
        let tokenizer = Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
        tokens_are_golden(promise, &tokenizer, &folder.join("tokenizer_golden.json"));
    }
}
