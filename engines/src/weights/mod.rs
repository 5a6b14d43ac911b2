//! Where weights come from: files, a checkpoint of llama2.c, or a seed. All of them answer the same questions, so a model is
//! built by one piece of code whatever its weights are.

pub(crate) mod dense;
pub(crate) mod ggml_blocks;
pub(crate) mod index;
pub(crate) mod map;
pub(crate) mod pickle;
pub(crate) mod quantised;
pub(crate) mod renamed;
pub(crate) mod rwkv_cpp;
pub(crate) mod safetensors;
pub(crate) mod synthetic;
pub(crate) mod tensor;
pub(crate) mod tensor_file;
pub(crate) mod torch;

use crate::{Error, Result};
use dense::Dense;
use kernels::Lines;
use kernels::memory::Purpose;
use kernels::ternary::TernaryMatrix;

/// A source of named tensors. Names are those of the model's publisher: Hugging Face's for transformers.
pub(crate) trait Source: Sync {
    /// A vector `[width]`, such as the gains of a norm or a bias; every number is finite. Axes of 1 beside the width are
    /// passed over: `[1, 1, width]` is a vector too.
    fn vector(&self, name: &str, width: usize) -> Result<Vec<f32>>;

    /// All numbers of a tensor of any shape, in the order of its indices; every number is finite.
    fn flat(&self, name: &str, len: usize) -> Result<Vec<f32>>;

    /// A matrix `[rows, cols]` of floats; the caller checks that they are finite. Axes of 1 beyond the two are passed over.
    fn dense(&self, name: &str, rows: usize, cols: usize) -> Result<Dense>;

    /// As [`dense`](Source::dense), for a matrix that is stored as `[cols, rows]`.
    fn dense_transposed(&self, name: &str, rows: usize, cols: usize) -> Result<Dense>;

    /// A matrix `[rows, cols]`, stored as one of several `[cols, rows]` that lie one after the other in a tensor.
    fn plane_transposed(&self, name: &str, (plane, planes): (usize, usize), rows: usize, cols: usize) -> Result<Dense> {
        let size = rows * cols;
        let numbers = self.flat(name, planes * size)?;
        let mut lines = Lines::zeroed_for(Purpose::Weights, (size * size_of::<f32>()).div_ceil(64));
        lines.spread_over_nodes();
        let to: &mut [f32] = bytemuck::cast_slice_mut(lines.bytes_mut());
        dense::transpose(&numbers[plane * size..][..size], cols, rows, &mut to[..size]);
        Ok(Dense::owned_f32(lines, rows, cols))
    }

    /// The shape of a tensor, where there is one of this name.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// The names of all tensors in alphabetical order; none for a source that has whatever it is asked for.
    fn names(&self) -> Vec<String>;

    /// A ternary matrix `[rows, cols]` stored as `form` says, and what its integer products are multiplied by (beside the
    /// activations' scale).
    fn ternary(&self, name: &str, rows: usize, cols: usize, form: TernaryForm) -> Result<(TernaryMatrix, f64)>;

    /// What error messages call the place.
    fn place(&self) -> String;

    /// What is wrong with a tensor, by the name that its file knows.
    fn wrong(&self, name: &str, problem: String) -> Error {
        Error::tensor(self.place(), name, problem)
    }

    /// Fails if the source holds a tensor whose name `known` does not know: config and weights disagree.
    fn check_names(&self, known: &dyn Fn(&str) -> bool) -> Result<()>;
}

/// Fails at the first of `names`, in alphabetical order, that `known` does not know.
pub(crate) fn check_known<'a>(
    place: &str,
    names: impl Iterator<Item = &'a String>,
    known: &dyn Fn(&str) -> bool,
) -> Result<()> {
    match names.filter(|name| !known(name)).min() {
        None => Ok(()),
        Some(name) => {
            Err(Error::tensor(place, name, "not part of the model that its config or its other tensors describe"))
        }
    }
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
