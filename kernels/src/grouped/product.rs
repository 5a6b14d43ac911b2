//! The op of a layout, as tests, benchmarks and experiments find it.

use super::codes::{self, Codes};
use super::format::{GROUP, TILE_ROWS};
use super::{GroupedMatrix, Layout, Variant};
use crate::probe::{Arithmetic, Op, Shape, Work};
use crate::{Isa, Kernels, Rng};
use std::marker::PhantomData;

/// A layout's line in [`OPS`](crate::probe::OPS).
pub(crate) trait Packed {
    /// `dense/NAME`.
    const NAME: &'static str;
    /// How the weights are packed.
    const LAYOUT: Layout;
    /// The product that a table holds.
    fn variant(kernels: &Kernels) -> Variant;
}

/// The product in the layout P. A shape is R × C × T.
pub(crate) struct Product<P>(PhantomData<P>);

/// A matrix, quantised tokens and the place for the products.
pub(crate) struct Case {
    matrix: GroupedMatrix,
    x: Codes,
    out: Vec<f32>,
}

impl<P: Packed> Op for Product<P> {
    const NAME: &'static str = P::NAME;
    const ARITHMETIC: Arithmetic = Arithmetic::Int8;
    type Case = Case;

    fn shapes() -> Vec<Shape> {
        // Boundaries: a tile of rows and several side by side; a group, a block of two; blocks of tokens; in panels eight
        // tiles, eight groups and 132 tokens.
        let mut shapes = Vec::new();
        for r in [0, 1, 15, 16, 17, 31, 63, 64, 65, 127, 128, 129, 257] {
            for c in [1, 31, 32, 33, 63, 64, 65, 131] {
                shapes.push(Shape::new(r, c, 1));
            }
        }
        for t in [0, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 17, 31, 33] {
            shapes.push(Shape::new(2 * TILE_ROWS + 5, 2 * GROUP + 3, t));
        }
        shapes.extend([(153, 331, 29), (21, 64, 133), (16, 640, 24)].map(|(r, c, t)| Shape::new(r, c, t)));
        shapes.extend([(640, 2560, 1), (2560, 640, 1), (256, 2560, 64)].map(|(r, c, t)| Shape::new(r, c, t)));
        shapes
    }

    fn model_shapes() -> Vec<Shape> {
        // The shapes of the dense product and one between; the last is a quarter of a large model's head.
        [
            (2048, 256, 1),
            (2560, 2560, 1),
            (256, 256, 128),
            (2560, 2560, 4),
            (2560, 2560, 16),
            (2560, 2560, 64),
            (32064, 2560, 1),
        ]
        .map(|(r, c, t)| Shape::new(r, c, t))
        .to_vec()
    }

    fn admit(shape: Shape) -> Shape {
        Shape::new(shape.r, shape.c.max(1), shape.t)
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case {
        let matrix = GroupedMatrix::random(shape.r, shape.c, P::LAYOUT, rng);
        let kernels = Kernels::for_isa(Isa::Scalar).expect("every machine has the scalar level");
        let x = codes::random(kernels, shape.t, shape.c, rng);
        Case { matrix, x, out: vec![f32::NAN; shape.r * shape.t] }
    }

    fn run(kernels: &Kernels, case: &mut Case) {
        kernels.grouped_matmul(case.matrix.view(), case.x.view(), &mut case.out);
    }

    fn output(case: &Case) -> Vec<f32> {
        case.out.clone()
    }

    fn work(shape: &Shape) -> Work {
        let (r, c, t) = (shape.r as u64, shape.c as u64, shape.t as u64);
        let weights = (r as f64 * c as f64 * P::LAYOUT.bits() / 8.0) as u64;
        Work { bytes: weights + c * t * 5 / 4 + 4 * r * t, operations: 2 * r * c * t }
    }

    fn variant(kernels: &Kernels) -> usize {
        P::variant(kernels) as usize
    }
}
