//! Where weights come from: files, a checkpoint of llama2.c, or a seed. All of them answer the same questions, so a model is
//! built by one piece of code whatever its weights are.

pub(crate) mod dense;
pub(crate) mod map;
pub(crate) mod quantised;
pub(crate) mod safetensors;
pub(crate) mod synthetic;

use crate::Result;
use dense::Dense;
use kernels::ternary::TernaryMatrix;

/// A source of named tensors. Names are those of Hugging Face.
pub(crate) trait Source: Sync {
    /// A vector `[width]`, such as the gains of a norm or a bias; every number is finite.
    fn vector(&self, name: &str, width: usize) -> Result<Vec<f32>>;

    /// A matrix `[rows, cols]` of floats; the caller checks that they are finite.
    fn dense(&self, name: &str, rows: usize, cols: usize) -> Result<Dense>;

    /// A ternary matrix `[rows, cols]` stored as `form` says, and what its integer products are multiplied by (beside the
    /// activations' scale).
    fn ternary(&self, name: &str, rows: usize, cols: usize, form: TernaryForm) -> Result<(TernaryMatrix, f64)>;

    /// What error messages call the place.
    fn place(&self) -> String;

    /// Fails if the source holds a tensor whose name `known` does not know: config and weights disagree.
    fn check_names(&self, known: &dyn Fn(&str) -> bool) -> Result<()>;
}

/// The published forms of ternary weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TernaryForm {
    /// Floats, quantised on load by absmean: t = clamp(round(W s), -1, 1), s = 1 / max(mean|W|, 1e-5); W~ = t / s.
    Master,
    /// Packed, with a `weight_scale` that multiplies the product (and the bias).
    Multiplied,
    /// Packed, with a `weight_scale` that divides the product.
    Divided,
}
