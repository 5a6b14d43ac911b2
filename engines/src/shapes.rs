//! Shapes of published models, for synthetic weights.

/// The sizes of a published model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedShape {
    /// As in `synthetic:NAME`.
    pub name: &'static str,
    /// What its config.json says, as far as it decides how the model computes.
    pub config: &'static str,
}

/// A ternary model of BitNet b1.58.
macro_rules! bitnet {
    ($name:literal, $act:literal, $vocab:literal, $tied:literal, $layers:literal x $width:literal, $inner:literal,
     $heads:literal / $kv_heads:literal x $head_width:literal, $theta:literal, $context:literal) => {
        NamedShape {
            name: $name,
            config: concat!(
                r#"{"model_type": "bitnet", "hidden_act": ""#,
                $act,
                r#"", "vocab_size": "#,
                $vocab,
                r#", "tie_word_embeddings": "#,
                $tied,
                r#", "num_hidden_layers": "#,
                $layers,
                r#", "hidden_size": "#,
                $width,
                r#", "intermediate_size": "#,
                $inner,
                r#", "num_attention_heads": "#,
                $heads,
                r#", "num_key_value_heads": "#,
                $kv_heads,
                r#", "head_dim": "#,
                $head_width,
                r#", "rope_theta": "#,
                $theta,
                r#", "max_position_embeddings": "#,
                $context,
                r#", "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear"}}"#
            ),
        }
    };
}

/// A Mamba of the authors' proportions: E = 2 D, N = 16, K = 4, R = D / 16, tied.
macro_rules! mamba {
    ($name:literal, $vocab:literal, $layers:literal x $width:literal) => {
        NamedShape {
            name: $name,
            config: concat!(
                r#"{"model_type": "mamba", "vocab_size": "#,
                $vocab,
                r#", "num_hidden_layers": "#,
                $layers,
                r#", "hidden_size": "#,
                $width,
                "}"
            ),
        }
    };
}

/// A LLaMA of full precision, to hold the others to.
macro_rules! llama {
    ($name:literal, $vocab:literal, $layers:literal x $width:literal, $inner:literal, $heads:literal, $context:literal) => {
        NamedShape {
            name: $name,
            config: concat!(
                r#"{"model_type": "llama", "tie_word_embeddings": true, "vocab_size": "#,
                $vocab,
                r#", "num_hidden_layers": "#,
                $layers,
                r#", "hidden_size": "#,
                $width,
                r#", "intermediate_size": "#,
                $inner,
                r#", "num_attention_heads": "#,
                $heads,
                r#", "max_position_embeddings": "#,
                $context,
                "}"
            ),
        }
    };
}

/// A Mamba-2 with E = 2 D and K = 4, tied.
macro_rules! mamba2 {
    ($name:literal, $vocab:literal, $layers:literal x $width:literal, $heads:literal x $head_width:literal in $groups:literal,
     $states:literal) => {
        NamedShape {
            name: $name,
            config: concat!(
                r#"{"model_type": "mamba2", "vocab_size": "#,
                $vocab,
                r#", "tie_word_embeddings": true, "num_hidden_layers": "#,
                $layers,
                r#", "hidden_size": "#,
                $width,
                r#", "num_heads": "#,
                $heads,
                r#", "head_dim": "#,
                $head_width,
                r#", "n_groups": "#,
                $groups,
                r#", "state_size": "#,
                $states,
                "}"
            ),
        }
    };
}

/// An RWKV; `more` is its head width, and its low ranks as the author's programs choose them.
macro_rules! rwkv {
    ($name:literal, $version:literal, $vocab:literal, $layers:literal x $width:literal, $inner:literal, $more:literal) => {
        NamedShape {
            name: $name,
            config: concat!(
                r#"{"model_type": ""#,
                $version,
                r#"", "vocab_size": "#,
                $vocab,
                r#", "num_hidden_layers": "#,
                $layers,
                r#", "hidden_size": "#,
                $width,
                r#", "intermediate_size": "#,
                $inner,
                $more,
                "}"
            ),
        }
    };
}

/// Every shape that `synthetic:` knows. The large BitNets are those of BitNet b1.58 2B4T (arXiv 2504.12285) and of the models
/// in table 5 of "The Era of 1-bit LLMs" (arXiv 2402.17764), which are LLaMA's; the Mambas are those of its paper (arXiv
/// 2312.00752), with the vocabulary of their published weights, and so is the Mamba-2 (arXiv 2405.21060); the RWKVs are World
/// models (arXiv 2404.05892, 2503.14456) and the smallest of version 4 (arXiv 2305.13048).
pub const SHAPES: &[NamedShape] = &[
    bitnet!("bitnet-tiny", "relu2", 640, true, 3 x 192, 448, 6 / 2 x 32, 10000, 512),
    bitnet!("bitnet-2b-4t", "relu2", 128256, true, 30 x 2560, 6912, 20 / 5 x 128, 500000, 4096),
    bitnet!("bitnet-3b", "silu", 32002, false, 26 x 3200, 8640, 32 / 32 x 100, 10000, 2048),
    bitnet!("bitnet-7b", "silu", 32000, false, 32 x 4096, 11008, 32 / 32 x 128, 10000, 2048),
    bitnet!("bitnet-13b", "silu", 32000, false, 40 x 5120, 13824, 40 / 40 x 128, 10000, 2048),
    llama!("llama-130m", 50280, 12 x 768, 2048, 12, 65536),
    mamba!("mamba-tiny", 640, 3 x 96),
    mamba!("mamba-130m", 50280, 24 x 768),
    mamba!("mamba-790m", 50280, 48 x 1536),
    mamba!("mamba-2.8b", 50280, 64 x 2560),
    mamba2!("mamba2-tiny", 640, 3 x 96, 12 x 16 in 2, 24),
    mamba2!("mamba2-2.7b", 50288, 64 x 2560, 80 x 64 in 1, 128),
    rwkv!("rwkv4-tiny", "rwkv4", 640, 3 x 96, 384, ""),
    rwkv!("rwkv5-tiny", "rwkv5", 640, 3 x 96, 320, r#", "head_dim": 16"#),
    rwkv!(
        "rwkv6-tiny",
        "rwkv6",
        640,
        3 x 96,
        320,
        r#", "head_dim": 16, "mix_low_rank_dim": 8, "decay_low_rank_dim": 12"#
    ),
    rwkv!(
        "rwkv7-tiny",
        "rwkv7",
        640,
        3 x 96,
        384,
        r#", "head_dim": 32, "decay_low_rank_dim": 12, "a_low_rank_dim": 10, "v_low_rank_dim": 8, "gate_low_rank_dim": 24"#
    ),
    rwkv!("rwkv4-169m", "rwkv4", 50277, 12 x 768, 3072, ""),
    rwkv!(
        "rwkv6-1.6b",
        "rwkv6",
        65536,
        24 x 2048,
        7168,
        r#", "head_dim": 64, "mix_low_rank_dim": 32, "decay_low_rank_dim": 64"#
    ),
    rwkv!(
        "rwkv-7b",
        "rwkv6",
        65536,
        32 x 4096,
        14336,
        r#", "head_dim": 64, "mix_low_rank_dim": 64, "decay_low_rank_dim": 128"#
    ),
    rwkv!(
        "rwkv7-0.1b",
        "rwkv7",
        65536,
        12 x 768,
        3072,
        r#", "head_dim": 64, "decay_low_rank_dim": 64, "a_low_rank_dim": 64, "v_low_rank_dim": 32, "gate_low_rank_dim": 128"#
    ),
    rwkv!(
        "rwkv7-1.5b",
        "rwkv7",
        65536,
        24 x 2048,
        8192,
        r#", "head_dim": 64, "decay_low_rank_dim": 96, "a_low_rank_dim": 96, "v_low_rank_dim": 64, "gate_low_rank_dim": 256"#
    ),
    rwkv!(
        "rwkv7-2.9b",
        "rwkv7",
        65536,
        32 x 2560,
        10240,
        r#", "head_dim": 64, "decay_low_rank_dim": 96, "a_low_rank_dim": 96, "v_low_rank_dim": 64, "gate_low_rank_dim": 320"#
    ),
];
