//! From the name of a model to a model.

use crate::llama2c::{self, Checkpoint};
use crate::models::Description;
use crate::weights::map::Map;
use crate::weights::safetensors::{self, Files};
use crate::weights::synthetic::Synthetic;
use crate::weights::tensor_file::TensorFile;
use crate::weights::torch::{self, Shards};
use crate::{Error, Model, Result, SHAPES, Settings, Tokenizer};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a model's name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    /// A Hugging Face folder: config.json, model.safetensors or pytorch_model.bin or the shards of either, and perhaps
    /// tokenizer.json. RWKV needs no config.json.
    Folder(PathBuf),
    /// A checkpoint of llama2.c; its vocabulary (`tokenizer.bin` or `tok512.bin`) is looked for beside it. Or an RWKV by its
    /// author's names: a checkpoint of PyTorch, a model of rwkv.cpp or a safetensors file, with `tokenizer.json` or the
    /// vocabulary of RWKV World beside it.
    File(PathBuf),
    /// Random weights in a named shape: `synthetic:SHAPE[:SEED]`.
    Synthetic {
        /// A name in [`SHAPES`].
        shape: String,
        /// What the weights are a function of; 0 where none is given.
        seed: u64,
    },
}

impl Spec {
    /// Reads a name.
    ///
    /// # Errors
    /// A path that does not exist, an unknown shape or a seed that is not a number.
    pub fn parse(text: &str) -> Result<Spec> {
        let Some(rest) = text.strip_prefix("synthetic:") else {
            let path = PathBuf::from(text);
            return match std::fs::metadata(&path) {
                Ok(meta) if meta.is_dir() => Ok(Spec::Folder(path)),
                Ok(_) => Ok(Spec::File(path)),
                Err(e) => Err(Error::read(path, e)),
            };
        };
        let (shape, seed) = rest.split_once(':').unwrap_or((rest, "0"));
        let names: Vec<&str> = SHAPES.iter().map(|shape| shape.name).collect();
        if !names.contains(&shape) {
            return Err(Error::Spec(format!(
                "unknown shape '{shape}' in '{text}': expected one of {}",
                names.join(", ")
            )));
        }
        let seed = seed.parse().map_err(|_| {
            Error::Spec(format!("'{seed}' in '{text}' is not a seed: expected a whole number below 2^64"))
        })?;
        Ok(Spec::Synthetic { shape: shape.to_string(), seed })
    }
}

/// A model ready to run.
pub struct Loaded {
    /// The model.
    pub model: Arc<dyn Model>,
    /// Its tokenizer, where it came with one.
    pub tokenizer: Option<Tokenizer>,
    /// A short name: the folder's or file's, or the spec itself.
    pub name: String,
}

/// Loads a model. `progress` hears how many of the model's numbers are ready, and of how many: at the beginning, now and
/// then, and at the end.
///
/// # Errors
/// Anything wrong with the files, in one sentence; a synthetic shape too large for this machine's memory.
pub fn load(spec: &Spec, settings: &Settings, progress: &dyn Fn(u64, u64)) -> Result<Loaded> {
    match spec {
        Spec::Folder(folder) => load_folder(folder, settings, progress),
        Spec::File(file) => load_file(file, settings, progress),
        Spec::Synthetic { shape, seed } => {
            let found = SHAPES.iter().find(|named| named.name == shape);
            let text = &format!("synthetic:{shape}");
            let named = found.ok_or_else(|| Error::Spec(format!("unknown shape '{shape}'")))?;
            let description = Description::parse(named.config.as_bytes(), text)?;
            check_memory(text, description.synthetic_bytes(settings.packing))?;
            let source = Synthetic { seed: *seed, range: description.synthetic_range() };
            let model = description.build(&source, settings, progress)?;
            Ok(Loaded { model, tokenizer: None, name: format!("synthetic:{shape}:{seed}") })
        }
    }
}

/// Builds a model from the bytes of config.json and of one safetensors file.
///
/// # Errors
/// As [`load`].
pub fn load_from_memory(config: &[u8], weights: &[u8], settings: &Settings) -> Result<Arc<dyn Model>> {
    let description = Description::parse(config, "config.json")?;
    let files = Files::from_bytes("model.safetensors", weights)?;
    description.build(&files, settings, &|_, _| ())
}

/// The largest config.json that is read.
const MAX_CONFIG_BYTES: u64 = 16 << 20;

fn load_folder(folder: &Path, settings: &Settings, progress: &dyn Fn(u64, u64)) -> Result<Loaded> {
    let path = folder.join("config.json");
    let bare = folder.join("model.safetensors");
    if !path.exists() && bare.exists() {
        return load_tensors(&TensorFile::open(&bare)?, &bare, name_of(folder), settings, progress);
    }
    let size = std::fs::metadata(&path).map_err(|e| Error::read(&path, e))?.len();
    if size > MAX_CONFIG_BYTES {
        let problem = format!("{size} bytes: expected at most {MAX_CONFIG_BYTES}");
        return Err(Error::format(path.display(), problem));
    }
    let bytes = std::fs::read(&path).map_err(|e| Error::read(&path, e))?;
    let description = Description::parse(&bytes, &path.display().to_string())?;
    let mut tokenizer = tokenizer_beside(&path)?;
    if let Some(tokenizer) = &mut tokenizer {
        let (bos, eos) = description.special();
        tokenizer.fill_special(bos, eos);
    }
    let [safetensors, shards, torch, torch_shards] =
        [safetensors::FILE, safetensors::INDEX, torch::FILE, torch::INDEX].map(|name| folder.join(name));
    let model = if safetensors.exists() || shards.exists() {
        description.build(&Files::open(folder)?, settings, progress)?
    } else if torch.exists() {
        description.build(TensorFile::open(&torch)?.source(), settings, progress)?
    } else if torch_shards.exists() {
        description.build(&Shards::open(&torch_shards)?, settings, progress)?
    } else {
        let (a, b) = (safetensors::FILE, torch::FILE);
        return Err(Error::read(folder, format!("no {a} and no {b} in it, and the index of neither (.index.json)")));
    };
    Ok(Loaded { model, tokenizer, name: name_of(folder) })
}

/// The tokenizer in the folder of a file: tokenizer.json, or the vocabulary of RWKV World.
fn tokenizer_beside(file: &Path) -> Result<Option<Tokenizer>> {
    let path = file.with_file_name("tokenizer.json");
    if path.exists() { Tokenizer::from_file(&path).map(Some) } else { Tokenizer::world_beside(file) }
}

/// Loads a model from the tensors of a file that describe it themselves.
fn load_tensors(
    tensors: &TensorFile,
    file: &Path,
    name: String,
    settings: &Settings,
    progress: &dyn Fn(u64, u64),
) -> Result<Loaded> {
    let description = Description::of_tensors(tensors.source(), tensors.is_rwkv_cpp())?;
    let tokenizer = tokenizer_beside(file)?;
    let model = description.build(tensors.source(), settings, progress)?;
    Ok(Loaded { model, tokenizer, name })
}

fn load_file(file: &Path, settings: &Settings, progress: &dyn Fn(u64, u64)) -> Result<Loaded> {
    if let Some(tensors) = TensorFile::open_if_one(file)? {
        return load_tensors(&tensors, file, name_of(file), settings, progress);
    }
    let map = Map::open(file)?;
    llama2c::check_header(&map).map_err(|problem| Error::format(file.display(), unknown(&map, &problem)))?;
    let checkpoint = Checkpoint::new(file.to_path_buf(), map)?;
    // The names in use: llama2.c's own, and that of its 512-token vocabulary.
    let vocabularies = ["tokenizer.bin".to_string(), format!("tok{}.bin", checkpoint.config().vocab)];
    let found = vocabularies.iter().map(|name| file.with_file_name(name)).find(|path| path.exists());
    let tokenizer = found.map(Tokenizer::from_file).transpose()?;
    if let Some(tokenizer) = &tokenizer
        && tokenizer.vocab() != checkpoint.config().vocab
    {
        let problem = format!(
            "the vocabulary beside it has {} pieces: expected {}",
            tokenizer.vocab(),
            checkpoint.config().vocab
        );
        return Err(Error::format(file.display(), problem));
    }
    let description = Description::Transformer(checkpoint.config().clone());
    let model = description.build(&checkpoint, settings, progress)?;
    Ok(Loaded { model, tokenizer, name: name_of(file) })
}

/// What is said of a file of no known format: `problem` is why it is not the last of them.
fn unknown(bytes: &[u8], problem: &str) -> String {
    let first = &bytes[..bytes.len().min(8)];
    let hex: Vec<String> = first.iter().map(|byte| format!("{byte:02x}")).collect();
    let text: String = first.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' }).collect();
    format!(
        "its first bytes, {} ({text}), are not those of a safetensors file, of a checkpoint of PyTorch or of a model of \
         rwkv.cpp, nor is it a checkpoint of llama2.c: {problem}",
        hex.join(" ")
    )
}

fn name_of(path: &Path) -> String {
    let full = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    full.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// Refuses what this machine cannot hold, where it says how much that is.
fn check_memory(what: &str, needed: u64) -> Result<()> {
    let Some(available) = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text)) else {
        return Ok(());
    };
    if needed > available {
        return Err(Error::Memory { what: what.to_string(), needed, available });
    }
    Ok(())
}

/// The bytes available, from Linux's /proc/meminfo.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DensePacking, Packing};

    #[test]
    fn specs_are_told_apart_and_mistakes_are_named() {
        assert!(matches!(Spec::parse("."), Ok(Spec::Folder(_))));
        assert!(matches!(Spec::parse("Cargo.toml"), Ok(Spec::File(_))));
        let synthetic = Spec::Synthetic { shape: "bitnet-tiny".to_string(), seed: 7 };
        assert_eq!(Spec::parse("synthetic:bitnet-tiny:7").unwrap(), synthetic);
        let says = |text: &str| Spec::parse(text).unwrap_err().to_string();
        assert!(says("synthetic:bitnet-9b").contains("unknown shape 'bitnet-9b'"));
        assert!(says("synthetic:bitnet-tiny:x").contains("'x'"));
        assert!(says("/no/such/model").contains("/no/such/model"));
    }

    #[test]
    fn too_large_models_are_refused_with_both_numbers() {
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:    1234 kB\n"), Some(1234 * 1024));
        if std::path::Path::new("/proc/meminfo").exists() {
            let error = check_memory("a giant", u64::MAX).unwrap_err().to_string();
            assert!(error.contains(&u64::MAX.to_string()), "{error}");
        }
        let shape = SHAPES.iter().find(|shape| shape.name == "bitnet-2b-4t").unwrap();
        let plain = Packing::default();
        let description = Description::parse(shape.config.as_bytes(), "config").unwrap();
        let bytes = description.synthetic_bytes(plain);
        assert_eq!(bytes, 30 * 2560 * (2 * 2560 + 2 * 640 + 3 * 6912) / 4 + 128_256 * 2560 * 2);
        let head = DensePacking::Grouped(kernels::grouped::Layout::Q8);
        // Eight bits and a sixteen-bit scale for every 32.
        assert_eq!(description.synthetic_bytes(Packing { head, ..plain }) - bytes, 128_256 * 2560 / 32 * 34);
    }
}
