//! The op, for [`OPS`](crate::probe::OPS).

use super::{Selective, pack_decays, packed_len, state_from_rows, state_to_rows};
use crate::probe::{Op, Shape, Work};
use crate::{Kernels, Rng, Rows, RowsMut};

/// A shape is N × W × T; an odd N has no gate.
pub(crate) struct SelectiveScan;

/// What a scan reads, the state before and now, and the place for the result.
pub(crate) struct Case {
    shape: Shape,
    /// Of x and the gate, side by side in one matrix, as a model's first product leaves them.
    stride: usize,
    decays: Vec<f32>,
    skip: Vec<f32>,
    dt: Vec<f32>,
    x: Vec<f32>,
    coefficients: Vec<f32>,
    before: Vec<f32>,
    state: Vec<f32>,
    y: Vec<f32>,
}

impl Op for SelectiveScan {
    const NAME: &'static str = "scan/selective";
    type Case = Case;

    fn shapes() -> Vec<Shape> {
        let widths = [1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 100];
        let edges = widths.into_iter().flat_map(|w| [1, 15, 16, 17].map(|n| Shape::new(n, w, 5)));
        let few = [0, 1, 2, 3].map(|t| Shape::new(16, 40, t));
        edges.chain(few).chain(Self::model_shapes()).collect()
    }

    fn model_shapes() -> Vec<Shape> {
        vec![Shape::new(16, 5120, 1), Shape::new(16, 5120, 64)]
    }

    fn admit(shape: Shape) -> Shape {
        let states = if (1..=40).contains(&shape.r) { shape.r } else { 16 };
        Shape::new(states, shape.c.max(1), shape.t)
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case {
        let Shape { r: n, c: w, t } = *shape;
        let mut numbers = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal()).collect() };
        let a_log: Vec<f32> = numbers(w * n).into_iter().map(|x| 2.0 + x).collect();
        let mut decays = vec![f32::NAN; packed_len(w, n)];
        pack_decays(&a_log, n, &mut decays);
        let mut before = vec![f32::NAN; packed_len(w, n)];
        state_from_rows(&numbers(w * n), n, &mut before);
        Case {
            shape: *shape,
            stride: 2 * w + w % 3,
            decays,
            skip: numbers(w),
            // Steps like those of models, now and then one after which nothing is left.
            dt: numbers(w * t).into_iter().map(|x| if x > 2.5 { 100.0 } else { 0.03 * x * x }).collect(),
            x: numbers((2 * w + w % 3) * t),
            coefficients: numbers(2 * n * t),
            state: before.clone(),
            before,
            y: vec![f32::NAN; w * t],
        }
    }

    fn run(kernels: &Kernels, case: &mut Case) {
        let Shape { r: states, c: width, t: tokens } = case.shape;
        case.state.copy_from_slice(&case.before);
        let x = Rows { data: &case.x, stride: case.stride };
        let b = Rows { data: &case.coefficients, stride: 2 * states };
        let scan = Selective {
            tokens,
            states,
            decays: &case.decays,
            skip: &case.skip,
            dt: Rows::dense(&case.dt, width),
            x,
            b,
            c: b.columns_from(states),
            gate: states.is_multiple_of(2).then(|| x.columns_from(width)),
        };
        kernels.selective_scan(&scan, &mut case.state, RowsMut::dense(&mut case.y, width));
    }

    fn output(case: &Case) -> Vec<f32> {
        let mut rows = vec![f32::NAN; case.shape.r * case.shape.c];
        state_to_rows(&case.state, case.shape.r, &mut rows);
        [&case.y[..], &rows].concat()
    }

    fn work(shape: &Shape) -> Work {
        let (n, w, t) = (shape.r as u64, shape.c as u64, shape.t as u64);
        Work { bytes: 12 * n * w + 16 * w * t + 8 * n * t, operations: 18 * n * w * t }
    }

    fn variant(kernels: &Kernels) -> usize {
        kernels.selective_scan as usize
    }
}
