//! One linear layer in each of its four published forms.

use super::config::{Config, Linears};
use super::quantise::{absmax, absmean, unpack};
use super::rms_norm;
use crate::tensors::Tensors;
use ndarray::{Array1, Array2, Axis};

/// y = f(x) for x `[T, C]`, y `[T, R]`.
#[derive(Debug)]
pub(super) struct Linear {
    /// `[R, C]`: full precision, or -1, 0 and 1.
    weight: Array2<f64>,
    /// What the ternary product over the activation scale is multiplied by; `None` is full precision, where activations
    /// are not quantised.
    gain: Option<f64>,
    /// `[R]`, added last.
    bias: Option<Array1<f64>>,
    /// Gain `[C]` and epsilon of a norm inside the layer.
    norm: Option<(Array1<f64>, f64)>,
}

impl Linear {
    /// Reads `NAME.weight` of a `rows × cols` layer, and `NAME.weight_scale`, `NAME.bias` and `NAME.rms_norm.weight`
    /// where the form has them.
    pub(super) fn read(tensors: &Tensors, config: &Config, name: &str, rows: usize, cols: usize) -> Linear {
        let vector = |part: &str| tensors.get(&format!("{name}.{part}")).map(|t| Array1::from(t.f64s()));
        let stored = tensors.tensor(&format!("{name}.weight"));
        let master = || Array2::from_shape_vec((rows, cols), stored.f64s()).expect("weight [R, C]");
        let scale = || vector("weight_scale").expect("a packed layer has a scale")[0];
        let bias = vector("bias");
        let norm = vector("rms_norm.weight").map(|gain| (gain, config.linear_eps));
        match config.linears {
            Linears::Dense => Linear { weight: master(), gain: None, bias, norm },
            // y = (q/a) W~^T + b.
            Linears::Online => {
                let (ternary, mean) = absmean(&master());
                Linear { weight: ternary, gain: Some(mean), bias, norm }
            }
            // y = ((q/a) t^T + b) * weight_scale: the bias is scaled too.
            Linears::PackedMultiply => {
                let bias = bias.map(|bias| bias * scale());
                Linear { weight: unpack(&stored.bytes, rows, cols), gain: Some(scale()), bias, norm }
            }
            // y = (q t^T) / (weight_scale * a) + b.
            Linears::PackedDivide => {
                Linear { weight: unpack(&stored.bytes, rows, cols), gain: Some(1.0 / scale()), bias, norm }
            }
        }
    }

    /// A full-precision layer without bias.
    pub(super) fn dense(weight: Array2<f64>) -> Linear {
        Linear { weight, gain: None, bias: None, norm: None }
    }

    /// y `[T, R]` of x `[T, C]`; activations are quantised to `levels` (127, but for negative controls).
    pub(super) fn apply(&self, x: &Array2<f64>, levels: f64) -> Array2<f64> {
        let x = match &self.norm {
            Some((gain, eps)) => &rms_norm(x, gain, *eps),
            None => x,
        };
        let mut y = match self.gain {
            None => x.dot(&self.weight.t()),
            Some(gain) => {
                let (codes, scale) = absmax(x, levels);
                codes.dot(&self.weight.t()) * gain / scale.insert_axis(Axis(1))
            }
        };
        if let Some(bias) = &self.bias {
            y += bias;
        }
        y
    }

    /// Codes `[T, C]` of the quantised activations, for comparison with golden ones.
    ///
    /// # Panics
    /// In full precision, where there are none.
    pub(super) fn codes(&self, x: &Array2<f64>) -> Array2<f64> {
        assert!(self.gain.is_some(), "codes of a full-precision layer");
        match &self.norm {
            Some((gain, eps)) => absmax(&rms_norm(x, gain, *eps), 127.0).0,
            None => absmax(x, 127.0).0,
        }
    }
}
