//! How tests, benchmarks and experiments find an op. Production code never looks here.

use crate::{Kernels, Rng};
use std::fmt;
use std::str::FromStr;

/// The sizes of one case. What the three numbers mean is the op's matter: rows, columns and tokens of a product; for
/// attention queries, head width and cached positions; for an element-wise op 1, n and 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Rows, R.
    pub r: usize,
    /// Columns, C.
    pub c: usize,
    /// Tokens, T.
    pub t: usize,
}

impl Shape {
    /// R × C × T.
    pub const fn new(r: usize, c: usize, t: usize) -> Shape {
        Shape { r, c, t }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}x{}x{}", self.r, self.c, self.t))
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Shape, String> {
        let wrong = || format!("'{text}' is not a shape: expected ROWSxCOLUMNSxTOKENS, for example 2560x6912x1");
        let numbers: Vec<usize> =
            text.split('x').map(|n| n.parse().map_err(|_| wrong())).collect::<Result<_, String>>()?;
        match numbers[..] {
            [r, c, t] => Ok(Shape { r, c, t }),
            _ => Err(wrong()),
        }
    }
}

/// The least that a case must cost, whoever computes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// Bytes that must be read or written at least once.
    pub bytes: u64,
    /// Multiplications, additions and the like that must be done.
    pub operations: u64,
}

/// Which arithmetic peak of the machine an op is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// 8-bit integer multiply-adds into 32 bits.
    Int8,
    /// `f32` fused multiply-adds.
    F32,
}

/// How far a variant may be from the specification.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tolerance {
    /// Not one bit.
    Exact,
    /// By so much in absolute terms, for the stated reason.
    Absolute(f32, &'static str),
}

/// An op, as its folder declares it.
pub trait Op {
    /// `family/op`, for example `ternary/i2`; a variant everywhere is `ternary/i2@avx512`.
    const NAME: &'static str;
    /// How far variants may differ.
    const TOLERANCE: Tolerance = Tolerance::Exact;
    /// Set for what our ops are judged against: what it stands for, in a sentence.
    const COMPARATOR: Option<&'static str> = None;
    /// What most of its operations are.
    const ARITHMETIC: Arithmetic = Arithmetic::F32;
    /// Inputs and the buffers for the outputs.
    type Case;
    /// Why this machine has only the specification to run, for an op whose code is not ours.
    fn missing() -> Option<&'static str> {
        None
    }
    /// Sizes below, at and above every block boundary, then those of real models.
    fn shapes() -> Vec<Shape>;
    /// The sizes of real models, which benchmarks time: by default the shapes that move at least 8 KiB.
    fn model_shapes() -> Vec<Shape> {
        Self::shapes().into_iter().filter(|shape| Self::work(shape).bytes >= 8 << 10).collect()
    }
    /// The nearest shape that the op can compute: maps any three small numbers to a valid case.
    fn admit(shape: Shape) -> Shape {
        shape
    }
    /// Random inputs of a shape.
    fn case(shape: &Shape, rng: &mut Rng) -> Self::Case;
    /// One call of the front door: what is timed.
    fn run(kernels: &Kernels, case: &mut Self::Case);
    /// What the last run left.
    fn output(case: &Self::Case) -> Vec<f32>;
    /// The least cost of a shape.
    fn work(shape: &Shape) -> Work;
    /// The address of the variant that this table holds: equal addresses are the same code.
    fn variant(kernels: &Kernels) -> usize;
}

/// A prepared case of some op.
pub trait Case {
    /// One call of the front door.
    fn run(&mut self, kernels: &Kernels);
    /// What the last run left.
    fn output(&self) -> Vec<f32>;
}

/// An op with its types erased: a line of [`OPS`].
#[derive(Clone, Copy)]
pub struct Probe {
    /// See [`Op::NAME`].
    pub name: &'static str,
    /// See [`Op::TOLERANCE`].
    pub tolerance: Tolerance,
    /// See [`Op::COMPARATOR`].
    pub comparator: Option<&'static str>,
    /// See [`Op::ARITHMETIC`].
    pub arithmetic: Arithmetic,
    /// See [`Op::missing`].
    pub missing: fn() -> Option<&'static str>,
    /// See [`Op::shapes`].
    pub shapes: fn() -> Vec<Shape>,
    /// See [`Op::model_shapes`].
    pub model_shapes: fn() -> Vec<Shape>,
    /// See [`Op::admit`].
    pub admit: fn(Shape) -> Shape,
    /// A case of a shape from a seed.
    pub case: fn(&Shape, u64) -> Box<dyn Case>,
    /// See [`Op::work`].
    pub work: fn(&Shape) -> Work,
    /// See [`Op::variant`].
    pub variant: fn(&Kernels) -> usize,
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").field("name", &self.name).finish_non_exhaustive()
    }
}

struct Erased<O: Op>(O::Case);

impl<O: Op> Case for Erased<O> {
    fn run(&mut self, kernels: &Kernels) {
        O::run(kernels, &mut self.0);
    }

    fn output(&self) -> Vec<f32> {
        O::output(&self.0)
    }
}

/// Makes the line of an op.
pub const fn probe<O: Op + 'static>() -> Probe
where
    O::Case: 'static,
{
    Probe {
        name: O::NAME,
        tolerance: O::TOLERANCE,
        comparator: O::COMPARATOR,
        arithmetic: O::ARITHMETIC,
        missing: O::missing,
        shapes: O::shapes,
        model_shapes: O::model_shapes,
        admit: O::admit,
        case: |shape, seed| Box::new(Erased::<O>(O::case(shape, &mut Rng::new(seed)))),
        work: O::work,
        variant: O::variant,
    }
}

impl Probe {
    /// The op of a name in a list.
    pub fn find<'a>(ops: &'a [Probe], name: &str) -> Option<&'a Probe> {
        ops.iter().find(|op| op.name == name)
    }

    /// The tables, lowest first, in which this op has a variant of its own; others inherit the one below.
    pub fn own_tables(&self) -> Vec<&'static Kernels> {
        let mut tables: Vec<&'static Kernels> = Vec::new();
        for table in Kernels::available() {
            if tables.iter().all(|earlier| (self.variant)(earlier) != (self.variant)(table)) {
                tables.push(table);
            }
        }
        tables
    }
}

/// Every op.
pub const OPS: &[Probe] = &[
    // One op a line: family by family.
    probe::<crate::ternary::product::Product<crate::ternary::i2::I2>>(),
    probe::<crate::ternary::product::Product<crate::ternary::t5::T5>>(),
    probe::<crate::ternary::product::Product<crate::ternary::t5::digits::T5Digits>>(),
    probe::<crate::ternary::product::Product<crate::ternary::tmac::Tmac>>(),
    probe::<crate::ternary::product::Product<crate::ternary::tmac8::Tmac8>>(),
    probe::<crate::ternary::product::Product<crate::ternary::tl2::Tl2>>(),
    probe::<crate::ternary::product::Product<crate::ternary::i2_rows::I2Rows>>(),
    probe::<crate::quantise::Quantise>(),
    probe::<crate::quantise::row::QuantiseRows>(),
    probe::<crate::dense::Dense<f32>>(),
    probe::<crate::dense::Dense<half::bf16>>(),
    probe::<crate::dense::Dense<half::f16>>(),
    probe::<crate::dense::bf16_dp::Bf16Dp>(),
    probe::<crate::comparator::product::Product<crate::dense::int8::Int8>>(),
    probe::<crate::grouped::codes::QuantiseGroups>(),
    probe::<crate::grouped::product::Product<crate::grouped::q8::Q8>>(),
    probe::<crate::grouped::product::Product<crate::grouped::q4::Q4>>(),
    probe::<crate::screen::ScreenedTopK>(),
    probe::<crate::screen::planes::RefinedTopK>(),
    probe::<crate::embedding::Embedding<f32>>(),
    probe::<crate::embedding::Embedding<half::bf16>>(),
    probe::<crate::embedding::Embedding<half::f16>>(),
    probe::<crate::transpose::Transpose>(),
    probe::<crate::ceiling::read::Read>(),
    probe::<crate::comparator::product::Product<crate::comparator::naive::Naive>>(),
    probe::<crate::comparator::product::Product<crate::comparator::naive::NaiveCrumbs>>(),
    #[cfg(feature = "comparators")]
    probe::<crate::comparator::product::Product<crate::comparator::gemm::Gemm>>(),
    probe::<crate::comparator::product::Product<crate::comparator::openblas::OpenBlas>>(),
    probe::<crate::norm::rms::RmsNorm>(),
    probe::<crate::norm::rms_quantise::RmsQuantise>(),
    probe::<crate::norm::layer::LayerNorm>(),
    probe::<crate::norm::gated::GatedRmsNorm>(),
    probe::<crate::norm::layer::group::GroupNorm>(),
    probe::<crate::norm::unit::UnitNorm>(),
    probe::<crate::attention::Attention<f32>>(),
    probe::<crate::attention::Attention<half::bf16>>(),
    probe::<crate::attention::int8::AttentionInt8>(),
    probe::<crate::attention::causal::Causal<f32>>(),
    probe::<crate::attention::causal::Causal<half::bf16>>(),
    probe::<crate::mix::shift::Shift<false>>(),
    probe::<crate::mix::shift::Shift<true>>(),
    probe::<crate::wkv::wkv4::Wkv4>(),
    probe::<crate::wkv::wkv6::Wkv6>(),
    probe::<crate::wkv::wkv7::Wkv7>(),
    probe::<crate::rope::Rope<false>>(),
    probe::<crate::rope::Rope<true>>(),
    probe::<crate::activation::ops::Sigmoid>(),
    probe::<crate::activation::ops::Silu>(),
    probe::<crate::activation::ops::GeluTanh>(),
    probe::<crate::activation::ops::GeluErf>(),
    probe::<crate::activation::ops::SquaredRelu>(),
    probe::<crate::activation::ops::Exp>(),
    probe::<crate::activation::ops::Tanh>(),
    probe::<crate::activation::ops::Softplus>(),
    probe::<crate::activation::ops::ExpDecay>(),
    probe::<crate::activation::ops::SigmoidDecay>(),
    probe::<crate::activation::ops::SwiGlu>(),
    probe::<crate::activation::ops::SquaredReluGlu>(),
    probe::<crate::conv::causal::CausalConv>(),
    probe::<crate::scan::selective::SelectiveScan>(),
    probe::<crate::scan::ssd::SsdScan>(),
    probe::<crate::softmax::Softmax>(),
    probe::<crate::top_k::TopK>(),
];
