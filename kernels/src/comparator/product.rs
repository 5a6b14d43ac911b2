//! The op of a comparator, as tests, benchmarks and experiments find it.

use super::{Comparator, Source};
use crate::probe::{Arithmetic, Op, Shape, Work};
use crate::ternary::i2::I2;
use crate::ternary::{self, Activations};
use crate::{Kernels, Rng};
use std::marker::PhantomData;

/// The product by the comparator P. A shape is R × C × T.
pub(crate) struct Product<P>(PhantomData<P>);

/// Weights, quantised tokens and the place for the products.
pub(crate) struct Case<W> {
    weights: W,
    tokens: ternary::product::Tokens,
    floats: Vec<f32>,
    out: Vec<f32>,
}

impl<P: Comparator> Op for Product<P> {
    const NAME: &'static str = P::NAME;
    const COMPARATOR: Option<&'static str> = Some(P::STANDS_FOR);
    const ARITHMETIC: Arithmetic = P::ARITHMETIC;
    type Case = Case<P::Weights>;

    fn missing() -> Option<&'static str> {
        P::missing()
    }

    fn shapes() -> Vec<Shape> {
        // Boundaries: lines of 64 columns; up to eight rows and six tokens a block.
        let mut shapes = Vec::new();
        for r in [0, 1, 2, 3, 4, 5, 7, 8, 9, 17] {
            shapes.extend([0, 1, 63, 64, 65, 129].map(|c| Shape::new(r, c, 1)));
        }
        for t in [0, 2, 3, 4, 5, 6, 7, 8, 9, 13, 25] {
            shapes.extend([Shape::new(13, 67, t), Shape::new(24, 128, t)]);
        }
        shapes.extend([Shape::new(640, 2560, 1), Shape::new(256, 2560, 5)]);
        shapes
    }

    fn model_shapes() -> Vec<Shape> {
        // Some of the ternary layouts' own; the last lies beyond most caches, yet takes only half a gigabyte in f32.
        [(2560, 2560, 1), (2560, 6912, 1), (2560, 2560, 4), (2560, 6912, 64), (51_200, 2560, 1)]
            .map(|(r, c, t)| Shape::new(r, c, t))
            .to_vec()
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case<P::Weights> {
        let (tokens, matrix) = ternary::product::numbers::<I2>(shape, rng);
        let mut trits = vec![0; shape.r * shape.c];
        matrix.unpack(0..shape.r, &mut trits);
        let rows = tokens.codes.chunks_exact(Activations::stride_for(shape.c).max(1));
        Case {
            weights: P::weights(&Source { rows: shape.r, cols: shape.c, trits: &trits }),
            floats: rows.flat_map(|codes| P::floats(&codes[..shape.c])).collect(),
            tokens,
            out: vec![f32::NAN; shape.r * shape.t],
        }
    }

    fn run(kernels: &Kernels, case: &mut Case<P::Weights>) {
        P::matmul(kernels, &case.weights, case.tokens.view(), &case.floats, &mut case.out);
    }

    fn output(case: &Case<P::Weights>) -> Vec<f32> {
        case.out.clone()
    }

    fn work(shape: &Shape) -> Work {
        let (r, c, t) = (shape.r as u64, shape.c as u64, shape.t as u64);
        let bytes = r * c * P::BITS / 8 + c * t * P::ACTIVATION_BITS / 8 + 4 * r * t;
        Work { bytes, operations: 2 * r * c * t }
    }

    fn variant(kernels: &Kernels) -> usize {
        P::variant(kernels)
    }
}
