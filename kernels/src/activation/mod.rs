//! Element-wise non-linearities, in place, and their gated forms.
//!
//! **Computes**, element by element:
//!
//! | op | function | source |
//! |---|---|---|
//! | `sigmoid` | 1 / (1 + exp(-x)) | |
//! | `silu` | x · sigmoid(x) | Elfwing et al., arXiv 1702.03118 |
//! | `gelu_tanh` | x/2 · (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) | Hendrycks and Gimpel, arXiv 1606.08415 |
//! | `gelu_erf` | x/2 · (1 + erf(x / sqrt 2)) | the same |
//! | `squared_relu` | max(x, 0)^2 | So et al., "Primer", arXiv 2109.08668 |
//! | `exp` | exp(x) | |
//! | `tanh` | (1 - exp(-2x)) / (1 + exp(-2x)) | |
//! | `softplus` | log(1 + exp(x)) | Dugas et al., NIPS 2000 |
//! | `exp_decay` | exp(-exp(x)) | decay of RWKV-5 and 6: Peng et al., arXiv 2404.05892 |
//! | `sigmoid_decay` | exp(-0.606531 sigmoid(x)) | decay of RWKV-7: Peng et al., arXiv 2503.14456 |
//! | `swiglu` | gate = silu(gate) · up | Shazeer, arXiv 2002.05202 |
//! | `squared_relu_glu` | gate = max(gate, 0)^2 · up | BitNet b1.58 2B4T, arXiv 2504.12285 |
//!
//! **Shapes** x `[n]`; gate and up `[n]`.
//!
//! **Numbers** f32. Infinities give the limits (`silu` and both GELUs of -inf are -0), NaN gives NaN, squares overflow to
//! infinity above 1.8e19. GELU by erf is x times the normal distribution function, computed by its tail, so that small
//! results on the negative side keep their relative accuracy. `exp` and `softplus` are 0 below -86.9, where a result would
//! be no normal number, and `exp` infinite above 88.72. `softplus` is max(x, 0) + log(1 + exp(-|x|)), which overflows
//! nowhere and needs no threshold: from 17 on it is x to the last bit. Errors, in units in the last place: `exp` 1.1,
//! `tanh` 1.3, `softplus` 1.8 (`tests/accuracy.rs`).
//!
//! **Exactness** the same bits everywhere: our own exp and normal tail, the same operations in the same order.
//!
//! **Cost** 8·n bytes (12·n gated); between 2 and about 40 operations an element.
//!
//! **Source** the table; `exp` after Cephes (Moshier), the normal tail and the polynomials of `tanh` and `softplus` by Remez
//! fits of our own.
//!
//! **Variants** AVX2 (eight at a time) and AVX-512 (sixteen, masked tail) of each.
//!
//! **Not done** `gelu_tanh` by `tanh`: it is x · sigmoid(2u), which needs one exponential and no polynomial.

use crate::Kernels;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod ops;
pub(crate) mod scalar;

pub(crate) type Variant = unsafe fn(&mut [f32]);
/// gate in place, up.
pub(crate) type GatedVariant = unsafe fn(&mut [f32], &[f32]);

/// Which element-wise function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// Logistic sigmoid.
    Sigmoid,
    /// x · sigmoid(x).
    Silu,
    /// GELU by its tanh approximation.
    GeluTanh,
    /// GELU by the error function.
    GeluErf,
    /// max(x, 0)^2.
    SquaredRelu,
    /// e^x, for decays.
    Exp,
    /// Hyperbolic tangent.
    Tanh,
    /// log(1 + e^x), for step sizes.
    Softplus,
    /// exp(-exp(x)): the decay of RWKV-5 and 6.
    ExpDecay,
    /// exp(-0.606531 sigmoid(x)): the decay of RWKV-7.
    SigmoidDecay,
}

/// Which gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gate {
    /// silu(gate) · up.
    SwiGlu,
    /// max(gate, 0)^2 · up.
    SquaredReluGlu,
}

impl Kernels {
    /// Applies `activation` to each element of `x` in place. See [`crate::activation`].
    pub fn activate(&self, activation: Activation, x: &mut [f32]) {
        let variant = match activation {
            Activation::Sigmoid => self.sigmoid,
            Activation::Silu => self.silu,
            Activation::GeluTanh => self.gelu_tanh,
            Activation::GeluErf => self.gelu_erf,
            Activation::SquaredRelu => self.squared_relu,
            Activation::Exp => self.exp,
            Activation::Tanh => self.tanh,
            Activation::Softplus => self.softplus,
            Activation::ExpDecay => self.exp_decay,
            Activation::SigmoidDecay => self.sigmoid_decay,
        };
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { variant(x) }
    }

    /// Replaces `gate` by its activation times `up`. See [`crate::activation`].
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn activate_gated(&self, activation: Gate, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len(), "gate and up");
        let variant = match activation {
            Gate::SwiGlu => self.swiglu,
            Gate::SquaredReluGlu => self.squared_relu_glu,
        };
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { variant(gate, up) }
    }
}
