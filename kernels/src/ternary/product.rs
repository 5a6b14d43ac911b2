//! The op of a layout, as tests, benchmarks and experiments find it.

use super::{Activations, Layout, TernaryMatrix, TernaryRows};
use crate::probe::{Arithmetic, Op, Shape, Work};
use crate::{Kernels, Line, Lines, Rng};
use std::marker::PhantomData;

/// A layout's line in [`OPS`](crate::probe::OPS).
pub(crate) trait Packed {
    /// `ternary/NAME`.
    const NAME: &'static str;
    /// See [`Op::COMPARATOR`].
    const COMPARATOR: Option<&'static str> = None;
    /// How the weights are packed.
    const LAYOUT: Layout;
    /// The address of the product that a table holds.
    fn variant(kernels: &Kernels) -> usize;

    /// Lines of tables for so many columns and tokens. These three are the layout's front door unless the op has its own.
    fn table_lines(kernels: &Kernels, columns: usize, tokens: usize) -> usize {
        kernels.ternary_table_lines(Self::LAYOUT, columns, tokens)
    }

    /// Makes the tables for so many columns.
    fn tables(kernels: &Kernels, columns: usize, codes: &[i8], tables: &mut [Line]) {
        kernels.ternary_tables(Self::LAYOUT, columns, codes, tables);
    }

    /// The product.
    fn matmul(kernels: &Kernels, weights: TernaryRows<'_>, x: Activations<'_>, out: &mut [f32]) {
        kernels.ternary_matmul(weights, x, out);
    }
}

/// The product in the layout P. A shape is R × C × T.
pub(crate) struct Product<P>(PhantomData<P>);

/// Quantised tokens.
pub(crate) struct Tokens {
    pub(crate) codes: Vec<i8>,
    stride: usize,
    sums: Vec<i32>,
    scales: Vec<f32>,
}

impl Tokens {
    /// Without tables.
    pub(crate) fn view(&self) -> Activations<'_> {
        let Tokens { codes, stride, sums, scales } = self;
        Activations { codes, stride: *stride, sums, scales, tables: &[] }
    }
}

/// The random numbers of a shape, which are the same for every layout and for what layouts are compared with.
pub(crate) fn numbers<P: Packed>(shape: &Shape, rng: &mut Rng) -> (Tokens, TernaryMatrix) {
    let stride = Activations::stride_for(shape.c);
    let mut codes = vec![0i8; shape.t * stride];
    for row in codes.chunks_exact_mut(stride.max(1)) {
        row[..shape.c].fill_with(|| rng.below(256) as u8 as i8);
    }
    let sum = |t: usize| codes[t * stride..][..stride].iter().map(|q| i32::from(*q)).sum();
    let sums = (0..shape.t).map(sum).collect();
    let matrix = TernaryMatrix::random(shape.r, shape.c, P::LAYOUT, rng);
    (Tokens { codes, stride, sums, scales: (0..shape.t).map(|_| rng.unit() + 0.5).collect() }, matrix)
}

/// A matrix, quantised tokens and the place for the products.
pub(crate) struct Case {
    matrix: TernaryMatrix,
    tokens: Tokens,
    tables: Lines,
    out: Vec<f32>,
}

impl<P: Packed> Op for Product<P> {
    const NAME: &'static str = P::NAME;
    const COMPARATOR: Option<&'static str> = P::COMPARATOR;
    const ARITHMETIC: Arithmetic = Arithmetic::Int8;
    type Case = Case;

    fn shapes() -> Vec<Shape> {
        // Boundaries: a tile of rows and eight side by side; a group of columns and the padding of the codes; blocks of
        // tokens.
        let format = P::LAYOUT.format();
        let around = |n: usize| [n - 1, n, n + 1];
        let tile = format.tile_rows;
        let rows =
            [0, 1].into_iter().chain(around(tile)).chain([2 * tile - 1]).chain(around(8 * tile)).chain([16 * tile + 1]);
        let columns = [0, 1].into_iter().chain(around(format.group_columns)).chain(around(64)).chain([131]);
        let columns: Vec<usize> = columns.collect();
        let mut shapes: Vec<Shape> =
            rows.flat_map(|r| columns.iter().map(move |c| Shape::new(r, *c, 1)).collect::<Vec<_>>()).collect();
        for t in [0, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 17, 31, 33] {
            shapes.push(Shape::new(2 * tile + 5, 67, t));
        }
        for (r, c) in [(2560, 2560), (640, 2560), (6912, 2560), (2560, 6912)] {
            shapes.push(Shape::new(r, c, 1));
        }
        shapes.push(Shape::new(256, 2560, 64));
        shapes
    }

    fn model_shapes() -> Vec<Shape> {
        // The projections of a 2B model for one token and for prompts, then a matrix beyond every cache.
        [
            (640, 2560, 1),
            (2560, 2560, 1),
            (2560, 6912, 1),
            (6912, 2560, 1),
            (2560, 2560, 4),
            (2560, 6912, 64),
            (6912, 2560, 128),
            (204_800, 2560, 1),
        ]
        .map(|(r, c, t)| Shape::new(r, c, t))
        .to_vec()
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case {
        let (tokens, matrix) = numbers::<P>(shape, rng);
        Case { matrix, tokens, tables: Lines::zeroed(0), out: vec![f32::NAN; shape.r * shape.t] }
    }

    /// Tables are made anew each time: that is part of the cost.
    fn run(kernels: &Kernels, case: &mut Case) {
        let Case { matrix, tokens, tables, out } = case;
        let lines = P::table_lines(kernels, matrix.cols(), tokens.scales.len());
        if tables.len() != lines {
            *tables = Lines::zeroed(lines);
        }
        P::tables(kernels, matrix.cols(), &tokens.codes, tables);
        P::matmul(kernels, matrix.view(), Activations { tables, ..tokens.view() }, out);
    }

    fn output(case: &Case) -> Vec<f32> {
        case.out.clone()
    }

    fn work(shape: &Shape) -> Work {
        let (r, c, t) = (shape.r as u64, shape.c as u64, shape.t as u64);
        let weights = (r as f64 * c as f64 * P::LAYOUT.bits() / 8.0) as u64;
        Work { bytes: weights + c * t + 4 * r * t, operations: 2 * r * c * t }
    }

    fn variant(kernels: &Kernels) -> usize {
        P::variant(kernels)
    }
}
