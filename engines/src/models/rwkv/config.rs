//! What decides how an RWKV computes: from the shapes of its tensors, as its author publishes it without a config, or from a
//! config.json.

use crate::config::Keys;
use crate::weights::Source;
use crate::{Error, Result, Token};

/// Which of its versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Four,
    /// 5.0: a decay and a bonus to a head, no gate.
    FiveFirst,
    /// 5.1: with a gate.
    FiveGated,
    /// 5.2: a decay and a bonus to a channel.
    Five,
    Six,
    Seven,
}

/// Widths of the products of low rank; 0 where a version has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranks {
    /// Of each of the mixes of version 6.
    pub(crate) mix: usize,
    pub(crate) decay: usize,
    /// How much is removed (a).
    pub(crate) rate: usize,
    /// How much of the first layer's values is taken (v).
    pub(crate) value: usize,
    pub(crate) gate: usize,
}

/// Everything that decides how an RWKV computes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    pub(crate) version: Version,
    /// C.
    pub(crate) width: usize,
    /// F, of the channel mix.
    pub(crate) inner: usize,
    /// L.
    pub(crate) layers: usize,
    /// V.
    pub(crate) vocab: usize,
    /// N; version 4 has none, and its channels count as heads of 1.
    pub(crate) head_width: usize,
    pub(crate) ranks: Ranks,
    /// Added to variances in layer norms.
    pub(crate) eps: f32,
    /// The same in the norm of heads.
    pub(crate) head_eps: f32,
    /// Whether the head is the embedding.
    pub(crate) tied: bool,
    /// Whether tensors are called as Hugging Face calls them.
    pub(crate) hugging_face: bool,
    pub(crate) bos: Option<Token>,
    pub(crate) eos: Option<Token>,
}

/// The epsilon of the norm of heads: 1e-5, after a division by 8 that has been moved into it.
const HEAD_EPS: f32 = 64e-5;
/// The one that rwkv.cpp takes for version 5.
const HEAD_EPS_RWKV_CPP: f32 = 1e-5;
/// Layer norms'.
const EPS: f32 = 1e-5;

impl Version {
    /// The name in `ARCHITECTURES`.
    pub(crate) fn architecture(self) -> &'static str {
        match self {
            Version::Four => "rwkv-4",
            Version::FiveFirst | Version::FiveGated | Version::Five => "rwkv-5",
            Version::Six => "rwkv-6",
            Version::Seven => "rwkv-7",
        }
    }

    /// Whether a product of C rows after r, k and v is a gate.
    pub(crate) fn is_gated(self) -> bool {
        matches!(self, Version::FiveGated | Version::Five | Version::Six)
    }

    /// Whether it is 5.0, 5.1 or 5.2.
    pub(crate) fn is_five(self) -> bool {
        matches!(self, Version::FiveFirst | Version::FiveGated | Version::Five)
    }
}

/// Whether tensors are called as the author of RWKV calls them.
pub(crate) fn is_rwkv(source: &dyn Source) -> bool {
    ["emb.weight", "blocks.0.ln0.weight", "blocks.0.ffn.key.weight"].iter().all(|name| source.shape(name).is_some())
}

/// The extents of a tensor, none of them 0.
fn extents<const N: usize>(source: &dyn Source, name: &str) -> Result<[usize; N]> {
    let wrong = |problem: String| source.wrong(name, problem);
    let shape = source.shape(name).ok_or_else(|| wrong("missing".to_string()))?;
    let extents = <[usize; N]>::try_from(&shape[..]).ok().filter(|extents| !extents.contains(&0));
    extents.ok_or_else(|| wrong(format!("expected {N} extents above 0, found shape {shape:?}")))
}

impl Config {
    /// From the names and shapes of tensors; `rwkv_cpp` where they are from a file of rwkv.cpp.
    pub(crate) fn of_tensors(source: &dyn Source, rwkv_cpp: bool) -> Result<Config> {
        let att = |name: &str| format!("blocks.0.att.{name}");
        let has = |name: &str| source.shape(&att(name)).is_some();
        let matrix = |name: &str| extents::<2>(source, &att(name));
        let version = if has("r_k") {
            Version::Seven
        } else if has("time_maa_x") {
            Version::Six
        } else if !has("ln_x.weight") {
            Version::Four
        } else if has("time_faaaa") {
            Version::Five
        } else if has("gate.weight") {
            Version::FiveGated
        } else {
            Version::FiveFirst
        };
        let [vocab, width] = extents(source, "emb.weight")?;
        let [inner, _] = extents(source, "blocks.0.ffn.key.weight")?;
        let heads = match version {
            Version::Four => width,
            Version::FiveFirst | Version::FiveGated => extents::<1>(source, &att("time_decay"))?[0],
            Version::Five | Version::Six => matrix("time_faaaa")?[0],
            Version::Seven => matrix("r_k")?[0],
        };
        if !width.is_multiple_of(heads) {
            let problem = format!("{heads} heads do not divide the width {width}");
            return Err(Error::format(source.place(), problem));
        }
        let rank = |name: &str| Ok::<_, Error>(matrix(name)?[1]);
        let layers = (0..).take_while(|i| source.shape(&format!("blocks.{i}.ln1.weight")).is_some()).count();
        let ranks = match version {
            Version::Six => Ranks {
                mix: extents::<3>(source, &att("time_maa_w2"))?[1],
                decay: rank("time_decay_w1")?,
                ..Ranks::default()
            },
            Version::Seven => Ranks {
                decay: rank("w1")?,
                rate: rank("a1")?,
                // The first layer needs none.
                value: if layers > 1 { extents::<2>(source, "blocks.1.att.v1")?[1] } else { 1 },
                gate: rank("g1")?,
                ..Ranks::default()
            },
            _ => Ranks::default(),
        };
        let config = Config {
            version,
            width,
            inner,
            layers,
            vocab,
            head_width: width / heads,
            ranks,
            eps: EPS,
            head_eps: if rwkv_cpp && version.is_five() { HEAD_EPS_RWKV_CPP } else { HEAD_EPS },
            tied: false,
            hugging_face: false,
            bos: None,
            eos: None,
        };
        config.check(&source.place())
    }

    /// From Hugging Face's `RwkvConfig`, which is of version 4.
    pub(crate) fn hugging_face(keys: &Keys<'_>) -> Result<Config> {
        let width = keys.size("hidden_size")?;
        if keys.size_or("attention_hidden_size", width)? != width {
            return Err(keys.wrong("attention_hidden_size", &format!("hidden_size, {width}")));
        }
        let config = Config {
            version: Version::Four,
            head_width: 1,
            ranks: Ranks::default(),
            tied: keys.flag_or("tie_word_embeddings", false)?,
            hugging_face: true,
            ..Config::own(keys)?
        };
        config.check(keys.file())
    }

    /// From words of our own, beside tensors by the author's names: `model_type` is rwkv4, rwkv5, rwkv6 or rwkv7.
    pub(crate) fn parse(keys: &Keys<'_>) -> Result<Config> {
        let version = match keys.text_or("model_type", "")? {
            "rwkv4" => Version::Four,
            "rwkv5" => match keys.text_or("version", "5.2")? {
                "5.0" => Version::FiveFirst,
                "5.1" => Version::FiveGated,
                "5.2" => Version::Five,
                _ => return Err(keys.wrong("version", "5.0, 5.1 or 5.2")),
            },
            "rwkv6" => Version::Six,
            "rwkv7" => Version::Seven,
            _ => return Err(keys.wrong("model_type", "rwkv4, rwkv5, rwkv6 or rwkv7")),
        };
        let rank = |key: &str, wanted: bool| if wanted { keys.size(key) } else { Ok(0) };
        let (six, seven) = (version == Version::Six, version == Version::Seven);
        let config = Config {
            version,
            head_width: if version == Version::Four { 1 } else { keys.size("head_dim")? },
            ranks: Ranks {
                mix: rank("mix_low_rank_dim", six)?,
                decay: rank("decay_low_rank_dim", six || seven)?,
                rate: rank("a_low_rank_dim", seven)?,
                value: rank("v_low_rank_dim", seven)?,
                gate: rank("gate_low_rank_dim", seven)?,
            },
            ..Config::own(keys)?
        };
        config.check(keys.file())
    }

    /// What all configs have.
    fn own(keys: &Keys<'_>) -> Result<Config> {
        let width = keys.size("hidden_size")?;
        Ok(Config {
            version: Version::Four,
            width,
            inner: keys.size_or("intermediate_size", 4 * width)?,
            layers: keys.size("num_hidden_layers")?,
            vocab: keys.size("vocab_size")?,
            head_width: 1,
            ranks: Ranks::default(),
            eps: keys.positive_or("layer_norm_epsilon", f64::from(EPS))? as f32,
            head_eps: keys.positive_or("group_norm_eps", f64::from(HEAD_EPS))? as f32,
            tied: false,
            hugging_face: false,
            bos: keys.token("bos_token_id"),
            eos: keys.token("eos_token_id"),
        })
    }

    /// What must hold between the numbers.
    fn check(self, file: &str) -> Result<Config> {
        let Config { width, inner, layers, head_width, ranks, eps, head_eps, .. } = self;
        let wrong = |problem: String| Err(Error::format(file, problem));
        let Ranks { mix, decay, rate, value, gate } = ranks;
        if width >= 1 << 20 || inner >= 1 << 23 || [mix, decay, rate, value, gate].iter().any(|rank| *rank >= 1 << 16) {
            return wrong(format!(
                "width {width}, inner width {inner}, {ranks:?}: expected less than 2^20, 2^23 and 2^16"
            ));
        }
        if !width.is_multiple_of(head_width) || head_width > 1 << 12 {
            return wrong(format!("heads of {head_width}: expected a divisor of the width {width}, at most 4096"));
        }
        if layers == 0 {
            return wrong("no layers: expected at least one".to_string());
        }
        if ![eps, head_eps].iter().all(|eps| eps.is_finite() && *eps > 0.0) {
            return wrong(format!("layer_norm_epsilon {eps}, group_norm_eps {head_eps}: expected numbers above 0"));
        }
        Ok(self)
    }

    /// H.
    pub(crate) fn heads(&self) -> usize {
        self.width / self.head_width
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::tensor_file::TensorFile;
    use safetensors::tensor::TensorView;
    use serde_json::json;

    /// What is said of tensors of these shapes, all zero.
    fn of(shapes: &[(&str, &[usize])], rwkv_cpp: bool) -> std::result::Result<Config, String> {
        let zeros = [0u8; 4096];
        let view = |shape: &[usize]| {
            let bytes = 4 * shape.iter().product::<usize>();
            TensorView::new(safetensors::Dtype::F32, shape.to_vec(), &zeros[..bytes]).unwrap()
        };
        let tensors: Vec<_> = shapes.iter().map(|(name, shape)| (*name, view(shape))).collect();
        let file = TensorFile::from_bytes("file", &safetensors::serialize(tensors, None).unwrap()).unwrap();
        Config::of_tensors(file.source(), rwkv_cpp).map_err(|error| error.to_string())
    }

    #[test]
    fn versions_are_told_apart_by_their_tensors_and_mistakes_are_named() {
        const COMMON: [(&str, &[usize]); 4] = [
            ("emb.weight", &[10, 6]),
            ("blocks.0.ffn.key.weight", &[8, 6]),
            ("blocks.0.ln1.weight", &[6]),
            ("blocks.0.att.ln_x.weight", &[6]),
        ];
        let with = |more: &[(&'static str, &'static [usize])]| of(&[&COMMON[..], more].concat(), false);
        let config = of(&COMMON[..3], true).unwrap();
        assert_eq!((config.version, config.width, config.inner, config.layers), (Version::Four, 6, 8, 1));
        let first = [&COMMON[..], &[("blocks.0.att.time_decay", &[3])]].concat();
        assert_eq!([true, false].map(|cpp| of(&first, cpp).unwrap().head_eps), [1e-5, 64e-5]);
        let config = with(&[("blocks.0.att.time_decay", &[3])]).unwrap();
        assert_eq!((config.version, config.head_width), (Version::FiveFirst, 2));
        let config = with(&[("blocks.0.att.time_faaaa", &[2, 3])]).unwrap();
        assert_eq!((config.version, config.heads()), (Version::Five, 2));
        let error = with(&[("blocks.0.att.r_k", &[4, 2])]).unwrap_err();
        assert!(error.contains("4 heads do not divide the width 6"), "{error}");
        let error = with(&[("blocks.0.att.r_k", &[2, 3]), ("blocks.0.att.w1", &[6, 2, 1])]).unwrap_err();
        assert!(error.contains("att.w1: expected 2 extents above 0, found shape [6, 2, 1]"), "{error}");
        let error = with(&[("blocks.0.att.r_k", &[2, 0])]).unwrap_err();
        assert!(error.contains("found shape [2, 0]"), "{error}");
        let error = of(&COMMON[..2], false).unwrap_err();
        assert!(error.contains("no layers"), "{error}");
    }

    #[test]
    fn a_config_says_what_tensors_do_not() {
        let base = json!({"model_type": "rwkv5", "hidden_size": 96, "num_hidden_layers": 2, "vocab_size": 10,
            "head_dim": 16, "group_norm_eps": 1e-5});
        let parse = |key: &str, value: serde_json::Value| {
            let mut json = base.clone();
            json[key] = value;
            Config::parse(&Keys::new("config.json", &json)).map_err(|error| error.to_string())
        };
        let config = parse("version", json!("5.0")).unwrap();
        assert_eq!((config.version, config.head_eps, config.inner), (Version::FiveFirst, 1e-5, 384));
        for (key, value, says) in [
            ("head_dim", json!(7), "heads of 7: expected a divisor of the width 96"),
            ("version", json!("5.3"), "version is \"5.3\": expected 5.0, 5.1 or 5.2"),
            ("model_type", json!("rwkv7"), "decay_low_rank_dim is missing"),
            ("group_norm_eps", json!(1e-60), "group_norm_eps 0: expected numbers above 0"),
        ] {
            let error = parse(key, value).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
