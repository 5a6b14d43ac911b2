//! Counts the instructions of every op on its smallest model shape, which no noise of the machine can move:
//! `cargo bench -p kernels --bench counts` (needs valgrind and `cargo install iai-callgrind-runner --version 0.16.1`).
//!
//! Valgrind translates the program and knows no AVX-512, so only the scalar and the AVX2 level can be counted; an AVX-512
//! variant is held by its time alone. Where AVX2 inherits the scalar variant the two counts are equal.

#![expect(missing_docs, reason = "the macros of iai-callgrind generate public items without documentation")]

use iai_callgrind::{library_benchmark, library_benchmark_group, main};
use kernels::probe::{Case, OPS, Probe};
use kernels::{Isa, Kernels};
use std::hint::black_box;

/// The op's smallest model shape, ready to run.
fn prepare(name: &str) -> Box<dyn Case> {
    let op = Probe::find(OPS, name).unwrap_or_else(|| panic!("no op is called {name}"));
    let shapes = (op.model_shapes)();
    let smallest = shapes.iter().min_by_key(|shape| (op.work)(shape).operations);
    (op.case)(smallest.unwrap_or_else(|| panic!("{name} has no model shape")), 1)
}

fn run(mut case: Box<dyn Case>, isa: Isa) -> Box<dyn Case> {
    let table = Kernels::for_isa(isa).unwrap_or_else(|| panic!("this CPU, as valgrind shows it, has no {isa}"));
    black_box(&mut case).run(table);
    // Returned, so that dropping it is not counted.
    case
}

/// One benchmark a level for each op; `tests/conformance.rs` sees to it that none of `OPS` is missing.
macro_rules! count {
    ($($id:ident = $name:literal;)+) => {
        #[library_benchmark]
        $(#[bench::$id(prepare($name))])+
        fn scalar(case: Box<dyn Case>) -> Box<dyn Case> {
            run(case, Isa::Scalar)
        }

        #[library_benchmark]
        $(#[bench::$id(prepare($name))])+
        fn avx2(case: Box<dyn Case>) -> Box<dyn Case> {
            run(case, Isa::Avx2)
        }
    };
}

count! {
    ternary_i2 = "ternary/i2";
    ternary_t5 = "ternary/t5";
    ternary_t5_digits = "ternary/t5_digits";
    ternary_tmac = "ternary/tmac";
    ternary_tmac8 = "ternary/tmac8";
    ternary_tl2 = "ternary/tl2";
    ternary_i2_rows = "ternary/i2_rows";
    quantise = "quantise";
    quantise_rows = "quantise/rows";
    dense_f32 = "dense/f32";
    dense_bf16 = "dense/bf16";
    dense_f16 = "dense/f16";
    dense_bf16_dp = "dense/bf16_dp";
    quantise_groups = "quantise/groups";
    dense_int8 = "dense/int8";
    dense_q8 = "dense/q8";
    dense_q4 = "dense/q4";
    head_screen = "head/screen";
    head_planes = "head/planes";
    embedding_f32 = "embedding/f32";
    embedding_bf16 = "embedding/bf16";
    embedding_f16 = "embedding/f16";
    transpose = "transpose";
    norm_rms = "norm/rms";
    norm_rms_quantise = "norm/rms_quantise";
    norm_layer = "norm/layer";
    norm_gated = "norm/gated";
    norm_group = "norm/group";
    norm_unit = "norm/unit";
    attention_f32 = "attention/f32";
    attention_bf16 = "attention/bf16";
    attention_int8 = "attention/int8";
    attention_causal_f32 = "attention/causal/f32";
    attention_causal_bf16 = "attention/causal/bf16";
    shift = "mix/shift";
    shift_own = "mix/shift_own";
    wkv4 = "wkv/wkv4";
    wkv6 = "wkv/wkv6";
    wkv7 = "wkv/wkv7";
    rope_half_split = "rope/half_split";
    rope_interleaved = "rope/interleaved";
    sigmoid = "activation/sigmoid";
    silu = "activation/silu";
    gelu_tanh = "activation/gelu_tanh";
    gelu_erf = "activation/gelu_erf";
    squared_relu = "activation/squared_relu";
    exp = "activation/exp";
    tanh = "activation/tanh";
    softplus = "activation/softplus";
    exp_decay = "activation/exp_decay";
    sigmoid_decay = "activation/sigmoid_decay";
    swiglu = "activation/swiglu";
    squared_relu_glu = "activation/squared_relu_glu";
    conv_causal = "conv/causal";
    scan_selective = "scan/selective";
    scan_ssd = "scan/ssd";
    softmax = "softmax";
    top_k = "top_k";
    ceiling_read = "ceiling/read";
    naive = "comparator/naive";
    naive_crumbs = "comparator/naive_crumbs";
}

/// Ops that are not counted, each with the reason; `tests/conformance.rs` reads these lines too.
macro_rules! not_counted {
    ($($name:literal: $why:literal;)+) => {};
}

not_counted! {
    "comparator/gemm": "another project's code: its instructions are not ours to hold, and change with its version";
    "comparator/openblas": "another project's code, which not every machine has";
}

library_benchmark_group!(name = ops; benchmarks = scalar, avx2);
main!(library_benchmark_groups = ops);
