//! The ops, for [`OPS`](crate::probe::OPS). A shape is 1 × n × 1.

use super::{Activation, Gate};
use crate::probe::{Op, Shape, Work};
use crate::{Kernels, Rng};

/// Inputs, and where the result replaces a copy of them. The copy is part of each run: without it, repeated runs would
/// leave denormals and time those.
pub(crate) struct Case {
    input: Vec<f32>,
    up: Vec<f32>,
    x: Vec<f32>,
}

impl Case {
    fn new(shape: &Shape, rng: &mut Rng) -> Case {
        let input: Vec<f32> = (0..shape.c).map(|_| rng.normal() * 4.0).collect();
        Case { x: input.clone(), up: (0..shape.c).map(|_| rng.normal()).collect(), input }
    }
}

fn shapes() -> Vec<Shape> {
    let lengths = [0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 131, 2560, 6912, 65536];
    lengths.into_iter().map(|n| Shape::new(1, n, 1)).collect()
}

macro_rules! op {
    ($op:ident, $name:literal, $field:ident, $operations:literal, $bytes:literal, $run:expr) => {
        #[doc = concat!("`", $name, "`.")]
        pub(crate) struct $op;

        impl Op for $op {
            const NAME: &'static str = $name;
            type Case = Case;

            fn shapes() -> Vec<Shape> {
                shapes()
            }

            fn admit(shape: Shape) -> Shape {
                Shape::new(1, shape.c, 1)
            }

            fn case(shape: &Shape, rng: &mut Rng) -> Case {
                Case::new(shape, rng)
            }

            fn run(kernels: &Kernels, case: &mut Case) {
                case.x.copy_from_slice(&case.input);
                let run: fn(&Kernels, &mut [f32], &[f32]) = $run;
                run(kernels, &mut case.x, &case.up);
            }

            fn output(case: &Case) -> Vec<f32> {
                case.x.clone()
            }

            fn work(shape: &Shape) -> Work {
                Work { bytes: $bytes * shape.c as u64, operations: $operations * shape.c as u64 }
            }

            fn variant(kernels: &Kernels) -> usize {
                kernels.$field as usize
            }
        }
    };
}

op!(Sigmoid, "activation/sigmoid", sigmoid, 18, 8, |kernels, x, _| kernels.activate(Activation::Sigmoid, x));
op!(Silu, "activation/silu", silu, 19, 8, |kernels, x, _| kernels.activate(Activation::Silu, x));
op!(GeluTanh, "activation/gelu_tanh", gelu_tanh, 23, 8, |kernels, x, _| kernels.activate(Activation::GeluTanh, x));
op!(GeluErf, "activation/gelu_erf", gelu_erf, 40, 8, |kernels, x, _| kernels.activate(Activation::GeluErf, x));
op!(SquaredRelu, "activation/squared_relu", squared_relu, 2, 8, |kernels, x, _| {
    kernels.activate(Activation::SquaredRelu, x)
});
op!(Exp, "activation/exp", exp, 16, 8, |kernels, x, _| kernels.activate(Activation::Exp, x));
op!(Tanh, "activation/tanh", tanh, 28, 8, |kernels, x, _| kernels.activate(Activation::Tanh, x));
op!(Softplus, "activation/softplus", softplus, 36, 8, |kernels, x, _| kernels.activate(Activation::Softplus, x));
op!(ExpDecay, "activation/exp_decay", exp_decay, 30, 8, |kernels, x, _| kernels.activate(Activation::ExpDecay, x));
op!(SigmoidDecay, "activation/sigmoid_decay", sigmoid_decay, 34, 8, |kernels, x, _| {
    kernels.activate(Activation::SigmoidDecay, x)
});
op!(SwiGlu, "activation/swiglu", swiglu, 20, 12, |kernels, x, up| kernels.activate_gated(Gate::SwiGlu, x, up));
op!(SquaredReluGlu, "activation/squared_relu_glu", squared_relu_glu, 3, 12, |kernels, x, up| {
    kernels.activate_gated(Gate::SquaredReluGlu, x, up)
});
