//! Weights in the first format of llama2.c: a header of seven numbers, then f32 tensors in a fixed order, each for all
//! layers at once.

use super::config::{Config, Gate, Linears, Pairs};
use super::linear::Linear;
use super::{Block, LEVELS, Reference};
use ndarray::{Array1, Array2};
use std::path::Path;

/// f32 values of a file, taken from its start.
struct Values(std::vec::IntoIter<f64>);

impl Values {
    fn vector(&mut self, n: usize) -> Array1<f64> {
        self.0.by_ref().take(n).collect()
    }

    fn matrix(&mut self, rows: usize, cols: usize) -> Array2<f64> {
        Array2::from_shape_vec((rows, cols), self.vector(rows * cols).to_vec()).expect("the file is long enough")
    }

    fn linears(&mut self, layers: usize, rows: usize, cols: usize) -> std::vec::IntoIter<Linear> {
        (0..layers).map(|_| Linear::dense(self.matrix(rows, cols))).collect::<Vec<_>>().into_iter()
    }

    fn gains(&mut self, layers: usize, n: usize) -> std::vec::IntoIter<Array1<f64>> {
        (0..layers).map(|_| self.vector(n)).collect::<Vec<_>>().into_iter()
    }
}

impl Reference {
    /// Reads a llama2.c `.bin` file (format 0).
    ///
    /// # Panics
    /// If it is shorter or longer than its header says.
    pub fn open_llama2c(path: &Path) -> Reference {
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let header = |i: usize| i32::from_le_bytes(bytes[4 * i..4 * i + 4].try_into().expect("four bytes"));
        let size = |i: usize| usize::try_from(header(i)).expect("a size");
        let (d, e, layers, heads, kv_heads, context) = (size(0), size(1), size(2), size(3), size(4), size(6));
        // A negative vocabulary says that the head is not the embedding.
        let (vocab, tied) = (header(5).unsigned_abs() as usize, header(5) > 0);
        let k = d / heads;
        let config = Config {
            width: d,
            inner: e,
            layers,
            heads,
            kv_heads,
            head_width: k,
            vocab,
            context,
            eps: 1e-5,
            linear_eps: 0.0,
            theta: 10_000.0,
            pairs: Pairs::Interleaved,
            gate: Gate::Silu,
            tied,
            sub_norms: false,
            linears: Linears::Dense,
        };
        let widen = |b: &[u8]| f64::from(f32::from_le_bytes(b.try_into().expect("four bytes")));
        let values: Vec<f64> = bytes[28..].chunks_exact(4).map(widen).collect();
        let mut values = Values(values.into_iter());
        let embedding = values.matrix(vocab, d);
        let mut attention_norm = values.gains(layers, d);
        let mut query = values.linears(layers, heads * k, d);
        let mut key = values.linears(layers, kv_heads * k, d);
        let mut value = values.linears(layers, kv_heads * k, d);
        let mut output = values.linears(layers, d, heads * k);
        let mut mlp_norm = values.gains(layers, d);
        let mut gate = values.linears(layers, e, d);
        let mut down = values.linears(layers, d, e);
        let mut up = values.linears(layers, e, d);
        let norm = values.vector(d);
        // Tables of cosines and sines, which newer readers skip.
        let _ = values.vector(context * k);
        let head = if tied { embedding.clone() } else { values.matrix(vocab, d) };
        assert_eq!(values.0.len(), 0, "{} has values left over", path.display());
        let block = |_| {
            Some(Block {
                attention_norm: attention_norm.next()?,
                query: query.next()?,
                key: key.next()?,
                value: value.next()?,
                attention_sub_norm: None,
                output: output.next()?,
                mlp_norm: mlp_norm.next()?,
                gate: gate.next()?,
                up: up.next()?,
                mlp_sub_norm: None,
                down: down.next()?,
            })
        };
        let blocks = (0..layers).map_while(block).collect();
        Reference { config, levels: LEVELS, embedding, blocks, norm, head }
    }
}
