//! Engines as promises run them.

use crate::golden::{Golden, rows};
use crate::reference::GROUP_NORM_EPS;
use crate::tensors::Tensors;
use engines::{CacheFormat, Cpu, Error, Loaded, Logits, Model, Packing, Segment, Settings, Spec, Token, Want};
use kernels::Isa;
use ndarray::Array2;
use std::path::Path;
use std::sync::Arc;

/// Kernels of a level on so many threads, with a cache kept so.
///
/// # Panics
/// If this CPU lacks the level or the threads cannot be started.
pub fn settings(isa: Isa, threads: usize, cache: CacheFormat) -> Settings {
    Settings {
        cpu: Cpu::new(isa, threads).unwrap_or_else(|error| panic!("{error}")),
        cache,
        packing: Packing::default(),
    }
}

/// The best level on one thread, with an exact cache.
pub fn plain() -> Settings {
    settings(Isa::best(), 1, CacheFormat::F32)
}

/// Loads a folder.
///
/// # Errors
/// As the engine's.
pub fn load(folder: &Path) -> Result<Loaded, Error> {
    engines::load(&Spec::Folder(folder.to_path_buf()), &plain(), &|_, _| {})
}

/// Loads a folder that must be good.
///
/// # Panics
/// If the engine refuses it.
pub fn open(folder: &Path) -> Arc<dyn Model> {
    load(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())).model
}

/// Loads a golden model with its tokenizer.
///
/// # Panics
/// If the engine refuses it.
pub fn load_golden(golden: &Golden) -> Loaded {
    load(&golden.folder).unwrap_or_else(|error| panic!("{}: {error}", golden.name))
}

/// Loads a golden model.
///
/// # Panics
/// If the engine refuses it.
pub fn open_golden(golden: &Golden) -> Arc<dyn Model> {
    // The file says nothing of the epsilon of ln_x: where it is not the usual one, a config does.
    let eps = if golden.name.starts_with("tiny_rwkv_5") { golden.group_norm_eps() } else { GROUP_NORM_EPS };
    if eps == GROUP_NORM_EPS {
        return load_golden(golden).model;
    }
    let tensors = Tensors::of_model(&golden.folder);
    let shape = |name: &str| tensors.tensor(name).shape.clone();
    let (table, inner) = (shape("emb.weight"), shape("blocks.0.ffn.key.weight")[0]);
    let heads = shape("blocks.0.att.time_decay")[0];
    let config = serde_json::json!({
        "model_type": "rwkv5",
        "version": if tensors.get("blocks.0.att.gate.weight").is_some() { "5.2" } else { "5.0" },
        "vocab_size": table[0],
        "hidden_size": table[1],
        "intermediate_size": inner,
        "num_hidden_layers": tensors.names().filter(|name| name.ends_with(".ln1.weight")).count(),
        "head_dim": table[1] / heads,
        "group_norm_eps": eps,
    });
    let weights = std::fs::read(golden.folder.join("model.safetensors")).expect("weights");
    engines::load_from_memory(config.to_string().as_bytes(), &weights, &plain())
        .unwrap_or_else(|error| panic!("{}: {error}", golden.name))
}

/// Logits of every token of a fresh sequence, read in one call.
///
/// # Panics
/// If the engine refuses.
pub fn logits(model: &dyn Model, tokens: &[Token]) -> Logits {
    let mut state = model.start(0);
    let segment = Segment { state: &mut state, tokens, want: Want::All };
    model.forward(&mut [segment]).unwrap_or_else(|error| panic!("{error}")).remove(0)
}

/// Logits of every token of a fresh sequence, read one token a call.
///
/// # Panics
/// If the engine refuses.
pub fn logits_stepwise(model: &dyn Model, tokens: &[Token]) -> Logits {
    let mut state = model.start(0);
    let mut all = Vec::new();
    for token in tokens.chunks(1) {
        let segment = Segment { state: &mut state, tokens: token, want: Want::Last };
        let logits = model.forward(&mut [segment]).unwrap_or_else(|error| panic!("{error}"));
        all.extend_from_slice(logits[0].last());
    }
    Logits::new(all, model.vocab())
}

/// Logits as a matrix `[n, V]`.
pub fn wide(logits: &Logits) -> Array2<f64> {
    rows(logits.as_slice(), logits.vocab())
}

/// The bits of some numbers, so that equality means the very same.
pub fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}
