//! Shapes of published models, for synthetic weights.

/// The sizes of a BitNet b1.58 model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NamedShape {
    /// As in `synthetic:NAME`.
    pub name: &'static str,
    /// D.
    pub width: usize,
    /// E.
    pub inner: usize,
    /// L.
    pub layers: usize,
    /// Query heads, H.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// K.
    pub head_width: usize,
    /// V.
    pub vocab: usize,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// The gate: squared ReLU, else SiLU.
    pub squared_relu: bool,
    /// Base of the rotary angles.
    pub rope_theta: f64,
    /// Positions.
    pub context: usize,
}

/// Every shape that `synthetic:` knows. The large ones are those of BitNet b1.58 2B4T (arXiv 2504.12285) and of the models
/// in table 5 of "The Era of 1-bit LLMs" (arXiv 2402.17764), which are LLaMA's.
pub const SHAPES: &[NamedShape] = &[
    NamedShape {
        name: "bitnet-tiny",
        width: 192,
        inner: 448,
        layers: 3,
        heads: 6,
        kv_heads: 2,
        head_width: 32,
        vocab: 640,
        tied: true,
        squared_relu: true,
        rope_theta: 10_000.0,
        context: 512,
    },
    NamedShape {
        name: "bitnet-2b-4t",
        width: 2560,
        inner: 6912,
        layers: 30,
        heads: 20,
        kv_heads: 5,
        head_width: 128,
        vocab: 128_256,
        tied: true,
        squared_relu: true,
        rope_theta: 500_000.0,
        context: 4096,
    },
    NamedShape {
        name: "bitnet-3b",
        width: 3200,
        inner: 8640,
        layers: 26,
        heads: 32,
        kv_heads: 32,
        head_width: 100,
        vocab: 32_002,
        tied: false,
        squared_relu: false,
        rope_theta: 10_000.0,
        context: 2048,
    },
    NamedShape {
        name: "bitnet-7b",
        width: 4096,
        inner: 11_008,
        layers: 32,
        heads: 32,
        kv_heads: 32,
        head_width: 128,
        vocab: 32_000,
        tied: false,
        squared_relu: false,
        rope_theta: 10_000.0,
        context: 2048,
    },
    NamedShape {
        name: "bitnet-13b",
        width: 5120,
        inner: 13_824,
        layers: 40,
        heads: 40,
        kv_heads: 40,
        head_width: 128,
        vocab: 32_000,
        tied: false,
        squared_relu: false,
        rope_theta: 10_000.0,
        context: 2048,
    },
];
