//! The smallest packed BitNet, and how it is asked.

use engines::{CacheFormat, Cpu, Segment, Settings, Want, load_from_memory};
use serde_json::{Value, json};
use std::sync::LazyLock;

static SETTINGS: LazyLock<Settings> =
    LazyLock::new(|| Settings { cpu: Cpu::new(kernels::Isa::best(), 1).expect("one thread"), cache: CacheFormat::F32, packing: engines::Packing::default() });

/// A config that fits [`weights`].
pub fn config() -> Value {
    json!({"model_type": "bitnet", "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 5, "max_position_embeddings": 16,
        "tie_word_embeddings": true,
        "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"}})
}

/// A safetensors file by hand: the header's length, the header, the bytes.
pub fn weights() -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    let mut put = |name: &str, dtype: &str, shape: &[usize], bytes: Vec<u8>| {
        let offsets = [data.len(), data.len() + bytes.len()];
        data.extend(bytes);
        header.insert(name.to_string(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
    };
    // bf16: 0x3F80 is 1, 0x3F00 is 0.5.
    let ones = |count: usize| [0x80, 0x3F].repeat(count);
    put("model.embed_tokens.weight", "BF16", &[5, 8], [0x00, 0x3F, 0x80, 0xBF].repeat(20));
    put("model.norm.weight", "BF16", &[8], ones(8));
    for (name, width) in [
        ("input_layernorm", 8),
        ("post_attention_layernorm", 8),
        ("self_attn.attn_sub_norm", 8),
        ("mlp.ffn_sub_norm", 12),
    ] {
        put(&format!("model.layers.0.{name}.weight"), "BF16", &[width], ones(width));
    }
    for (name, rows, cols) in [
        ("self_attn.q_proj", 8, 8),
        ("self_attn.k_proj", 4, 8),
        ("self_attn.v_proj", 4, 8),
        ("self_attn.o_proj", 8, 8),
        ("mlp.gate_proj", 12, 8),
        ("mlp.up_proj", 12, 8),
        ("mlp.down_proj", 8, 12),
    ] {
        let bytes: Vec<u8> = (0..rows / 4 * cols).map(|i| [0b10_01_00_10, 0b00_10_01_00][i % 2]).collect();
        put(&format!("model.layers.0.{name}.weight"), "U8", &[rows / 4, cols], bytes);
        put(&format!("model.layers.0.{name}.weight_scale"), "BF16", &[1], ones(1));
    }
    let header = Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.extend(data);
    file
}

/// Loads, and asks whatever loads for logits.
pub fn ask(config: &[u8], weights: &[u8]) {
    if let Ok(model) = load_from_memory(config, weights, &SETTINGS) {
        let mut state = model.start(0);
        let answer = model.forward(&mut [Segment { state: &mut state, tokens: &[0], want: Want::Last }]);
        assert_eq!(answer.expect("token 0 fits every vocabulary and context")[0].vocab(), model.vocab());
    }
}
