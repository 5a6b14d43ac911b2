//! The op, for [`OPS`](crate::probe::OPS).

use super::Ssd;
use crate::probe::{Op, Shape, Work};
use crate::{Kernels, Rng, Rows, RowsMut};

/// Heads of a case.
pub(crate) const HEADS: usize = 3;

/// A shape is N × P × T, of three heads.
pub(crate) struct SsdScan;

/// What a scan reads, the state before and now, and the place for the result.
pub(crate) struct Case {
    shape: Shape,
    a: Vec<f32>,
    skip: Vec<f32>,
    dt: Vec<f32>,
    /// u, B and C side by side in one matrix, as the convolution leaves them.
    x: Vec<f32>,
    before: Vec<f32>,
    state: Vec<f32>,
    y: Vec<f32>,
}

impl Case {
    pub(crate) fn new(shape: &Shape, rng: &mut Rng) -> Case {
        let Shape { r: n, c: p, t } = *shape;
        let mut numbers = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal()).collect() };
        let before = numbers(HEADS * n * p);
        Case {
            shape: *shape,
            a: numbers(HEADS).into_iter().map(|x| -16.0 * x * x).collect(),
            skip: numbers(HEADS),
            // Steps like those of models, now and then one after which nothing is left.
            dt: numbers(HEADS * t).into_iter().map(|x| if x > 2.5 { 100.0 } else { 0.03 * x * x }).collect(),
            x: numbers((HEADS * p + 2 * n) * t),
            state: before.clone(),
            before,
            y: vec![f32::NAN; HEADS * p * t],
        }
    }

    pub(crate) fn run(&mut self, scan: impl Fn(&Ssd<'_>, &mut [f32], RowsMut<'_>)) {
        let Shape { r: states, c: width, t: tokens } = self.shape;
        self.state.copy_from_slice(&self.before);
        let x = Rows { data: &self.x, stride: HEADS * width + 2 * states };
        let b = x.columns_from(HEADS * width);
        let dt = Rows::dense(&self.dt, HEADS);
        let (a, skip, c) = (&self.a[..], &self.skip[..], b.columns_from(states));
        let inputs = Ssd { tokens, states, width, a, skip, dt, x, b, c };
        scan(&inputs, &mut self.state, RowsMut::dense(&mut self.y, HEADS * width));
    }

    pub(crate) fn output(&self) -> Vec<f32> {
        [&self.y[..], &self.state].concat()
    }
}

pub(crate) fn shapes() -> Vec<Shape> {
    let widths = [1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100];
    let edges = widths.into_iter().flat_map(|p| [1, 16, 33].map(|n| Shape::new(n, p, 5)));
    let few = [0, 1, 2, 3].map(|t| Shape::new(24, 40, t));
    edges.chain(few).chain(model_shapes()).collect()
}

pub(crate) fn model_shapes() -> Vec<Shape> {
    [1, 64, 256].map(|t| Shape::new(128, 64, t)).into()
}

pub(crate) fn admit(shape: Shape) -> Shape {
    let states = if (1..=128).contains(&shape.r) { shape.r } else { shape.r % 70 + 1 };
    Shape::new(states, shape.c.max(1), shape.t)
}

pub(crate) fn work(shape: &Shape) -> Work {
    let (n, p, t, heads) = (shape.r as u64, shape.c as u64, shape.t as u64, HEADS as u64);
    Work { bytes: heads * (8 * n * p + 8 * p * t) + 8 * n * t, operations: 5 * heads * n * p * t }
}

impl Op for SsdScan {
    const NAME: &'static str = "scan/ssd";
    type Case = Case;

    fn shapes() -> Vec<Shape> {
        shapes()
    }

    fn model_shapes() -> Vec<Shape> {
        model_shapes()
    }

    fn admit(shape: Shape) -> Shape {
        admit(shape)
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case {
        Case::new(shape, rng)
    }

    fn run(kernels: &Kernels, case: &mut Case) {
        case.run(|scan, state, y| kernels.ssd_scan(scan, state, y));
    }

    fn output(case: &Case) -> Vec<f32> {
        case.output()
    }

    fn work(shape: &Shape) -> Work {
        work(shape)
    }

    fn variant(kernels: &Kernels) -> usize {
        kernels.ssd_scan as usize
    }
}
