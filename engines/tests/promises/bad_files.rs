//! Whatever a file holds, loading it gives a model or one clear sentence, and never panics.

use crate::tiny::{Form, HEAD_WIDTH, INNER, Recipe, Tiny, VOCAB, WIDTH, settings, tokens};
use engines::{Segment, Spec, Tokenizer, Want, load, load_from_memory};
use kernels::Rng;
use safetensors::Dtype;
use serde_json::{Value, json};

fn error(tiny: &Tiny) -> String {
    tiny.load(&settings()).err().map(|e| e.to_string()).expect("this model cannot be loaded")
}

#[test]
fn every_truncation_is_an_error() {
    let tiny = Tiny::new(Recipe::default());
    let (config, weights) = (tiny.config.to_string().into_bytes(), tiny.weights());
    assert!(load_from_memory(&config, &weights, &settings()).is_ok());
    let header = 8 + u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
    let cuts = (0..header + 40).chain((header + 40..weights.len()).step_by(61)).chain([weights.len() - 1]);
    for cut in cuts {
        let error = load_from_memory(&config, &weights[..cut], &settings()).err().expect("truncated");
        let (error, found) = (error.to_string(), format!(" bytes, as its header says, found {cut}: "));
        assert!(error.starts_with("model.safetensors: expected ") && error.contains(&found), "{cut}: {error}");
    }
    let mut longer = weights.clone();
    longer.push(0);
    assert!(load_from_memory(&config, &longer, &settings()).is_err());
    for cut in 0..config.len() {
        assert!(load_from_memory(&config[..cut], &weights, &settings()).is_err(), "config cut at {cut}");
    }
}

#[test]
fn flipped_bits_never_panic() {
    let settings = settings();
    for (form, seed) in [(Form::Multiplied, 1), (Form::Master(Dtype::BF16), 2), (Form::Plain(Dtype::F16), 3)] {
        let tiny = Tiny::new(Recipe { form, ..Recipe::default() });
        let (config, weights) = (tiny.config.to_string().into_bytes(), tiny.weights());
        let header = 8 + u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
        let mut rng = Rng::new(seed);
        for round in 0..600 {
            let (mut config, mut weights) = (config.clone(), weights.clone());
            // The header and the config are where structure is; the rest are numbers.
            let (bytes, range) = match round % 3 {
                0 => (&mut config, 0..usize::MAX),
                1 => (&mut weights, 0..header),
                _ => (&mut weights, 0..usize::MAX),
            };
            for _ in 0..1 + rng.below(3) {
                let at = range.start + rng.below(bytes.len().min(range.end) - range.start);
                bytes[at] ^= 1 << rng.below(8);
            }
            if let Ok(model) = load_from_memory(&config, &weights, &settings) {
                let tokens = tokens(3, model.vocab().min(VOCAB), round);
                // Finite weights may still overflow; what counts is that this returns.
                let _ = model.forward(&mut [Segment { state: &mut model.start(0), tokens: &tokens, want: Want::All }]);
            }
        }
    }
}

#[test]
fn what_is_wrong_with_a_tensor_is_named() {
    let packed = Tiny::new(Recipe::default());
    let change = |change: &dyn Fn(&mut Tiny)| {
        let mut tiny = packed.clone();
        change(&mut tiny);
        error(&tiny)
    };
    let query = "model.layers.1.self_attn.q_proj.weight";
    let says = change(&|tiny| {
        tiny.tensors.remove(query);
    });
    assert_eq!(says, format!("model.safetensors: tensor {query}: missing"));
    let says = change(&|tiny| {
        let (_, shape, _) = &mut tiny.tensors.get_mut(query).unwrap();
        shape.swap(0, 1);
    });
    assert_eq!(says, format!("model.safetensors: tensor {query}: expected shape [16, 48], found [48, 16]"));
    let says = change(&|tiny| tiny.tensors.get_mut(query).unwrap().2[100] |= 0b1100);
    assert!(says.contains(query) && says.contains("row 2, column 4 holds the code 3"), "{says}");
    let says = change(&|tiny| tiny.put(query, Dtype::F32, &[64, WIDTH], &[0.5; 64 * WIDTH]));
    assert!(says.contains("expected type U8 (packed ternary weights), found F32"), "{says}");
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let says = change(&|tiny| tiny.put(&format!("{query}_scale"), Dtype::F32, &[1], &[bad]));
        assert!(says.contains("expected a number above 0"), "{says}");
    }
    let says = change(&|tiny| tiny.put(&format!("{query}_scale"), Dtype::F32, &[2], &[1.0; 2]));
    assert!(says.contains("expected one number, found shape [2]"), "{says}");
    let says = change(&|tiny| tiny.put("model.norm.weight", Dtype::F32, &[WIDTH], &[f32::NAN; WIDTH]));
    assert_eq!(says, "model.safetensors: tensor model.norm.weight: number 0 is NaN");
    let says = change(&|tiny| tiny.put("model.layers.2.input_layernorm.weight", Dtype::F32, &[WIDTH], &[1.0; WIDTH]));
    assert!(says.contains("model.layers.2.") && says.contains("not part of the model"), "{says}");
    let says = change(&|tiny| tiny.put("model.layers.0.mlp.up_proj.bias", Dtype::F32, &[INNER], &[1.0; INNER]));
    assert!(says.contains("mlp.up_proj.bias: not part of the model"), "{says}");
    let mut table = vec![0.5; VOCAB * WIDTH];
    table[5 * WIDTH + 7] = f32::NEG_INFINITY;
    let says = change(&|tiny| tiny.put("model.embed_tokens.weight", Dtype::BF16, &[VOCAB, WIDTH], &table));
    assert!(says.contains("model.embed_tokens.weight: the number at row 5, column 7 is -inf"), "{says}");
    for form in [Form::Master(Dtype::F32), Form::Plain(Dtype::F32)] {
        let mut tiny = Tiny::new(Recipe { form, ..Recipe::default() });
        tiny.put(query, Dtype::F32, &[64, WIDTH], &[f32::NAN; 64 * WIDTH]);
        assert!(error(&tiny).contains("row 0, column 0 is NaN"), "{form:?}");
    }
}

#[test]
fn a_config_that_disagrees_with_the_weights_is_an_error() {
    let packed = Tiny::new(Recipe::default());
    for (key, value) in [
        ("hidden_size", json!(WIDTH * 2)),
        ("intermediate_size", json!(INNER - 4)),
        ("num_hidden_layers", json!(1)),
        ("num_hidden_layers", json!(3)),
        ("num_hidden_layers", json!(1 << 24)),
        ("num_attention_heads", json!(8)),
        ("num_key_value_heads", json!(4)),
        ("head_dim", json!(HEAD_WIDTH * 2)),
        ("vocab_size", json!(VOCAB + 1)),
        ("vocab_size", json!(1 << 24)),
        ("tie_word_embeddings", json!(false)),
        ("attention_bias", json!(true)),
        ("model_type", json!("llama")),
        ("quantization_config", Value::Null),
        (
            "quantization_config",
            json!({"quant_method": "bitnet", "linear_class": "autobitlinear",
            "quantization_mode": "online"}),
        ),
        ("quantization_config", json!({"quant_method": "bitnet", "use_rms_norm": true})),
    ] {
        let mut tiny = packed.clone();
        tiny.config[key] = value.clone();
        let says = error(&tiny);
        assert!(says.contains("tensor ") && says.starts_with("model.safetensors"), "{key} = {value}: {says}");
    }
}

#[test]
fn packed_layers_need_rows_in_fours() {
    let mut tiny = Tiny::new(Recipe::default());
    tiny.config["intermediate_size"] = json!(82);
    for layer in 0..2 {
        let name = format!("model.layers.{layer}.mlp.ffn_sub_norm.weight");
        tiny.put(&name, Dtype::F32, &[82], &[1.0; 82]);
    }
    assert!(error(&tiny).contains("82 rows cannot be packed: expected a multiple of 4"));
}

#[test]
fn unreadable_places_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let says = || {
        let spec = Spec::parse(path.to_str().unwrap()).unwrap();
        load(&spec, &settings(), &|_, _| ()).err().map(|e| e.to_string()).unwrap()
    };
    assert!(says().contains("config.json"));
    std::fs::write(path.join("config.json"), [0xff, 0xfe, 0x00]).unwrap();
    assert!(says().contains("config.json: not JSON"));
    let tiny = Tiny::new(Recipe::default());
    tiny.write(path);
    std::fs::remove_file(path.join("model.safetensors")).unwrap();
    assert!(says().contains("no model.safetensors and no pytorch_model.bin in it"));
    std::fs::write(path.join("model.safetensors"), []).unwrap();
    assert!(says().contains("model.safetensors: the file is empty"));
    tiny.write(path);
    std::fs::write(path.join("tokenizer.json"), "{}").unwrap();
    assert!(says().contains("tokenizer.json: not a tokenizer.json"));
    std::fs::remove_file(path.join("model.safetensors")).unwrap();
    std::fs::create_dir(path.join("model.safetensors")).unwrap();
    std::fs::remove_file(path.join("tokenizer.json")).unwrap();
    assert!(says().contains("model.safetensors"));
    assert!(Tokenizer::from_file(path.join("none.json")).is_err());
}
