//! The specification.

use crate::math::scalar::{erf, exp};

fn sigmoid_one(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

fn silu_one(x: f32) -> f32 {
    x * sigmoid_one(x)
}

fn gelu_tanh_one(x: f32) -> f32 {
    // x/2 (1 + tanh u) = x sigmoid(2u): one exponential and no cancellation.
    const TWO_SQRT_TWO_OVER_PI: f32 = 1.595_769_1;
    let cubic = (x * x).mul_add(0.044_715, 1.0) * x;
    x * sigmoid_one(TWO_SQRT_TWO_OVER_PI * cubic)
}

fn gelu_erf_one(x: f32) -> f32 {
    x * 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

fn squared_relu_one(x: f32) -> f32 {
    let positive = if x > 0.0 { x } else { 0.0 };
    positive * positive
}

pub(crate) fn sigmoid(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = sigmoid_one(*x));
}

pub(crate) fn silu(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = silu_one(*x));
}

pub(crate) fn gelu_tanh(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = gelu_tanh_one(*x));
}

pub(crate) fn gelu_erf(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = gelu_erf_one(*x));
}

pub(crate) fn squared_relu(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = squared_relu_one(*x));
}

pub(crate) fn swiglu(gate: &mut [f32], up: &[f32]) {
    gate.iter_mut().zip(up).for_each(|(gate, up)| *gate = silu_one(*gate) * up);
}

pub(crate) fn squared_relu_glu(gate: &mut [f32], up: &[f32]) {
    gate.iter_mut().zip(up).for_each(|(gate, up)| *gate = squared_relu_one(*gate) * up);
}
