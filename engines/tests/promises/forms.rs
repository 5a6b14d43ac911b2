//! Every published form of the same weights is the same model, and mistakes in use are errors.

use crate::tiny::{CONTEXT, Form, INNER, LAYERS, Recipe, Tiny, VOCAB, WIDTH, settings, tokens};
use engines::{Error, Model, Segment, Spec, Want, load};
use safetensors::Dtype;
use std::sync::Arc;

fn model(recipe: Recipe) -> Arc<dyn Model> {
    Tiny::new(recipe).load(&settings()).unwrap()
}

fn hidden(model: &dyn Model) -> Vec<f32> {
    model.trace(&mut model.start(0), &tokens(9, VOCAB, 4)).unwrap().hidden.concat()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn master_and_packed_forms_of_the_same_weights_agree() {
    // Scales are kept in f32 here, so all that may differ is the last bit of a factor.
    let base = Recipe { form: Form::Master(Dtype::F32), ..Recipe::default() };
    let expected = hidden(&*model(base));
    for form in [Form::Multiplied, Form::Divided] {
        let found = hidden(&*model(Recipe { form, ..base }));
        assert!(distance(&found, &expected) < 1e-4, "{form:?}: {}", distance(&found, &expected));
    }
}

#[test]
fn a_bias_is_scaled_only_in_the_form_that_multiplies() {
    let base = Recipe { bitnet: false, bias: true, form: Form::Master(Dtype::F32), ..Recipe::default() };
    let expected = hidden(&*model(base));
    let divided = hidden(&*model(Recipe { form: Form::Divided, ..base }));
    assert!(distance(&divided, &expected) < 1e-4);
    let mut tiny = Tiny::new(Recipe { form: Form::Multiplied, ..base });
    assert!(distance(&hidden(&*tiny.load(&settings()).unwrap()), &expected) > 1e-2);
    // Dividing the biases by the scale beforehand makes it the same model again.
    let names: Vec<String> = tiny.tensors.keys().filter(|name| name.ends_with(".bias")).cloned().collect();
    for name in names {
        let number = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
        let scale = number(&tiny.tensors[&name.replace(".bias", ".weight_scale")].2);
        let (_, shape, bytes) = tiny.tensors[&name].clone();
        let bias: Vec<f32> = bytes.chunks_exact(4).map(|b| number(b) / scale).collect();
        tiny.put(&name, Dtype::F32, &shape, &bias);
    }
    assert!(distance(&hidden(&*tiny.load(&settings()).unwrap()), &expected) < 1e-4);
}

#[test]
fn shards_and_folders_are_the_same_as_one_file() {
    let tiny = Tiny::new(Recipe::default());
    let folder = tempfile::tempdir().unwrap();
    tiny.write(folder.path());
    let spec = Spec::parse(folder.path().to_str().unwrap()).unwrap();
    let reports = std::cell::RefCell::new(Vec::new());
    let report = |done, total| reports.borrow_mut().push((done, total));
    let expected = hidden(&*tiny.load(&settings()).unwrap());
    let loaded = load(&spec, &settings(), &report).unwrap();
    assert!(hidden(&*loaded.model) == expected && loaded.tokenizer.is_none());
    let reports = reports.into_inner();
    assert!(reports.is_sorted() && reports.last().is_some_and(|(done, total)| done == total && *done > 0));

    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let first = |name: &str| name.contains("layers.0");
    std::fs::write(folder.path().join("a.safetensors"), tiny.weights_of(first)).unwrap();
    std::fs::write(folder.path().join("b.safetensors"), tiny.weights_of(|name| !first(name))).unwrap();
    let file = |name: &str| if first(name) { "a.safetensors" } else { "b.safetensors" };
    let map: serde_json::Map<_, _> = tiny.tensors.keys().map(|name| (name.clone(), file(name).into())).collect();
    let index = folder.path().join("model.safetensors.index.json");
    std::fs::write(&index, serde_json::json!({"weight_map": map}).to_string()).unwrap();
    assert!(hidden(&*load(&spec, &settings(), &|_, _| ()).unwrap().model) == expected);

    let fails = |map: serde_json::Value| {
        std::fs::write(&index, map.to_string()).unwrap();
        load(&spec, &settings(), &|_, _| ()).err().map(|e| e.to_string()).unwrap()
    };
    assert!(fails(serde_json::json!({"weight_map": {"x": "../b.safetensors"}})).contains("'../b.safetensors'"));
    assert!(fails(serde_json::json!({"weight_map": {"x": "a.safetensors"}})).contains("tensor x: missing"));
    assert!(fails(serde_json::json!({})).contains("no object weight_map"));
    assert!(fails(serde_json::json!({"weight_map": {"x": "c.safetensors"}})).contains("c.safetensors"));
}

#[test]
fn misuse_is_an_error_that_changes_nothing() {
    let model = model(Recipe::default());
    let mut state = model.start(0);
    let mut forward = |tokens: &[u32]| {
        let mut other = model.start(0);
        let mut batch = [
            Segment { state: &mut state, tokens: &[1], want: Want::Last },
            Segment { state: &mut other, tokens, want: Want::Last },
        ];
        let error = model.forward(&mut batch).unwrap_err();
        assert!(state.is_empty() && other.is_empty());
        error
    };
    assert_eq!(forward(&[]).to_string(), "segment 1 of the batch has no tokens: at least 1 is needed");
    let outside = forward(&[3, VOCAB as u32]).to_string();
    assert_eq!(outside, format!("token {VOCAB} is outside the vocabulary of {VOCAB}"));
    let long = forward(&vec![1; CONTEXT + 1]).to_string();
    assert_eq!(long, format!("{} positions are needed but the model's context holds {CONTEXT}", CONTEXT + 1));
    let stranger = load(&Spec::parse("synthetic:bitnet-tiny").unwrap(), &settings(), &|_, _| ()).unwrap().model;
    let mut strange = stranger.start(0);
    let batch = &mut [Segment { state: &mut strange, tokens: &[1], want: Want::Last }];
    assert!(matches!(model.forward(batch), Err(Error::State { .. })));
    assert!(model.forward(&mut []).unwrap().is_empty());
    assert!(model.block(LAYERS, &[0.0; WIDTH]).is_err() && model.block(0, &[0.0; 5]).is_err());
    assert!(model.block(0, &[]).is_err() && model.block(0, &vec![0.0; WIDTH * (CONTEXT + 1)]).is_err());
    assert!(model.trace(&mut state, &[]).is_err());
}

#[test]
fn the_whole_context_can_be_read_and_not_one_token_more() {
    let model = model(Recipe::default());
    let mut state = model.start(0);
    let tokens = tokens(CONTEXT, VOCAB, 8);
    model.forward(&mut [Segment { state: &mut state, tokens: &tokens, want: Want::Last }]).unwrap();
    let error = model.forward(&mut [Segment { state: &mut state, tokens: &[0], want: Want::Last }]).unwrap_err();
    assert!(matches!(error, Error::Context { needed, context } if needed == context + 1));
    assert!(state.len() == CONTEXT && state.bytes() >= CONTEXT * LAYERS * 2 * 2 * 16 * 4);
}

#[test]
fn facts_add_up() {
    let recipe = Recipe { tied: false, ..Recipe::default() };
    let tiny = Tiny::new(recipe);
    let facts = tiny.load(&settings()).unwrap().facts();
    let linear = LAYERS * (WIDTH * 64 * 2 + WIDTH * 32 * 2 + 3 * WIDTH * INNER);
    let vectors = WIDTH + LAYERS * (2 * WIDTH + 64 + INNER);
    assert_eq!(facts.parameters, (linear + vectors + 2 * VOCAB * WIDTH) as u64);
    assert_eq!((facts.layers, facts.width, facts.vocab, facts.context), (LAYERS, WIDTH, VOCAB, Some(CONTEXT)));
    assert_eq!((facts.linear_operations, facts.head_operations), (2 * linear as u64, 2 * (VOCAB * WIDTH) as u64));
    assert_eq!((facts.linear_bytes, facts.head_bytes), (linear as u64 / 4, 4 * (VOCAB * WIDTH) as u64));
    assert_eq!(facts.other_bytes, 4 * (vectors + WIDTH) as u64);
    assert_eq!(facts.cache_bytes_per_position, (2 * LAYERS * 32 * 4) as u64);
    assert_eq!(facts.decode_phases, 5 * LAYERS + 1);
    assert_eq!((facts.architecture, &facts.weights[..]), ("bitnet-b1.58", "ternary i2, f32 head"));
    assert!(engines::ARCHITECTURES.iter().any(|architecture| architecture.name == facts.architecture));
}
