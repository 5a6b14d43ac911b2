//! Architectures, one file each, and which of them a model is of.

mod build;
pub(crate) mod mamba;
pub(crate) mod mamba2;
pub(crate) mod rwkv;
pub(crate) mod transformer;

use crate::config::{self, Keys};
use crate::weights::Source;
use crate::{DensePacking, Error, Model, Packing, Result, Settings, Token};
use std::ops::Range;
use std::sync::Arc;

/// What decides how a model computes, of whatever architecture.
pub(crate) enum Description {
    Transformer(config::Config),
    Mamba(mamba::Config),
    Mamba2(mamba2::Config),
    Rwkv(rwkv::Config),
}

impl Description {
    /// From the bytes of config.json, called `file` in errors.
    pub(crate) fn parse(bytes: &[u8], file: &str) -> Result<Description> {
        let json = config::json(bytes, file)?;
        let keys = Keys::new(file, &json);
        if !json.is_object() {
            return Err(Error::format(file, "expected a JSON object"));
        }
        // The authors' own files of Mamba name no type.
        if let Some(layer) = keys.object("ssm_cfg")?.filter(|_| keys.get("model_type").is_none()) {
            return match layer.text_or("layer", "Mamba1")? {
                "Mamba1" => Ok(Description::Mamba(mamba::Config::original(&keys, &layer)?)),
                "Mamba2" => Ok(Description::Mamba2(mamba2::Config::original(&keys, &layer)?)),
                _ => Err(layer.wrong("layer", "Mamba1 or Mamba2")),
            };
        }
        match keys.text_or("model_type", "")? {
            "bitnet" | "llama" => Ok(Description::Transformer(config::Config::parse(&keys)?)),
            "mamba" => Ok(Description::Mamba(mamba::Config::hugging_face(&keys)?)),
            "mamba2" => Ok(Description::Mamba2(mamba2::Config::hugging_face(&keys)?)),
            "rwkv" => Ok(Description::Rwkv(rwkv::Config::hugging_face(&keys)?)),
            "rwkv4" | "rwkv5" | "rwkv6" | "rwkv7" => Ok(Description::Rwkv(rwkv::Config::parse(&keys)?)),
            _ => Err(keys.wrong("model_type", "bitnet, llama, mamba, mamba2, rwkv or rwkv4 to rwkv7")),
        }
    }

    /// From the names and shapes of tensors, where no config says more; `rwkv_cpp` where they are from a file of rwkv.cpp.
    pub(crate) fn of_tensors(source: &dyn Source, rwkv_cpp: bool) -> Result<Description> {
        if rwkv::is_rwkv(source) {
            return Ok(Description::Rwkv(rwkv::Config::of_tensors(source, rwkv_cpp)?));
        }
        let problem =
            "its tensors are not those of an RWKV, and of another model only a config.json says how it computes";
        Err(Error::format(source.place(), problem))
    }

    /// The model, from its tensors; `progress` as in [`load`](crate::load()).
    pub(crate) fn build(
        self,
        source: &dyn Source,
        settings: &Settings,
        progress: &dyn Fn(u64, u64),
    ) -> Result<Arc<dyn Model>> {
        Ok(match self {
            Description::Transformer(config) => Arc::new(transformer::build(config, source, settings, progress)?),
            Description::Mamba(config) => Arc::new(mamba::build(config, source, settings, progress)?),
            Description::Mamba2(config) => Arc::new(mamba2::build(config, source, settings, progress)?),
            Description::Rwkv(config) => Arc::new(rwkv::build(config, source, settings, progress)?),
        })
    }

    /// The tokens that begin and end a text, where the config says so.
    pub(crate) fn special(&self) -> (Option<Token>, Option<Token>) {
        match self {
            Description::Transformer(config) => (config.bos, config.eos),
            Description::Mamba(config) => (config.bos, config.eos),
            Description::Mamba2(config) => (config.bos, config.eos),
            Description::Rwkv(config) => (config.bos, config.eos),
        }
    }

    /// Between what the numbers of a synthetic vector lie.
    pub(crate) fn synthetic_range(&self) -> fn(&str) -> Range<f32> {
        match self {
            Description::Transformer(_) => |_| 0.75..1.25,
            Description::Mamba(_) | Description::Mamba2(_) => mamba::synthetic_range,
            Description::Rwkv(_) => rwkv::synthetic_range,
        }
    }

    /// Bytes that the model takes with synthetic weights: two bits a ternary weight, two bytes a dense one unless it is packed
    /// otherwise, and the head once more where that is.
    pub(crate) fn synthetic_bytes(&self, packing: Packing) -> u64 {
        let dense = |packing: DensePacking| match packing {
            DensePacking::Stored => 16.0,
            DensePacking::Grouped(layout) => layout.bits(),
        };
        let (matrices, bits, table, tied) = match self {
            Description::Transformer(config) => {
                let bits = if config.quantisation.is_some() { 2.0 } else { dense(packing.dense) };
                (transformer::matrix_numbers(config), bits, config.vocab * config.width, config.tied)
            }
            Description::Mamba(config) => {
                (mamba::matrix_numbers(config), dense(packing.dense), config.vocab * config.width, config.tied)
            }
            Description::Mamba2(config) => {
                (mamba2::matrix_numbers(config), dense(packing.dense), config.vocab * config.width, config.tied)
            }
            Description::Rwkv(config) => {
                (rwkv::matrix_numbers(config), dense(packing.dense), config.vocab * config.width, config.tied)
            }
        };
        let tables = 2 * table * if tied { 1 } else { 2 };
        let head = match packing.head {
            DensePacking::Stored => 0.0,
            grouped => table as f64 * dense(grouped) / 8.0,
        };
        (matrices as f64 * bits / 8.0 + head) as u64 + tables as u64
    }
}
