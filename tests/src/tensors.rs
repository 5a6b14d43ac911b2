//! Named tensors of safetensors files, decoded to plain vectors. Panics on anything unexpected: files read here are
//! written by the tests or are fixtures.

use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::Path;

/// The tensors of one or more files.
#[derive(Debug, Default)]
pub struct Tensors(BTreeMap<String, Tensor>);

/// One tensor, as stored.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// How elements are stored.
    pub dtype: Dtype,
    /// The elements, little-endian, row-major.
    pub bytes: Vec<u8>,
}

impl Tensors {
    /// Reads one file.
    ///
    /// # Panics
    /// If it is not a safetensors file.
    pub fn open(path: &Path) -> Tensors {
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let tensor = |(name, view): (String, TensorView<'_>)| {
            (name, Tensor { shape: view.shape().to_vec(), dtype: view.dtype(), bytes: view.data().to_vec() })
        };
        Tensors(file.tensors().into_iter().map(tensor).collect())
    }

    /// Reads every `*.safetensors` file of a folder except golden ones.
    ///
    /// # Panics
    /// If there is none.
    pub fn of_model(folder: &Path) -> Tensors {
        let mut all = Tensors::default();
        for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("a folder's entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with(".safetensors") && name.starts_with("model") {
                all.0.extend(Tensors::open(&path).0);
            }
        }
        assert!(!all.0.is_empty(), "no model*.safetensors in {}", folder.display());
        all
    }

    /// Adds or replaces a tensor.
    pub fn insert(&mut self, name: &str, tensor: Tensor) {
        self.0.insert(name.to_string(), tensor);
    }

    /// Takes a tensor out.
    ///
    /// # Panics
    /// If there is none of that name.
    pub fn remove(&mut self, name: &str) -> Tensor {
        self.0.remove(name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Writes one file.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn save(&self, path: &Path) {
        save(self.0.iter(), path);
    }

    /// Writes `model-0000i-of-0000n.safetensors` and their index, tensors dealt out in turn.
    ///
    /// # Panics
    /// If they cannot be written.
    pub fn save_sharded(&self, folder: &Path, shards: usize) {
        let file = |shard: usize| format!("model-{:05}-of-{shards:05}.safetensors", shard + 1);
        for shard in 0..shards {
            save(self.0.iter().skip(shard).step_by(shards), &folder.join(file(shard)));
        }
        let map: serde_json::Map<_, _> =
            self.0.keys().enumerate().map(|(i, name)| (name.clone(), file(i % shards).into())).collect();
        let bytes: usize = self.0.values().map(|tensor| tensor.bytes.len()).sum();
        let index = serde_json::json!({ "metadata": { "total_size": bytes }, "weight_map": map });
        let path = folder.join("model.safetensors.index.json");
        std::fs::write(path, index.to_string()).expect("a folder that can be written");
    }

    /// The tensor `name`, if there is one.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    /// The tensor `name`.
    ///
    /// # Panics
    /// If there is none.
    pub fn tensor(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("no tensor {name}"))
    }
}

fn save<'a>(tensors: impl Iterator<Item = (&'a String, &'a Tensor)>, path: &Path) {
    let view = |(name, tensor): (&'a String, &'a Tensor)| {
        (name, TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes).expect("bytes of the shape"))
    };
    safetensors::serialize_to_file(tensors.map(view), None, path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

impl Tensor {
    /// The elements of any type, widened.
    ///
    /// # Panics
    /// On a type that has no business in a model.
    pub fn f64s(&self) -> Vec<f64> {
        fn each<const N: usize>(bytes: &[u8], widen: impl Fn([u8; N]) -> f64) -> Vec<f64> {
            bytes.chunks_exact(N).map(|chunk| widen(chunk.try_into().expect("a chunk's length"))).collect()
        }
        let bytes = &self.bytes;
        match self.dtype {
            Dtype::F64 => each(bytes, f64::from_le_bytes),
            Dtype::F32 => each(bytes, |b| f64::from(f32::from_le_bytes(b))),
            Dtype::BF16 => each(bytes, |b| bf16::from_le_bytes(b).to_f64()),
            Dtype::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f64()),
            Dtype::I64 => each(bytes, |b| i64::from_le_bytes(b) as f64),
            Dtype::I32 => each(bytes, |b| f64::from(i32::from_le_bytes(b))),
            Dtype::I8 => each(bytes, |b| f64::from(i8::from_le_bytes(b))),
            Dtype::U8 => each(bytes, |b| f64::from(u8::from_le_bytes(b))),
            other => panic!("a tensor of {other:?}"),
        }
    }

    /// The elements as f32: exact for every type but F64 and large integers.
    pub fn f32s(&self) -> Vec<f32> {
        self.f64s().into_iter().map(|x| x as f32).collect()
    }

    /// The elements of an integer type below 2^53.
    ///
    /// # Panics
    /// On a type that is not an integer's.
    pub fn integers(&self) -> Vec<i64> {
        assert!(matches!(self.dtype, Dtype::I64 | Dtype::I32 | Dtype::I8 | Dtype::U8), "integers of {:?}", self.dtype);
        self.f64s().into_iter().map(|x| x as i64).collect()
    }

    /// Token ids.
    pub fn tokens(&self) -> Vec<u32> {
        self.integers().into_iter().map(|id| u32::try_from(id).expect("a token id")).collect()
    }
}
