//! What engines refuse: with one sentence that says where, what was expected and what was found. Nothing panics.

use engines::{CacheFormat, Cpu, Error, Loaded, Segment, Spec, Tokenizer, Want};
use kernels::Isa;
use promises::recipe::{CONTEXT, RECIPES, Recipe, write_config};
use promises::recurrent_recipe::RECURRENT_RECIPES;
use promises::running::{load, open, plain, settings};
use promises::tensors::{Tensor, Tensors};
use safetensors::Dtype;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn recipe(name: &str) -> &'static Recipe {
    RECIPES.iter().find(|recipe| recipe.name == name).unwrap_or_else(|| panic!("no recipe {name}"))
}

/// A folder with a good model.
fn good(recipe: &Recipe) -> (TempDir, Value, Tensors) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (config, tensors) = recipe.write(folder.path(), 5);
    (folder, config, tensors)
}

/// The sentence with which a folder is refused.
fn refusal(what: &str, folder: &Path) -> String {
    sentence(what, load(folder))
}

fn sentence(what: &str, result: Result<Loaded, Error>) -> String {
    let text = match result {
        Ok(_) => panic!("{what}: accepted"),
        Err(error) => error.to_string(),
    };
    assert!(!text.is_empty() && !text.contains('\n') && text.len() < 600, "{what}: not one sentence: {text}");
    text
}

/// Asserts that a sentence names everything that a reader needs.
fn names(what: &str, text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{what}: the sentence lacks {part:?}: {text}");
    }
}

/// Spoils the tensors of a good model and gives the refusal.
fn spoiled(what: &str, recipe: &Recipe, spoil: impl FnOnce(&mut Tensors)) -> String {
    let (folder, _, mut tensors) = good(recipe);
    spoil(&mut tensors);
    for entry in fs::read_dir(folder.path()).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.to_string_lossy().contains(".safetensors") {
            fs::remove_file(path).expect("a file");
        }
    }
    tensors.save(&folder.path().join("model.safetensors"));
    refusal(what, folder.path())
}

/// Changes the config of a good model and gives the refusal.
fn reconfigured(what: &str, recipe: &Recipe, change: impl FnOnce(&mut Value)) -> String {
    let (folder, mut config, _) = good(recipe);
    change(&mut config);
    write_config(folder.path(), &config);
    refusal(what, folder.path())
}

const UP: &str = "model.layers.1.mlp.up_proj.weight";

#[test]
fn a_missing_tensor_is_named() {
    for recipe in RECIPES {
        let names_of = recipe.tensors(5).names().map(str::to_string).collect::<Vec<_>>();
        for name in names_of {
            let text = spoiled(&name, recipe, |tensors| drop(tensors.remove(&name)));
            names(recipe.name, &text, &[&name]);
        }
    }
}

#[test]
fn a_tensor_of_another_shape_is_named_with_both_shapes() {
    for recipe in RECIPES {
        let names_of = recipe.tensors(5).names().map(str::to_string).collect::<Vec<_>>();
        for name in names_of {
            let mut extents = (0, 0);
            let text = spoiled(&name, recipe, |tensors| {
                let Tensor { mut shape, dtype, .. } = tensors.remove(&name);
                extents = (shape[0], shape[0] + 1);
                shape[0] += 1;
                let bytes = vec![0; shape.iter().product::<usize>() * dtype_bytes(dtype)];
                tensors.insert(&name, Tensor { shape, dtype, bytes });
            });
            // A scale is a single number, whether it has an extent or none.
            let expected = if name.ends_with("_scale") { "one number".to_string() } else { extents.0.to_string() };
            names(recipe.name, &text, &[&name, &expected, &extents.1.to_string()]);
        }
    }
}

#[test]
fn recurrent_models_name_a_tensor_that_is_missing_misshapen_or_not_finite() {
    for recipe in RECURRENT_RECIPES {
        // Where sizes are read from the tensors themselves, another one may be the one that does not fit.
        let described = recipe.config().is_some();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (_, mut tensors) = recipe.write(folder.path(), 5);
        let names_of: Vec<String> = tensors.names().map(str::to_string).collect();
        let refused = |tensors: &Tensors, name: &str, parts: &[&str]| {
            tensors.save(&folder.path().join("model.safetensors"));
            let parts =
                if described || parts.contains(&"not part of the model") { parts } else { &["model.safetensors"] };
            names(recipe.name, &refusal(name, folder.path()), parts);
        };
        for name in &names_of {
            let whole = tensors.remove(name);
            refused(&tensors, name, &[name, "missing"]);
            let mut shape = whole.shape.clone();
            shape[0] += 1;
            let zeros = vec![0.0; shape.iter().product()];
            let (expected, found) = (whole.shape[0].to_string(), shape[0].to_string());
            let flat = [".A_log", ".conv1d.weight"].iter().any(|part| name.ends_with(part));
            let expected = if flat { whole.shape.iter().product::<usize>().to_string() } else { expected };
            tensors.insert(name, Tensor::store(&zeros, shape, recipe.store));
            refused(&tensors, name, &[name, &expected, &found]);
            for value in [f32::NAN, f32::INFINITY] {
                let mut numbers = whole.f32s();
                *numbers.last_mut().expect("a number") = value;
                tensors.insert(name, Tensor::store(&numbers, whole.shape.clone(), recipe.store));
                refused(&tensors, name, &[name, &value.to_string()]);
            }
            tensors.insert(name, whole);
        }
        tensors.insert("nobody.knows.it", Tensor::store(&[1.0], vec![1], recipe.store));
        refused(&tensors, "a tensor too many", &["nobody.knows.it", "not part of the model"]);
    }
}

fn dtype_bytes(dtype: Dtype) -> usize {
    match dtype {
        Dtype::U8 => 1,
        Dtype::BF16 | Dtype::F16 => 2,
        _ => 4,
    }
}

#[test]
fn a_tensor_of_another_type_is_named_with_both_types() {
    let recast = |name: &'static str, dtype: Dtype, bytes: usize| {
        move |tensors: &mut Tensors| {
            let Tensor { shape, .. } = tensors.remove(name);
            let count: usize = shape.iter().product();
            tensors.insert(name, Tensor { shape, dtype, bytes: vec![0; count * bytes] });
        }
    };
    for (dtype, bytes) in [(Dtype::I64, 8), (Dtype::I32, 4), (Dtype::I8, 1), (Dtype::U8, 1), (Dtype::F64, 8)] {
        for name in ["model.embed_tokens.weight", "model.norm.weight", UP] {
            let text =
                spoiled(name, recipe("llama bf16, heads wider than the model, sharded"), recast(name, dtype, bytes));
            names(name, &text, &[name, &format!("{dtype:?}")]);
        }
    }
    for (dtype, bytes) in [(Dtype::F32, 4), (Dtype::BF16, 2), (Dtype::I8, 1)] {
        let text = spoiled("packed", recipe("bitnet packed"), recast(UP, dtype, bytes));
        names("packed", &text, &[UP, "U8", &format!("{dtype:?}")]);
    }
}

#[test]
fn numbers_that_are_not_finite_are_refused_wherever_they_stand() {
    for recipe in RECIPES {
        let names_of = recipe.tensors(5).names().map(str::to_string).collect::<Vec<_>>();
        for name in names_of {
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                if recipe.tensors(5).tensor(&name).dtype == Dtype::U8 {
                    continue;
                }
                let text = spoiled(&format!("{}: {value} in {name}", recipe.name), recipe, |tensors| {
                    let tensor = tensors.remove(&name);
                    let mut values = tensor.f32s();
                    *values.last_mut().expect("elements") = value;
                    tensors.insert(&name, Tensor::store(&values, tensor.shape, tensor.dtype));
                });
                names(recipe.name, &text, &[&name]);
            }
        }
    }
}

#[test]
fn a_code_that_is_no_weight_is_refused() {
    for name in ["bitnet packed", "llama bitlinear"] {
        for (at, shift) in [(0, 0), (17, 2), (100, 4), (301, 6)] {
            let text = spoiled(name, recipe(name), |tensors| {
                let mut tensor = tensors.remove(UP);
                tensor.bytes[at] |= 3 << shift;
                tensors.insert(UP, tensor);
            });
            names(name, &text, &[UP, "3"]);
        }
    }
}

#[test]
fn a_scale_that_scales_nothing_is_refused() {
    for name in ["bitnet packed", "llama bitlinear"] {
        for value in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let scale = "model.layers.0.self_attn.k_proj.weight_scale";
            let text = spoiled(&format!("{name}: scale {value}"), recipe(name), |tensors| {
                tensors.insert(scale, Tensor::store(&[value], vec![1], Dtype::BF16));
            });
            names(name, &text, &[scale]);
        }
    }
}

#[test]
fn a_config_that_disagrees_with_the_weights_is_refused_with_both_numbers() {
    let recipe = recipe("bitnet online bf16");
    let change = |key: &'static str, value: Value| move |config: &mut Value| config[key] = value;
    for (key, value, parts) in [
        ("hidden_size", json!(192), &["192", "96"][..]),
        ("intermediate_size", json!(161), &["161", "160"]),
        ("vocab_size", json!(98), &["98", "97"]),
        ("num_hidden_layers", json!(3), &["model.layers.2"]),
        ("num_hidden_layers", json!(1), &["model.layers.1", "1"]),
        ("num_key_value_heads", json!(3), &["48", "32"]),
        ("head_dim", json!(32), &["192", "96"]),
        ("tie_word_embeddings", json!(false), &["lm_head.weight"]),
        ("attention_bias", json!(true), &["bias"]),
    ] {
        let text = reconfigured(key, recipe, change(key, value));
        names(key, &text, parts);
    }
}

#[test]
fn a_config_that_makes_no_sense_is_refused_and_the_key_named() {
    let recipe = recipe("bitnet packed");
    let sizes = [
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "vocab_size",
        "max_position_embeddings",
        "head_dim",
    ];
    for key in sizes {
        for value in [json!(0), json!(-1), json!(1.5), json!("many"), json!(1u64 << 62), json!([2])] {
            let what = format!("{key} = {value}");
            let text = reconfigured(&what, recipe, |config| config[key] = value);
            names(&what, &text, &["config.json", key]);
        }
    }
    for (key, value) in [
        ("model_type", json!("gpt2")),
        ("model_type", json!(null)),
        ("hidden_act", json!("gelu")),
        ("rms_norm_eps", json!(-1.0)),
        ("rms_norm_eps", json!("small")),
        ("rope_theta", json!(0.0)),
        ("rope_theta", json!("large")),
        ("num_attention_heads", json!(5)),
        ("num_key_value_heads", json!(3)),
        ("head_dim", json!(15)),
        ("tie_word_embeddings", json!("yes")),
    ] {
        let what = format!("{key} = {value}");
        let text = reconfigured(&what, recipe, |config| config[key] = value);
        names(&what, &text, &["config.json"]);
    }
    for (key, value) in
        [("quant_method", json!("gptq")), ("linear_class", json!("other")), ("quantization_mode", json!("later"))]
    {
        let what = format!("quantization_config.{key} = {value}");
        let text = reconfigured(&what, recipe, |config| config["quantization_config"][key] = value.clone());
        names(&what, &text, &["config.json", value.as_str().expect("a text")]);
    }
    // Rotary embeddings that are scaled would be computed wrongly, not just differently.
    let text = reconfigured("rope_scaling", recipe, |config| {
        config["rope_scaling"] = json!({ "rope_type": "yarn", "factor": 4.0 });
    });
    names("rope_scaling", &text, &["config.json", "yarn"]);
    for key in ["hidden_size", "num_hidden_layers", "vocab_size", "num_attention_heads", "intermediate_size"] {
        let text = reconfigured(key, recipe, |config| {
            config.as_object_mut().expect("an object").remove(key);
        });
        names(key, &text, &["config.json", key]);
    }
}

#[test]
fn files_that_are_not_there_or_not_what_they_should_be_are_named() {
    let (folder, ..) = good(recipe("bitnet online bf16"));
    let path = |name: &str| folder.path().join(name);
    for text in ["", "{", "[]", "null", "{\"model_type\": ", "\u{0}\u{1}", "{} trailing"] {
        fs::write(path("config.json"), text).expect("a file");
        names(text, &refusal(text, folder.path()), &["config.json"]);
    }
    fs::remove_file(path("config.json")).expect("a file");
    names("no config", &refusal("no config", folder.path()), &["config.json"]);

    let (folder, ..) = good(recipe("bitnet online bf16"));
    fs::remove_file(folder.path().join("model.safetensors")).expect("a file");
    names("no weights", &refusal("no weights", folder.path()), &["model.safetensors"]);

    let nowhere = PathBuf::from("/nonexistent/model");
    names("nowhere", &refusal("nowhere", &nowhere), &["/nonexistent/model"]);
    names("nowhere", &Spec::parse("/nonexistent/model").expect_err("refused").to_string(), &["/nonexistent/model"]);
    let file = sentence("file", engines::load(&Spec::File(nowhere.join("x.bin")), &plain(), &|_, _| {}));
    names("file", &file, &["/nonexistent/model/x.bin"]);
}

#[test]
fn an_index_that_points_nowhere_is_refused() {
    let recipe = recipe("llama bf16, heads wider than the model, sharded");
    let with_index = |what: &str, change: &dyn Fn(&mut Value)| {
        let (folder, ..) = good(recipe);
        let path = folder.path().join("model.safetensors.index.json");
        let mut index: Value = serde_json::from_slice(&fs::read(&path).expect("an index")).expect("JSON");
        change(&mut index);
        fs::write(&path, index.to_string()).expect("an index");
        refusal(what, folder.path())
    };
    let shard = "model-00009-of-00002.safetensors";
    let text = with_index("missing shard", &|index| index["weight_map"][UP] = json!(shard));
    names("missing shard", &text, &[shard]);
    let other = |index: &mut Value| {
        let here = index["weight_map"][UP].as_str().expect("a file").to_string();
        let files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        index["weight_map"][UP] = json!(files.iter().find(|file| **file != here));
    };
    names("wrong shard", &with_index("wrong shard", &other), &[UP]);
    let outside = with_index("outside", &|index| index["weight_map"][UP] = json!("../../etc/passwd"));
    names("outside", &outside, &["../../etc/passwd"]);
    names("number", &with_index("number", &|index| index["weight_map"][UP] = json!(3)), &["index.json"]);
    names("no map", &with_index("no map", &|index| *index = json!({ "metadata": {} })), &["index.json"]);
    let (folder, ..) = good(recipe);
    fs::remove_file(folder.path().join("model-00002-of-00002.safetensors")).expect("a shard");
    names("lost", &refusal("lost", folder.path()), &["model-00002-of-00002.safetensors"]);
}

/// The smallest model that there is, so that thousands of spoiled copies can be tried.
fn small() -> (Vec<u8>, Vec<u8>) {
    let (folder, ..) = good(recipe("llama f32, tied, one layer of odd width"));
    let read = |name| fs::read(folder.path().join(name)).expect("a file");
    (read("config.json"), read("model.safetensors"))
}

fn header_bytes(weights: &[u8]) -> usize {
    8 + u64::from_le_bytes(weights[..8].try_into().expect("eight bytes")) as usize
}

#[test]
fn weights_cut_off_at_any_place_are_refused() {
    let (config, weights) = small();
    let header = header_bytes(&weights);
    let places = (0..header).step_by(7).chain((0..weights.len()).step_by(64)).chain([weights.len() - 1]);
    for at in places {
        let result = engines::load_from_memory(&config, &weights[..at], &plain());
        assert!(result.is_err(), "cut at byte {at} of {}: accepted", weights.len());
    }
    assert!(engines::load_from_memory(&config, &weights, &plain()).is_ok(), "the whole file is good");

    // From a file, with the file's name and both sizes.
    let (folder, ..) = good(recipe("llama f32, tied, one layer of odd width"));
    let path = folder.path().join("model.safetensors");
    for at in [0, 5, 8, header / 2, header, header + 64, weights.len() - 1] {
        fs::write(&path, &weights[..at]).expect("a file");
        names("cut", &refusal(&format!("cut at {at}"), folder.path()), &["model.safetensors"]);
    }
    fs::write(&path, &weights[..weights.len() - 1]).expect("a file");
    let both = [weights.len().to_string(), (weights.len() - 1).to_string()];
    names("cut", &refusal("cut", folder.path()), &[&both[0], &both[1]]);
}

#[test]
fn a_header_with_any_byte_changed_never_panics() {
    let (config, weights) = small();
    for at in 0..header_bytes(&weights) {
        for change in [0x01, 0x20, 0x80, 0xFF] {
            let mut spoiled = weights.clone();
            spoiled[at] ^= change;
            // Some changes keep the meaning (white space, metadata); none may panic or take memory without bound.
            let _ = engines::load_from_memory(&config, &spoiled, &plain());
        }
    }
}

#[test]
fn a_config_with_any_byte_changed_never_panics() {
    let (config, weights) = small();
    for at in 0..config.len() {
        for byte in [b'0', b'9', b'-', b'"', b'{', b'e', 0xFF] {
            let mut spoiled = config.clone();
            spoiled[at] = byte;
            let _ = engines::load_from_memory(&spoiled, &weights, &plain());
        }
    }
}

#[test]
fn headers_that_lie_are_refused() {
    let (config, weights) = small();
    let header = header_bytes(&weights);
    let json: Value = serde_json::from_slice(&weights[8..header]).expect("a header");
    let file = |json: &str| {
        let mut file = (json.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(json.as_bytes());
        file.extend_from_slice(&weights[header..]);
        file
    };
    let refused = |what: &str, file: &[u8]| {
        let result = engines::load_from_memory(&config, file, &plain());
        let error = result.err().unwrap_or_else(|| panic!("{what}: accepted")).to_string();
        assert!(!error.contains('\n') && error.len() < 600, "{what}: not one sentence: {error}");
    };
    assert!(
        engines::load_from_memory(&config, &file(&json.to_string()), &plain()).is_ok(),
        "a rewritten header is good"
    );
    for length in [0, 1, u64::MAX, 1 << 40, weights.len() as u64] {
        let mut file = weights.clone();
        file[..8].copy_from_slice(&length.to_le_bytes());
        refused(&format!("a header of {length} bytes"), &file);
    }
    let gate = "model.layers.0.mlp.gate_proj.weight";
    for (what, shape, offsets, dtype) in [
        ("offsets beyond the file", json!([51, 35]), json!([0, 1u64 << 40]), "F32"),
        ("offsets backwards", json!([51, 35]), json!([7140, 0]), "F32"),
        ("offsets that do not fit the shape", json!([51, 35]), json!([0, 8]), "F32"),
        ("a shape that overflows", json!([1u64 << 33, 1u64 << 33]), json!([0, 7140]), "F32"),
        ("a negative shape", json!([-51, 35]), json!([0, 7140]), "F32"),
        ("an unknown type", json!([51, 35]), json!([0, 7140]), "F33"),
        ("no shape", json!(null), json!([0, 7140]), "F32"),
    ] {
        let mut json = json.clone();
        json[gate] = json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets });
        refused(what, &file(&json.to_string()));
    }
    let text = json.to_string();
    refused("a header that is a list", &file("[]"));
    refused("a header that is empty", &file("{}"));
    refused("bytes after the last tensor", &[&file(&text)[..], &[0; 64]].concat());
    // A long run of brackets must not exhaust the stack.
    refused("deep brackets", &file(&"[".repeat(200_000)));
}

#[test]
fn what_cannot_be_read_leaves_the_state_as_it_was() {
    let (folder, ..) = good(recipe("bitnet packed"));
    let model = open(folder.path());
    let mut state = model.start(0);
    let mut read = |tokens: &[u32]| {
        let before = state.len();
        let result = model.forward(&mut [Segment { state: &mut state, tokens, want: Want::Last }]);
        let expected = if result.is_ok() { before + tokens.len() } else { before };
        assert_eq!(state.len(), expected, "tokens read after {tokens:?}");
        result.map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(read(&[1, 2, 130]), Ok(()));
    names("token", &read(&[5, 131]).expect_err("refused"), &["131"]);
    names("token", &read(&[u32::MAX]).expect_err("refused"), &[&u32::MAX.to_string(), "131"]);
    assert!(read(&[]).is_err(), "an empty prompt");
    names(
        "context",
        &read(&[7; CONTEXT - 2]).expect_err("refused"),
        &[&CONTEXT.to_string(), &(CONTEXT + 1).to_string()],
    );
    assert_eq!(read(&[7; CONTEXT - 3]), Ok(()), "exactly full");
    names("full", &read(&[7]).expect_err("refused"), &[&CONTEXT.to_string(), &(CONTEXT + 1).to_string()]);
    let text = state.rewind(CONTEXT + 1).expect_err("refused").to_string();
    names("rewind", &text, &[&CONTEXT.to_string(), &(CONTEXT + 1).to_string()]);
}

#[test]
fn a_bad_segment_leaves_every_state_of_its_batch_as_it_was() {
    let (folder, ..) = good(recipe("bitnet packed"));
    let model = open(folder.path());
    let (mut a, mut b) = (model.start(0), model.start(0));
    let mut batch = [
        Segment { state: &mut a, tokens: &[1, 2], want: Want::Last },
        Segment { state: &mut b, tokens: &[131], want: Want::Last },
    ];
    assert!(model.forward(&mut batch).is_err());
    assert!(a.is_empty() && b.is_empty());
    assert!(model.forward(&mut []).is_ok_and(|answers| answers.is_empty()), "an empty batch has no answers");
}

#[test]
fn a_state_of_another_model_or_cache_is_refused() {
    let ((one, ..), (other, ..)) = (good(recipe("bitnet packed")), good(recipe("bitnet online bf16")));
    let (one, other) = (open(one.path()), open(other.path()));
    for mut state in [other.start(0), one.with(&settings(Isa::best(), 1, CacheFormat::Bf16)).start(0)] {
        let segment = Segment { state: &mut state, tokens: &[1], want: Want::Last };
        let text = one.forward(&mut [segment]).expect_err("refused").to_string();
        assert!(text.len() > 20, "{text}");
    }
}

#[test]
fn inputs_of_a_block_that_do_not_fit_are_refused() {
    let (folder, ..) = good(recipe("bitnet packed"));
    let model = open(folder.path());
    for (index, count) in [(2, 64), (usize::MAX, 64), (0, 0), (0, 63), (1, 65), (0, 64 * (CONTEXT + 1))] {
        assert!(model.block(index, &vec![0.5; count]).is_err(), "block {index} of {count} numbers: accepted");
    }
}

/// A llama2.c file of the smallest sizes: D 8, E 12, L 1, H 2, one key/value head, V 5, 4 positions.
fn llama2c() -> Vec<u8> {
    let header = [8i32, 12, 1, 2, 1, 5, 4];
    let floats = 5 * 8 + 8 + 64 + 32 + 32 + 64 + 8 + 3 * 96 + 8 + 4 * 4;
    let mut bytes: Vec<u8> = header.iter().flat_map(|n| n.to_le_bytes()).collect();
    bytes.extend((0..floats).flat_map(|i| ((i % 7) as f32 * 0.1 - 0.3).to_le_bytes()));
    bytes
}

#[test]
fn a_checkpoint_of_llama2c_that_is_cut_or_lies_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("tiny.bin");
    let load = |bytes: &[u8]| {
        fs::write(&path, bytes).expect("a file");
        engines::load(&Spec::File(path.clone()), &plain(), &|_, _| {})
    };
    let whole = llama2c();
    load(&whole).unwrap_or_else(|error| panic!("the whole file is good: {error}"));
    for at in (0..whole.len()).step_by(64).chain([27, whole.len() - 1]) {
        names("cut", &sentence(&format!("cut at {at}"), load(&whole[..at])), &["tiny.bin"]);
    }
    for field in 0..7 {
        for value in [0, -1, i32::MIN, i32::MAX, 1 << 20] {
            if field == 5 && value == -1 {
                continue;
            }
            let mut bytes = whole.clone();
            bytes[4 * field..4 * field + 4].copy_from_slice(&value.to_le_bytes());
            let what = format!("header field {field} = {value}");
            names(&what, &sentence(&what, load(&bytes)), &["tiny.bin"]);
        }
    }
    let mut nan = whole.clone();
    nan[28..32].copy_from_slice(&f32::NAN.to_le_bytes());
    names("NaN", &sentence("NaN", load(&nan)), &["tiny.bin"]);
}

#[test]
fn tokenizers_that_are_none_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["tokenizer.json", "tokenizer.bin"] {
        let path = folder.path().join(name);
        for bytes in [&b""[..], b"{", b"{}", b"[1, 2]", b"\x05\0\0\0\0\0\0\0\xFF\xFF\xFF\xFFab", b"\xFF\xFE"] {
            fs::write(&path, bytes).expect("a file");
            match Tokenizer::from_file(&path) {
                Ok(_) => panic!("{name} of {bytes:?}: accepted"),
                Err(error) => names(name, &error.to_string(), &[name]),
            }
        }
    }
    assert!(Tokenizer::from_file(folder.path().join("none.json")).is_err());
    // A folder with a good model and a bad tokenizer is not half loaded in silence.
    let (model, ..) = good(recipe("bitnet packed"));
    fs::write(model.path().join("tokenizer.json"), "{").expect("a file");
    names("tokenizer", &refusal("tokenizer", model.path()), &["tokenizer.json"]);
}

#[test]
fn names_and_settings_that_mean_nothing_are_refused() {
    for text in ["synthetic:", "synthetic:nothing", "synthetic:bitnet-tiny:x", "synthetic:bitnet-tiny:-1", ""] {
        assert!(Spec::parse(text).is_err(), "{text:?}: accepted");
    }
    let text = Spec::parse("synthetic:bitnet-2b").expect_err("refused").to_string();
    names("shape", &text, &["bitnet-2b", "bitnet-2b-4t"]);
    names("threads", &Cpu::new(Isa::Scalar, 0).expect_err("refused").to_string(), &["0"]);
    assert!(Cpu::new(Isa::Scalar, usize::MAX).is_err());
}
