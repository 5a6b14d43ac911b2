//! The specification.

use crate::math::scalar::{self as math, normal_cdf, sigmoid as logistic};

/// All gates here are exactly 0 below this; an argument is clamped to it before the product, so that minus infinity
/// gives -0 (the limit) and not infinity times 0.
pub(crate) const FLOOR: f32 = -128.0;
/// 2 sqrt(2 / pi).
pub(crate) const TWO_SQRT_TWO_OVER_PI: f32 = 1.595_769;
/// The weight of the cubic term in the tanh form of GELU.
pub(crate) const CUBIC: f32 = 0.044_715;
/// The fastest decay of RWKV-7 is e to minus this, which is e^-0.5 in six digits: its models were trained with them.
pub(crate) const FASTEST: f32 = 0.606_531;

/// x times a gate in 0..=1 that is 0 from `FLOOR` down.
fn gated(x: f32, gate: f32) -> f32 {
    // Not f32::max, which would turn NaN into the bound.
    (if x < FLOOR { FLOOR } else { x }) * gate
}

pub(crate) fn silu_one(x: f32) -> f32 {
    gated(x, logistic(x))
}

fn gelu_tanh_one(x: f32) -> f32 {
    // x/2 (1 + tanh u) = x sigmoid(2u): one exponential and no cancellation.
    let cubic = (x * x).mul_add(CUBIC, 1.0) * x;
    gated(x, logistic(TWO_SQRT_TWO_OVER_PI * cubic))
}

fn gelu_erf_one(x: f32) -> f32 {
    gated(x, normal_cdf(x))
}

fn squared_relu_one(x: f32) -> f32 {
    let positive = if x < 0.0 { 0.0 } else { x };
    positive * positive
}

pub(crate) fn sigmoid(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = logistic(*x));
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

pub(crate) fn exp(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = math::exp(*x));
}

pub(crate) fn tanh(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = math::tanh(*x));
}

pub(crate) fn softplus(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = math::softplus(*x));
}

pub(crate) fn exp_decay(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = math::exp(-math::exp(*x)));
}

pub(crate) fn sigmoid_decay(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = math::exp(logistic(*x) * -FASTEST));
}

pub(crate) fn swiglu(gate: &mut [f32], up: &[f32]) {
    gate.iter_mut().zip(up).for_each(|(gate, up)| *gate = silu_one(*gate) * up);
}

pub(crate) fn squared_relu_glu(gate: &mut [f32], up: &[f32]) {
    gate.iter_mut().zip(up).for_each(|(gate, up)| *gate = squared_relu_one(*gate) * up);
}
