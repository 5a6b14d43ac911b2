//! A ternary layout that an outside crate brings: it packs and multiplies, and is held to ours.

use super::{Activations, Layout, TernaryMatrix};
use crate::probe::{Arithmetic, Op, Shape, Work};
use crate::{Isa, Kernels, Rng};
use std::marker::PhantomData;

/// A way to pack ternary matrices and to multiply by them, from outside. Its op is [`GuestProduct`].
pub trait GuestLayout {
    /// The op's name, for example `mine/rows`.
    const NAME: &'static str;
    /// Bits that a weight takes.
    const BITS: f64;
    /// A packed matrix.
    type Matrix;
    /// Packs the matrix `rows × columns` whose element (r, c), one of -1, 0, 1, is `trit(r, c)`.
    fn pack(rows: usize, columns: usize, trit: &dyn Fn(usize, usize) -> i8) -> Self::Matrix;
    /// `out[r, t]` = (sum over c of w\[r, c\] · codes\[t, c\], in integers) · `scales[t]`, one rounding; out `[R, T]`. Never
    /// called for [`Isa::Scalar`]: there the layout's op is the product of [`crate::ternary::i2`], its specification.
    fn matmul(kernels: &Kernels, matrix: &Self::Matrix, x: Activations<'_>, out: &mut [f32]);
    /// The address of the code that computes the product on a level: equal addresses are the same code.
    fn variant(isa: Isa) -> usize;
}

/// The op of a guest's layout, for [`probe`](crate::probe::probe()). A shape is R × C × T.
pub struct GuestProduct<L>(PhantomData<L>);

/// A matrix in both packings, quantised tokens and the place for the products.
pub struct Case<M> {
    ours: TernaryMatrix,
    theirs: M,
    codes: Vec<i8>,
    sums: Vec<i32>,
    scales: Vec<f32>,
    out: Vec<f32>,
}

impl<L: GuestLayout> Op for GuestProduct<L> {
    const NAME: &'static str = L::NAME;
    const ARITHMETIC: Arithmetic = Arithmetic::Int8;
    type Case = Case<L::Matrix>;

    fn shapes() -> Vec<Shape> {
        let mut shapes = Vec::new();
        for r in [0, 1, 3, 15, 16, 17, 64, 131] {
            shapes.extend([0, 1, 2, 31, 32, 33, 63, 64, 65, 131].map(|c| Shape::new(r, c, 1)));
        }
        shapes.extend([0, 2, 3, 4, 5, 8, 9, 17, 33].map(|t| Shape::new(37, 67, t)));
        shapes.extend(Self::model_shapes());
        shapes
    }

    fn model_shapes() -> Vec<Shape> {
        [(640, 2560, 1), (2560, 2560, 1), (2560, 6912, 1), (256, 2560, 64)]
            .map(|(r, c, t)| Shape::new(r, c, t))
            .to_vec()
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case<L::Matrix> {
        let stride = Activations::stride_for(shape.c);
        let mut codes = vec![0i8; shape.t * stride];
        // Every second case is full of the largest codes, which sums in narrow lanes must survive.
        let largest = rng.below(2) == 0;
        for row in codes.chunks_exact_mut(stride.max(1)) {
            row[..shape.c].fill_with(|| if largest { -128 } else { rng.below(256) as u8 as i8 });
        }
        let ours = if largest && rng.below(2) == 0 {
            TernaryMatrix::from_fn(shape.r, shape.c, Layout::I2, |_, _| -1)
        } else {
            TernaryMatrix::random(shape.r, shape.c, Layout::I2, rng)
        };
        Case {
            theirs: L::pack(shape.r, shape.c, &|r, c| ours.get(r, c)),
            ours,
            sums: (0..shape.t)
                .map(|t| codes[t * stride..(t + 1) * stride].iter().map(|q| i32::from(*q)).sum())
                .collect(),
            codes,
            scales: (0..shape.t).map(|_| rng.unit() + 0.5).collect(),
            out: vec![f32::NAN; shape.r * shape.t],
        }
    }

    fn run(kernels: &Kernels, case: &mut Self::Case) {
        let Case { ours, theirs, codes, sums, scales, out } = case;
        let stride = Activations::stride_for(ours.cols());
        let x = Activations { codes, stride, sums, scales, tables: &[] };
        match kernels.isa() {
            Isa::Scalar => kernels.ternary_matmul(ours.view(), x, out),
            _ => L::matmul(kernels, theirs, x, out),
        }
    }

    fn output(case: &Self::Case) -> Vec<f32> {
        case.out.clone()
    }

    fn work(shape: &Shape) -> Work {
        let (r, c, t) = (shape.r as u64, shape.c as u64, shape.t as u64);
        let weights = (r as f64 * c as f64 * L::BITS / 8.0) as u64;
        Work { bytes: weights + c * t + 4 * r * t, operations: 2 * r * c * t }
    }

    fn variant(kernels: &Kernels) -> usize {
        match kernels.isa() {
            // No address of a guest.
            Isa::Scalar => 0,
            isa => L::variant(isa),
        }
    }
}
