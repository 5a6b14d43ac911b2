//! Linear layers: y = W x + b, dense, rounded in groups or ternary, whatever the architecture around them.

use crate::weights::dense::Dense;
use kernels::Kernels;
use kernels::Line;
use kernels::grouped::GroupedMatrix;
use kernels::grouped::codes::Codes;
use kernels::quantise::Quantised;
use kernels::ternary::{Activations, Layout, TernaryMatrix};
use std::ops::Range;

/// One layer, `R × C`.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    pub(crate) weights: Weights,
    /// `[R]`, added last.
    pub(crate) bias: Option<Vec<f32>>,
    /// Gains `[C]` and eps of an RMSNorm of the input (BitLinear's `use_rms_norm`).
    pub(crate) pre_norm: Option<(Vec<f32>, f32)>,
}

/// The matrix.
#[derive(Clone, Debug)]
pub(crate) enum Weights {
    /// y = W x.
    Dense(Dense),
    /// y = W~ x~, both rounded to integers that share scales in groups.
    Grouped(GroupedMatrix),
    /// y = (t · q) · factor / a, with the input quantised to codes q = x a.
    Ternary { matrix: TernaryMatrix, factor: f64 },
}

/// What linear layers read: T tokens, plain and quantised, as far as anyone needs them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Input {
    tokens: usize,
    /// `[T, C]`.
    x: Vec<f32>,
    /// `[T, stride]`.
    codes: Vec<i8>,
    stride: usize,
    /// `[T]`.
    sums: Vec<i32>,
    /// a, `[T]`.
    scales: Vec<f32>,
    /// Lookup tables of the codes, for layouts that multiply by them.
    tables: Vec<Line>,
    /// The tokens rounded in groups.
    grouped: Codes,
}

impl Input {
    pub(crate) fn clear(&mut self) {
        self.tokens = 0;
        self.x.clear();
        self.codes.clear();
        self.sums.clear();
        self.scales.clear();
        self.tables.clear();
        self.grouped.clear();
    }

    /// Makes the lookup tables of all tokens for products with matrices of a layout and so many columns.
    fn make_tables(&mut self, kernels: &Kernels, layout: Layout, columns: usize) {
        let lines = kernels.ternary_table_lines(layout, columns, self.tokens);
        self.tables.resize(lines, Line([0; 64]));
        kernels.ternary_tables(layout, columns, &self.codes, &mut self.tables);
    }

    /// T.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Bytes allocated.
    pub(crate) fn bytes(&self) -> usize {
        let Input { tokens: _, x, codes, stride: _, sums, scales, tables, grouped } = self;
        let words = x.capacity() + sums.capacity() + scales.capacity();
        4 * words + codes.capacity() + tables.capacity() * size_of::<Line>() + grouped.bytes()
    }

    /// Adds a token in the forms asked for.
    fn push(&mut self, kernels: &Kernels, row: &[f32], forms: Forms) {
        self.tokens += 1;
        if forms.plain {
            self.x.extend_from_slice(row);
        }
        if forms.codes {
            self.push_codes(row.len(), |codes| kernels.quantise(row, codes));
        }
        if forms.grouped {
            self.grouped.push(kernels, row);
        }
    }

    /// Adds RMS(x) · gain in the forms asked for. `norm` `[C]` is scratch.
    fn push_normed(&mut self, kernels: &Kernels, x: &[f32], (gain, eps): Norm<'_>, forms: Forms, norm: &mut [f32]) {
        if forms == Forms::CODES {
            self.tokens += 1;
            return self.push_codes(x.len(), |codes| kernels.rms_quantise(x, gain, eps, codes));
        }
        kernels.rms_norm(x, gain, eps, norm);
        self.push(kernels, norm, forms);
    }

    fn push_codes(&mut self, columns: usize, quantise: impl FnOnce(&mut [i8]) -> Quantised) {
        self.stride = Activations::stride_for(columns);
        let start = self.codes.len();
        self.codes.resize(start + self.stride, 0);
        let quantised = quantise(&mut self.codes[start..]);
        self.sums.push(quantised.sum);
        self.scales.push(quantised.scale);
    }

    /// Adds the tokens of another.
    pub(crate) fn append(&mut self, other: &Input) {
        self.tokens += other.tokens;
        self.x.extend_from_slice(&other.x);
        self.codes.extend_from_slice(&other.codes);
        self.stride = other.stride;
        self.sums.extend_from_slice(&other.sums);
        self.scales.extend_from_slice(&other.scales);
        self.grouped.append(&other.grouped);
    }
}

/// Gains `[C]` and eps of an RMSNorm.
pub(crate) type Norm<'a> = (&'a [f32], f32);

/// The forms of an input that some layer reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Forms {
    plain: bool,
    codes: bool,
    grouped: bool,
}

impl Forms {
    const CODES: Forms = Forms { plain: false, codes: true, grouped: false };

    fn and(self, other: Forms) -> Forms {
        Forms {
            plain: self.plain || other.plain,
            codes: self.codes || other.codes,
            grouped: self.grouped || other.grouped,
        }
    }
}

impl Weights {
    /// The same weights where threads of all memory nodes read them equally fast; dense ones lie so from the beginning.
    pub(crate) fn spread_over_nodes(mut self) -> Weights {
        match &mut self {
            Weights::Dense(_) => {}
            Weights::Grouped(matrix) => matrix.spread_over_nodes(),
            Weights::Ternary { matrix, .. } => matrix.spread_over_nodes(),
        }
        self
    }
}

impl Linear {
    pub(crate) fn rows(&self) -> usize {
        match &self.weights {
            Weights::Dense(dense) => dense.rows(),
            Weights::Grouped(matrix) => matrix.rows(),
            Weights::Ternary { matrix, .. } => matrix.rows(),
        }
    }

    pub(crate) fn cols(&self) -> usize {
        match &self.weights {
            Weights::Dense(dense) => dense.cols(),
            Weights::Grouped(matrix) => matrix.cols(),
            Weights::Ternary { matrix, .. } => matrix.cols(),
        }
    }

    /// Rows that the matrix keeps together: blocks of rows start and end there.
    pub(crate) fn tile_rows(&self) -> usize {
        match &self.weights {
            Weights::Dense(_) => 16,
            Weights::Grouped(_) => kernels::grouped::Layout::TILE_ROWS,
            Weights::Ternary { matrix, .. } => matrix.layout().tile_rows(),
        }
    }

    /// Bytes of the matrix.
    pub(crate) fn bytes(&self) -> usize {
        match &self.weights {
            Weights::Dense(dense) => dense.bytes(),
            Weights::Grouped(matrix) => matrix.bytes(),
            Weights::Ternary { matrix, .. } => matrix.bytes(),
        }
    }

    /// Numbers beside the matrix.
    pub(crate) fn vector_numbers(&self) -> usize {
        self.bias.as_ref().map_or(0, Vec::len) + self.pre_norm.as_ref().map_or(0, |(gain, _)| gain.len())
    }

    fn forms(&self) -> Forms {
        Forms {
            plain: matches!(self.weights, Weights::Dense(_)),
            codes: matches!(self.weights, Weights::Ternary { .. }),
            grouped: matches!(self.weights, Weights::Grouped(_)),
        }
    }

    /// How the weights are stored, for example "ternary i2".
    pub(crate) fn stored(&self) -> String {
        match &self.weights {
            Weights::Dense(dense) => dense.format().name().to_string(),
            Weights::Grouped(matrix) => matrix.layout().to_string(),
            Weights::Ternary { matrix, .. } => format!("ternary {}", matrix.layout()),
        }
    }

    /// Whether the products are of eight-bit integers.
    pub(crate) fn multiplies_integers(&self) -> bool {
        !matches!(self.weights, Weights::Dense(_))
    }

    /// Adds a token to an input that this layer alone reads.
    pub(crate) fn push(&self, kernels: &Kernels, row: &[f32], input: &mut Input) {
        input.push(kernels, row, self.forms());
    }

    /// Rows `rows` of the product, `[rows, T]`. `factors` is scratch.
    pub(crate) fn apply(
        &self,
        kernels: &Kernels,
        rows: Range<usize>,
        input: &Input,
        factors: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        match &self.weights {
            Weights::Dense(dense) => dense.matmul(kernels, rows.clone(), &input.x, out),
            Weights::Grouped(matrix) => {
                kernels.grouped_matmul(matrix.row_range(rows.clone()), input.grouped.view(), out)
            }
            Weights::Ternary { matrix, factor } => {
                // One rounding from the exact quotient.
                factors.clear();
                factors.extend(input.scales.iter().map(|a| (factor / f64::from(*a)) as f32));
                let Input { codes, stride, sums, tables, .. } = input;
                let x = Activations { codes, stride: *stride, sums, scales: factors, tables };
                kernels.ternary_matmul(matrix.row_range(rows.clone()), x, out);
            }
        }
        if let Some(bias) = &self.bias {
            for (out, bias) in out.chunks_exact_mut(input.tokens).zip(&bias[rows]) {
                out.iter_mut().for_each(|y| *y += bias);
            }
        }
    }
}

/// Linear layers that are multiplied in one phase.
#[derive(Clone, Debug)]
pub(crate) struct Fan {
    linears: Vec<Linear>,
    /// Which input each of them reads.
    input_of: Vec<usize>,
}

/// The most inputs of a fan: r, w, k, v, a and g of RWKV-7.
pub(crate) const MAX_INPUTS: usize = 6;

impl Fan {
    /// Layers that read one vector, each normalised for itself where they have norms of their own.
    pub(crate) fn new(linears: Vec<Linear>) -> Fan {
        let separate = linears.iter().any(|linear| linear.pre_norm.is_some());
        let input_of = (0..linears.len()).map(|i| if separate { i } else { 0 }).collect();
        Fan::reading(linears, input_of)
    }

    /// Layers that read several vectors: layer i the one of number `input_of[i]`.
    pub(crate) fn reading(linears: Vec<Linear>, input_of: Vec<usize>) -> Fan {
        let inputs = input_of.iter().max().map_or(0, |last| last + 1);
        assert!(linears.len() == input_of.len() && (1..=MAX_INPUTS).contains(&inputs), "a fan of {inputs} inputs");
        Fan { linears, input_of }
    }

    pub(crate) fn linears(&self) -> &[Linear] {
        &self.linears
    }

    /// Whether the layers read vectors of their own, if only because they normalise for themselves.
    fn separate(&self) -> bool {
        self.inputs() > 1 || self.linears.iter().any(|linear| linear.pre_norm.is_some())
    }

    /// How many inputs there are to fill.
    pub(crate) fn inputs(&self) -> usize {
        self.input_of.iter().max().map_or(0, |last| last + 1)
    }

    /// Which of them a layer reads.
    pub(crate) fn input_of(&self, linear: usize) -> usize {
        self.input_of[linear]
    }

    /// Adds a token's vector to input `k`.
    pub(crate) fn push_to(&self, kernels: &Kernels, k: usize, row: &[f32], inputs: &mut [Input; MAX_INPUTS]) {
        let readers = self.linears.iter().zip(&self.input_of).filter(|(_, input)| **input == k);
        let forms = readers.map(|(linear, _)| linear.forms()).fold(Forms::default(), Forms::and);
        inputs[k].push(kernels, row, forms);
    }

    /// Makes what the layers want of all tokens together; comes after the last [`Fan::push`].
    pub(crate) fn finish(&self, kernels: &Kernels, inputs: &mut [Input; MAX_INPUTS]) {
        let mut finished = [false; MAX_INPUTS];
        for (i, linear) in self.linears.iter().enumerate() {
            let (k, Weights::Ternary { matrix, .. }) = (self.input_of(i), &linear.weights) else { continue };
            // All ternary layers of a model have one layout.
            if !finished[k] {
                inputs[k].make_tables(kernels, matrix.layout(), matrix.cols());
                finished[k] = true;
            }
        }
    }

    /// Adds a token to the inputs, normalised first where there is a norm. `scratch` is two rows.
    pub(crate) fn push(
        &self,
        kernels: &Kernels,
        row: &[f32],
        norm: Option<Norm<'_>>,
        inputs: &mut [Input; MAX_INPUTS],
        scratch: [&mut [f32]; 2],
    ) {
        let [normed, own] = scratch;
        if !self.separate() {
            let forms = self.linears.iter().map(Linear::forms).fold(Forms::default(), Forms::and);
            return match norm {
                Some(norm) => inputs[0].push_normed(kernels, row, norm, forms, normed),
                None => inputs[0].push(kernels, row, forms),
            };
        }
        let row = match norm {
            Some((gain, eps)) => {
                kernels.rms_norm(row, gain, eps, normed);
                &*normed
            }
            None => row,
        };
        for (linear, input) in self.linears.iter().zip(inputs) {
            match &linear.pre_norm {
                None => input.push(kernels, row, linear.forms()),
                Some((gain, eps)) => input.push_normed(kernels, row, (gain, *eps), linear.forms(), own),
            }
        }
    }
}
