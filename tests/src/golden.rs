//! What golden files hold, and the arithmetic of comparing with them.

use crate::external::{fixtures, or_skip};
use crate::tensors::{Tensor, Tensors};
use ndarray::Array2;
use std::path::PathBuf;

/// The language models whose golden files the engines are held to.
pub const LANGUAGE_MODELS: [&str; 6] = [
    "bitnet_master_bf16",
    "bitnet_master_f32",
    "bitnet_packed_u8",
    "llama_bitlinear_packed",
    "llama_bitlinear_rmsnorm",
    "llama_plain_f32",
];

/// A golden model: its folder and what upstream computed from it.
#[derive(Debug)]
pub struct Golden {
    /// The fixture's name.
    pub name: &'static str,
    /// `config.json`, weights and tokenizer.
    pub folder: PathBuf,
    /// Prompts, logits, hidden states.
    pub tensors: Tensors,
}

impl Golden {
    /// Every golden language model, or none after a visible line where fixtures are missing.
    pub fn all(promise: &str) -> Vec<Golden> {
        let open = |name| {
            let folder = or_skip(promise, fixtures(), name)?;
            let tensors = Tensors::open(&folder.join("golden.safetensors"));
            Some(Golden { name, folder, tensors })
        };
        // The first one that is missing says so for all.
        LANGUAGE_MODELS.into_iter().map_while(open).collect()
    }

    /// Whether linear layers are in full precision, so that the model is a continuous function.
    pub fn is_float(&self) -> bool {
        self.name == "llama_plain_f32"
    }

    /// A tensor as a matrix.
    pub fn matrix(&self, name: &str) -> Array2<f64> {
        matrix(self.tensors.tensor(name))
    }

    /// A tensor of one extent.
    pub fn vector(&self, name: &str) -> Vec<f64> {
        self.tensors.tensor(name).f64s()
    }

    /// Token ids.
    pub fn tokens(&self, name: &str) -> Vec<u32> {
        self.tensors.tensor(name).tokens()
    }

    /// `main.hidden.00` (the embedding output), then one a block.
    pub fn hidden(&self) -> Vec<Array2<f64>> {
        let tensor = |index| self.tensors.get(&format!("main.hidden.{index:02}")).map(matrix);
        (0..).map_while(tensor).collect()
    }
}

/// A tensor of two extents.
///
/// # Panics
/// If it has others.
pub fn matrix(tensor: &Tensor) -> Array2<f64> {
    let [rows, cols] = tensor.shape[..] else { panic!("a matrix has the shape {:?}", tensor.shape) };
    Array2::from_shape_vec((rows, cols), tensor.f64s()).expect("as many elements as the shape says")
}

/// f32 rows as a matrix.
///
/// # Panics
/// If the elements do not fill rows of `cols`.
pub fn rows(elements: &[f32], cols: usize) -> Array2<f64> {
    let widened = elements.iter().map(|x| f64::from(*x)).collect();
    Array2::from_shape_vec((elements.len() / cols, cols), widened).expect("whole rows")
}

/// The largest absolute difference; infinite where a number is not finite.
///
/// # Panics
/// If the shapes differ.
pub fn largest_difference(a: &Array2<f64>, b: &Array2<f64>) -> f64 {
    assert_eq!(a.dim(), b.dim(), "shapes");
    let larger = |max: f64, x: &f64| if x.is_finite() { max.max(x.abs()) } else { f64::INFINITY };
    (a - b).fold(0.0, larger)
}

/// The index of the largest element, the first of equals, and its lead over the next.
pub fn argmax(row: ndarray::ArrayView1<'_, f64>) -> (usize, f64) {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|a, b| row[*b].total_cmp(&row[*a]).then(a.cmp(b)));
    (order[0], row[order[0]] - row[order[1]])
}
