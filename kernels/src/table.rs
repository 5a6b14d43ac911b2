//! The table of kernels: one column per ISA, each naming only what it improves.

use crate::{
    Isa, activation, attention, ceiling, comparator, dense, embedding, grouped, norm, quantise, rope, screen, softmax,
    ternary, top_k, transpose,
};

/// The best variant of every op for one ISA: a row of function pointers.
///
/// [`Kernels::for_isa`] is the only way to get one, hence having one proves that this CPU can run it. Ops are called
/// through the checked methods that each op's module adds (`kernels.rms_norm(...)`), never through the fields.
#[derive(Debug)]
pub struct Kernels {
    isa: Isa,
    pub(crate) ternary_i2: ternary::Method,
    pub(crate) ternary_t5: ternary::Method,
    pub(crate) ternary_t5_digits: ternary::Method,
    pub(crate) ternary_tmac: ternary::Method,
    pub(crate) ternary_tmac8: ternary::Method,
    pub(crate) ternary_tl2: ternary::Method,
    pub(crate) ternary_i2_rows: ternary::Method,
    pub(crate) quantise: quantise::Variant,
    pub(crate) quantise_row: quantise::row::Variant,
    pub(crate) rms_norm: norm::rms::Variant,
    pub(crate) rms_quantise: norm::rms_quantise::Variant,
    pub(crate) layer_norm: norm::layer::Variant,
    pub(crate) attention_f32: attention::Variant<f32>,
    pub(crate) attention_bf16: attention::Variant<half::bf16>,
    pub(crate) attention_int8: attention::int8::Variant,
    pub(crate) attention_causal_f32: attention::causal::Variant<f32>,
    pub(crate) attention_causal_bf16: attention::causal::Variant<half::bf16>,
    pub(crate) rope_half: rope::Variant,
    pub(crate) rope_interleaved: rope::Variant,
    pub(crate) silu: activation::Variant,
    pub(crate) gelu_tanh: activation::Variant,
    pub(crate) gelu_erf: activation::Variant,
    pub(crate) squared_relu: activation::Variant,
    pub(crate) sigmoid: activation::Variant,
    pub(crate) swiglu: activation::GatedVariant,
    pub(crate) squared_relu_glu: activation::GatedVariant,
    pub(crate) dense_f32: dense::Variant<f32>,
    pub(crate) dense_bf16: dense::Variant<half::bf16>,
    pub(crate) dense_f16: dense::Variant<half::f16>,
    pub(crate) dense_bf16_dp: dense::bf16_dp::Variant,
    pub(crate) dense_int8: dense::int8::Variant,
    pub(crate) dense_q8: grouped::Variant,
    pub(crate) dense_q4: grouped::Variant,
    pub(crate) quantise_groups: grouped::codes::Variant,
    pub(crate) screen_q8: screen::Variant,
    pub(crate) screen_q4: screen::Variant,
    pub(crate) embedding_f32: embedding::Variant<f32>,
    pub(crate) embedding_bf16: embedding::Variant<half::bf16>,
    pub(crate) embedding_f16: embedding::Variant<half::f16>,
    pub(crate) softmax: softmax::Variant,
    pub(crate) top_k: top_k::Variant,
    pub(crate) transpose: transpose::Variant,
    pub(crate) read: ceiling::read::Variant,
    pub(crate) naive: dense::int8::Variant,
    pub(crate) naive_crumbs: comparator::naive::CrumbVariant,
    #[cfg(feature = "comparators")]
    pub(crate) gemm: comparator::scalar::Variant,
    pub(crate) openblas: comparator::scalar::Variant,
    pub(crate) int8_peak: ceiling::peak::Variant,
    pub(crate) f32_peak: ceiling::peak::Variant,
}

/// The specification: every op in plain Rust.
static SCALAR: Kernels = SCALAR_COLUMN;
const SCALAR_COLUMN: Kernels = Kernels {
    isa: Isa::Scalar,
    ternary_i2: ternary::Method::plain(ternary::i2::scalar::matmul),
    ternary_t5: ternary::Method::plain(ternary::t5::scalar::matmul),
    ternary_t5_digits: ternary::Method::plain(ternary::t5::scalar::matmul),
    ternary_tmac: ternary::Method::plain(ternary::tmac::scalar::matmul),
    ternary_tmac8: ternary::Method::plain(ternary::tmac8::scalar::matmul),
    ternary_tl2: ternary::Method::plain(ternary::tl2::scalar::matmul),
    ternary_i2_rows: ternary::Method::plain(ternary::i2_rows::scalar::matmul),
    quantise: quantise::scalar::quantise,
    quantise_row: quantise::row::scalar::quantise,
    rms_norm: norm::rms::scalar::rms_norm,
    rms_quantise: norm::rms_quantise::scalar::rms_quantise,
    layer_norm: norm::layer::scalar::layer_norm,
    attention_f32: attention::scalar::attention,
    attention_bf16: attention::scalar::attention,
    attention_int8: attention::scalar::int8,
    attention_causal_f32: attention::causal::scalar::causal,
    attention_causal_bf16: attention::causal::scalar::causal,
    rope_half: rope::scalar::half_split,
    rope_interleaved: rope::scalar::interleaved,
    silu: activation::scalar::silu,
    gelu_tanh: activation::scalar::gelu_tanh,
    gelu_erf: activation::scalar::gelu_erf,
    squared_relu: activation::scalar::squared_relu,
    sigmoid: activation::scalar::sigmoid,
    swiglu: activation::scalar::swiglu,
    squared_relu_glu: activation::scalar::squared_relu_glu,
    dense_f32: dense::scalar::matmul,
    dense_bf16: dense::scalar::matmul,
    dense_f16: dense::scalar::matmul,
    dense_bf16_dp: dense::bf16_dp::scalar::matmul,
    dense_int8: dense::int8::scalar::matmul,
    dense_q8: grouped::scalar::q8,
    dense_q4: grouped::scalar::q4,
    quantise_groups: grouped::codes::scalar::quantise,
    screen_q8: screen::scalar::q8,
    screen_q4: screen::scalar::q4,
    embedding_f32: embedding::scalar::gather,
    embedding_bf16: embedding::scalar::gather,
    embedding_f16: embedding::scalar::gather,
    softmax: softmax::scalar::softmax,
    top_k: top_k::scalar::top_k,
    transpose: transpose::scalar::transpose,
    read: ceiling::read::scalar::read,
    naive: comparator::naive::scalar::matmul,
    naive_crumbs: comparator::naive::scalar::crumbs,
    #[cfg(feature = "comparators")]
    gemm: comparator::scalar::matmul,
    openblas: comparator::scalar::matmul,
    int8_peak: ceiling::peak::scalar::int8,
    f32_peak: ceiling::peak::scalar::f32,
};

#[cfg(target_arch = "x86_64")]
static AVX2: Kernels = AVX2_COLUMN;
#[cfg(target_arch = "x86_64")]
const AVX2_COLUMN: Kernels = Kernels {
    isa: Isa::Avx2,
    ternary_i2: ternary::Method::plain(ternary::i2::avx2::matmul),
    ternary_t5: ternary::Method::plain(ternary::t5::avx2::matmul),
    ternary_t5_digits: ternary::Method::plain(ternary::t5::avx2::matmul),
    ternary_tmac: ternary::Method::lookup(ternary::tmac::avx2::matmul, ternary::tmac::avx2::TABLES),
    ternary_tmac8: ternary::Method::lookup(ternary::tmac8::avx2::matmul, ternary::tmac8::avx2::TABLES),
    ternary_tl2: ternary::Method::lookup(ternary::tl2::avx2::matmul, ternary::tl2::avx2::TABLES),
    ternary_i2_rows: ternary::Method::plain(ternary::i2_rows::avx2::matmul),
    quantise: quantise::avx2::quantise,
    quantise_row: quantise::avx2::quantise_row,
    rms_norm: norm::rms::avx2::rms_norm,
    rms_quantise: norm::rms_quantise::avx2::rms_quantise,
    layer_norm: norm::layer::avx2::layer_norm,
    attention_f32: attention::avx2::attention,
    attention_bf16: attention::avx2::attention,
    attention_int8: attention::avx2::int8,
    attention_causal_f32: attention::causal::avx2::causal,
    attention_causal_bf16: attention::causal::avx2::causal,
    rope_half: rope::avx2::half_split,
    rope_interleaved: rope::avx2::interleaved,
    silu: activation::avx2::silu,
    gelu_tanh: activation::avx2::gelu_tanh,
    gelu_erf: activation::avx2::gelu_erf,
    squared_relu: activation::avx2::squared_relu,
    sigmoid: activation::avx2::sigmoid,
    swiglu: activation::avx2::swiglu,
    squared_relu_glu: activation::avx2::squared_relu_glu,
    dense_f32: dense::avx2::matmul,
    dense_bf16: dense::avx2::matmul,
    dense_f16: dense::avx2::matmul,
    dense_int8: dense::int8::avx2::matmul,
    dense_q8: grouped::q8::avx2::matmul,
    dense_q4: grouped::q4::avx2::matmul,
    quantise_groups: grouped::codes::avx2::quantise,
    screen_q8: screen::avx2::q8,
    screen_q4: screen::avx2::q4,
    embedding_bf16: embedding::avx2::gather,
    embedding_f16: embedding::avx2::gather,
    softmax: softmax::avx2::softmax,
    top_k: top_k::avx2::top_k,
    transpose: transpose::avx2::transpose,
    read: ceiling::read::avx2::read,
    naive: comparator::naive::avx2::matmul,
    naive_crumbs: comparator::naive::avx2::crumbs,
    #[cfg(feature = "comparators")]
    gemm: comparator::gemm::matmul,
    openblas: comparator::openblas::matmul,
    int8_peak: ceiling::peak::avx2::int8,
    f32_peak: ceiling::peak::avx2::f32,
    ..SCALAR_COLUMN
};

#[cfg(target_arch = "x86_64")]
static AVX512: Kernels = Kernels {
    isa: Isa::Avx512,
    ternary_i2: ternary::Method::plain(ternary::i2::avx512::matmul),
    ternary_t5: ternary::t5::avx512::METHOD,
    ternary_t5_digits: ternary::Method::plain(ternary::t5::digits::avx512::matmul),
    ternary_tmac: ternary::Method::lookup(ternary::tmac::avx512::matmul, ternary::tmac::avx2::TABLES),
    ternary_tmac8: ternary::Method::lookup(ternary::tmac8::avx512::matmul, ternary::tmac8::avx2::TABLES),
    ternary_tl2: ternary::Method::lookup(ternary::tl2::avx512::matmul, ternary::tl2::avx2::TABLES),
    ternary_i2_rows: ternary::Method::plain(ternary::i2_rows::avx512::matmul),
    quantise: quantise::avx512::quantise,
    quantise_row: quantise::avx512::quantise_row,
    rms_norm: norm::rms::avx512::rms_norm,
    rms_quantise: norm::rms_quantise::avx512::rms_quantise,
    layer_norm: norm::layer::avx512::layer_norm,
    attention_f32: attention::avx512::attention,
    attention_bf16: attention::avx512::attention,
    attention_int8: attention::avx512::int8,
    attention_causal_f32: attention::causal::avx512::causal,
    attention_causal_bf16: attention::causal::avx512::causal,
    rope_half: rope::avx512::half_split,
    rope_interleaved: rope::avx512::interleaved,
    silu: activation::avx512::silu,
    gelu_tanh: activation::avx512::gelu_tanh,
    gelu_erf: activation::avx512::gelu_erf,
    squared_relu: activation::avx512::squared_relu,
    sigmoid: activation::avx512::sigmoid,
    swiglu: activation::avx512::swiglu,
    squared_relu_glu: activation::avx512::squared_relu_glu,
    dense_f32: dense::avx512::matmul,
    dense_bf16: dense::avx512::matmul,
    dense_f16: dense::avx512::matmul,
    dense_bf16_dp: dense::bf16_dp::avx512::matmul,
    dense_int8: dense::int8::avx512::matmul,
    dense_q8: grouped::q8::avx512::matmul,
    dense_q4: grouped::q4::avx512::matmul,
    screen_q8: screen::avx512::q8,
    screen_q4: screen::avx512::q4,
    softmax: softmax::avx512::softmax,
    top_k: top_k::avx512::top_k,
    transpose: transpose::avx512::transpose,
    read: ceiling::read::avx512::read,
    naive: comparator::naive::avx512::matmul,
    naive_crumbs: comparator::naive::avx512::crumbs,
    int8_peak: ceiling::peak::avx512::int8,
    f32_peak: ceiling::peak::avx512::f32,
    ..AVX2_COLUMN
};

impl Kernels {
    /// The table of a level, or `None` where this CPU lacks it.
    pub fn for_isa(isa: Isa) -> Option<&'static Kernels> {
        if !isa.is_available() {
            return None;
        }
        match isa {
            Isa::Scalar => Some(&SCALAR),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Some(&AVX2),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Some(&AVX512),
            #[cfg(not(target_arch = "x86_64"))]
            _ => None,
        }
    }

    /// The table of the best level that this CPU has.
    pub fn best() -> &'static Kernels {
        Kernels::for_isa(Isa::best()).unwrap_or(&SCALAR)
    }

    /// The tables of every level that this CPU has, lowest first.
    pub fn available() -> impl Iterator<Item = &'static Kernels> {
        Isa::ALL.into_iter().filter_map(Kernels::for_isa)
    }

    /// The level that this table was made for.
    pub fn isa(&self) -> Isa {
        self.isa
    }
}
