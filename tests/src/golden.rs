//! What golden files hold, and the arithmetic of comparing with them.

use crate::external::{fixtures, or_skip};
use crate::reference::{self, GROUP_NORM_EPS, Oracle, standardise};
use crate::tensors::{Tensor, Tensors};
use ndarray::{Array1, Array2};
use std::path::PathBuf;

/// The transformers among golden models.
pub const TRANSFORMERS: [&str; 6] = [
    "bitnet_master_bf16",
    "bitnet_master_f32",
    "bitnet_packed_u8",
    "llama_bitlinear_packed",
    "llama_bitlinear_rmsnorm",
    "llama_plain_f32",
];

/// The recurrent ones, all of floats.
pub const RECURRENT: [&str; 11] = [
    "mamba1_f32",
    "mamba2_f32",
    "rwkv4_f32",
    "rwkv4_hf_f32",
    "rwkv5_2_f32",
    "rwkv6_f32",
    "rwkv7_f32",
    "tiny_rwkv_4v0_660K",
    "tiny_rwkv_5v1_730K",
    "tiny_rwkv_5v2_730K",
    "tiny_rwkv_7v0_834K",
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
    /// Every golden model, or none after a visible line where fixtures are missing.
    pub fn all(promise: &str) -> Vec<Golden> {
        let names: Vec<&str> = TRANSFORMERS.iter().chain(&RECURRENT).copied().collect();
        Golden::of(promise, &names)
    }

    /// Every golden transformer, likewise.
    pub fn transformers(promise: &str) -> Vec<Golden> {
        Golden::of(promise, &TRANSFORMERS)
    }

    /// Every golden recurrent model, likewise.
    pub fn recurrent(promise: &str) -> Vec<Golden> {
        Golden::of(promise, &RECURRENT)
    }

    fn of(promise: &str, names: &[&'static str]) -> Vec<Golden> {
        let open = |name: &&'static str| {
            let folder = or_skip(promise, fixtures(), name)?;
            let tensors = Tensors::open(&folder.join("golden.safetensors"));
            Some(Golden { name, folder, tensors })
        };
        // The first one that is missing says so for all.
        names.iter().map_while(open).collect()
    }

    /// The epsilon of `ln_x` that the golden values were computed with (RWKV-5 to 7).
    ///
    /// # Panics
    /// If `golden.json` is missing.
    pub fn group_norm_eps(&self) -> f64 {
        let text = std::fs::read_to_string(self.folder.join("golden.json")).expect("golden.json");
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        json["group_norm_eps"].as_f64().unwrap_or(GROUP_NORM_EPS)
    }

    /// The reference of this model.
    pub fn oracle(&self) -> Box<dyn Oracle> {
        reference::open(&self.folder, self.group_norm_eps())
    }

    /// Whether linear layers are in full precision, so that the model is a continuous function.
    pub fn is_float(&self) -> bool {
        self.name == "llama_plain_f32" || RECURRENT.contains(&self.name)
    }

    /// How many of the first blocks are a function of their input alone: later ones of RWKV-7 need the first one's values.
    pub fn blocks_alone(&self) -> usize {
        if self.name.contains("rwkv7") || self.name.contains("rwkv_7") { 1 } else { self.hidden().len() - 1 }
    }

    /// How far the embedding output may be off: it is exact, except that RWKV norms it.
    pub fn embedding_mark(&self) -> f64 {
        if self.name.contains("rwkv") { 1e-5 } else { 0.0 }
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

    /// `main.hidden.00` (the embedding output), then one a block; where upstream does not show them, those of the golden
    /// files' own f64 run. RWKV's embedding output is that of `ln0`, although transformers counts `ln0` to the first
    /// block.
    pub fn hidden(&self) -> Vec<Array2<f64>> {
        let own = self.tensors.get("main.hidden.00").is_none();
        let kind = if own { "hidden_own_f64" } else { "hidden" };
        let tensor = |index| self.tensors.get(&format!("main.{kind}.{index:02}")).map(matrix);
        let mut hidden: Vec<Array2<f64>> = (0..).map_while(tensor).collect();
        if self.name == "rwkv4_hf_f32" {
            let weights = Tensors::of_model(&self.folder);
            let vector = |name: &str| Array1::from(weights.tensor(&format!("rwkv.blocks.0.pre_ln.{name}")).f64s());
            let (gain, bias) = (vector("weight"), vector("bias"));
            for mut row in hidden[0].outer_iter_mut() {
                let normed = standardise(row.view(), 1e-5) * &gain + &bias;
                row.assign(&normed);
            }
        }
        hidden
    }

    /// `main.state.*` without `main.`: what a recurrent model remembers after the prompt.
    pub fn states(&self) -> Vec<(&str, &Tensor)> {
        let state = |name: &'_ &str| name.starts_with("main.state.");
        let names = self.tensors.names().filter(state);
        names.map(|name| (&name["main.".len()..], self.tensors.tensor(name))).collect()
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
