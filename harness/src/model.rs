//! Models by name: `models/NAME/card.toml` and the weights beside it, or anything else that the engines can load. A name may
//! end in options, `NAME+layout=t5+head=q8+dense=q4`: the model packed so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use engines::{Loaded, Packing, Settings, Spec};
use serde::{Deserialize, Serialize};

use crate::cli::UserError;
use crate::compute::user_or_failure;
use crate::{checksum, progress, root};

/// What a trained model of the repository is, where it comes from and how good it is.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCard {
    /// The folder's name.
    pub name: String,
    /// Always `model`.
    pub kind: String,
    /// What the model is and what it is not for.
    pub description: String,
    /// The architecture's name, as config.json has it.
    pub architecture: String,
    /// Numbers in the weights.
    pub parameters: u64,
    /// The licence of the weights.
    pub license: String,
    /// The synthetic task that it was trained for, if it was: it has no tokenizer then.
    #[serde(default)]
    pub task: Option<TaskOf>,
    /// Every file beside the card.
    pub files: BTreeMap<String, ModelFile>,
    /// How the weights were made.
    pub training: Training,
    /// Measured by the script that trained it.
    pub evaluation: Evaluation,
    /// The folder that the card was read from.
    #[serde(skip)]
    pub at: PathBuf,
}

/// A synthetic task that a model was trained for.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TaskOf {
    /// As the experiment `synthetic-tasks` calls it.
    pub name: String,
    /// Answers to an instance.
    pub items: usize,
}

/// One file of a model.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    /// SHA-256, 64 lowercase hexadecimal digits.
    pub sha256: String,
    /// Length.
    pub bytes: u64,
}

/// How a model was trained.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// The command that trained it.
    pub command: String,
    /// Its seed.
    pub seed: u64,
    /// Steps of the optimiser.
    pub steps: u64,
    /// Tokens read.
    pub tokens: u64,
    /// Tokens to a window; of a task, the longest length.
    pub context: u64,
    /// What it was trained on.
    pub hardware: String,
    /// The texts; none for a task.
    #[serde(default)]
    pub data: Vec<TrainingData>,
    /// The loss on the way.
    pub curve: Vec<CurvePoint>,
}

/// A text that a model was trained on.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingData {
    /// The file.
    pub file: String,
    /// Its SHA-256.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
    /// Its licence.
    pub license: String,
    /// The bytes from..to that were not trained on.
    pub held_out: [u64; 2],
}

/// A point of the loss curve.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CurvePoint {
    /// Steps done.
    pub step: u64,
    /// Mean loss on the text being trained on, nats a token.
    pub train_nats: f64,
    /// Mean loss on the held-out text, nats a token.
    pub held_out_nats: f64,
}

/// How good a model is, by the script that trained it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// Bits a byte on all held-out text; none for a task.
    #[serde(default)]
    pub held_out_bits_per_byte: Option<f64>,
    /// The same for each text.
    #[serde(default)]
    pub sources: BTreeMap<String, f64>,
    /// Of a task: the share of 256 instances of seed 1 that it solves, by length.
    #[serde(default)]
    pub solved: BTreeMap<String, f64>,
}

impl ModelCard {
    /// Reads the card at `path` (`.../NAME/card.toml`).
    ///
    /// # Errors
    /// A card that cannot be read, has a misspelt or missing key, or lies in a folder of another name.
    pub fn read(path: &Path) -> Result<ModelCard> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
        let mut card: ModelCard = toml::from_str(&text).map_err(|error| {
            UserError::new(format!("{shown}: {}", error.to_string().trim_end().replace('\n', " | ")))
        })?;
        card.at = path.parent().unwrap_or(Path::new("")).to_path_buf();
        let folder = card.at.file_name().unwrap_or_default().to_string_lossy();
        ensure!(folder == card.name, "{shown}: name is '{}', but the folder's name is '{folder}'", card.name);
        ensure!(card.kind == "model", "{shown}: kind is '{}' where 'model' is expected", card.kind);
        let of_text = card.evaluation.held_out_bits_per_byte.is_some() && !card.training.data.is_empty();
        ensure!(
            of_text != card.task.is_some(),
            "{shown}: expected either [task] or texts under training.data with evaluation.held_out_bits_per_byte"
        );
        Ok(card)
    }

    /// Which bytes of the text with this checksum the model was not trained on; none for a text that it was not trained on
    /// at all.
    pub fn held_out(&self, sha256: &str) -> Option<[u64; 2]> {
        self.training.data.iter().find(|data| data.sha256 == sha256).map(|data| data.held_out)
    }

    /// Whether every file beside the card is the one on the card.
    ///
    /// # Errors
    /// The first file that is missing or differs.
    pub fn verify(&self) -> Result<()> {
        for (name, file) in &self.files {
            let path = self.at.join(name);
            let shown = path.display();
            let bytes = std::fs::metadata(&path).with_context(|| format!("cannot read {shown}"))?.len();
            ensure!(bytes == file.bytes, "{shown} has {bytes} bytes where its card says {}", file.bytes);
            let sum = checksum::of_file(&path)?;
            ensure!(sum == file.sha256, "{shown} has sha256 {sum} where its card says {}", file.sha256);
        }
        Ok(())
    }
}

/// The cards of all models in `models/`, by name.
///
/// # Errors
/// A `models/` folder that cannot be listed, or a card that cannot be read. A missing folder is an empty list.
pub fn list() -> Result<Vec<ModelCard>> {
    let folder = root::root().join("models");
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut cards = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let card = entry.with_context(|| format!("cannot list {}", folder.display()))?.path().join("card.toml");
        if card.is_file() {
            cards.push(ModelCard::read(&card)?);
        }
    }
    cards.sort_by(|a: &ModelCard, b| a.name.cmp(&b.name));
    Ok(cards)
}

/// The options that a model's name may end in.
const OPTIONS: [&str; 3] = ["layout", "head", "dense"];

/// A name without its options, and what they make of a packing.
///
/// # Errors
/// [`UserError`] for an option that is not known or has no such value.
fn options(name: &str, mut packing: Packing) -> Result<(&str, Packing)> {
    let mut base = name;
    if Path::new(name).exists() {
        return Ok((name, packing));
    }
    // From the end, because paths may have a plus too.
    while let Some((rest, option)) = base.rsplit_once('+')
        && let Some((key, value)) = option.split_once('=')
    {
        let wrong = |problem: String| UserError::new(format!("{name}: {problem}"));
        match key {
            "layout" => packing.ternary = value.parse().map_err(wrong)?,
            "head" => packing.head = value.parse().map_err(wrong)?,
            "dense" => packing.dense = value.parse().map_err(wrong)?,
            _ => return Err(UserError::unknown("option of a model", key, OPTIONS, &format!("in {name}"))),
        }
        base = rest;
    }
    Ok((base, packing))
}

/// What a name means: a model in `models/` (with its card), a folder, a file, or `synthetic:SHAPE[:SEED]`.
///
/// # Errors
/// [`UserError`] for a name that is none of these; it lists what there is.
pub fn find(name: &str) -> Result<(Spec, Option<ModelCard>)> {
    let (name, _) = options(name, Packing::default())?;
    if name.starts_with("synthetic:") {
        return Ok((Spec::parse(name).map_err(user_or_failure)?, None));
    }
    if is_name(name) {
        let card = root::root().join("models").join(name).join("card.toml");
        if card.is_file() {
            let card = ModelCard::read(&card)?;
            return Ok((Spec::Folder(card.at.clone()), Some(card)));
        }
    }
    let path = Path::new(name);
    if path.exists() {
        let card = path.join("card.toml");
        let card = if card.is_file() { Some(ModelCard::read(&card)?) } else { None };
        return Ok((Spec::parse(name).map_err(user_or_failure)?, card));
    }
    let cards = list()?;
    let shapes: Vec<&str> = engines::SHAPES.iter().map(|shape| shape.name).collect();
    let hint =
        format!("a folder, a file and synthetic:SHAPE[:SEED] will do as well, with SHAPE one of {}", shapes.join(", "));
    Err(UserError::unknown("model", name, cards.iter().map(|card| card.name.as_str()), &hint))
}

/// Whether the text can be the name of a folder in `models/`.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text != "." && text != ".." && !text.contains(['/', '\\'])
}

/// Loads the model `name`, showing a bar on standard error when it takes long. A model with a card is verified first.
///
/// # Errors
/// As [`find`]; files that are not those on the card; anything that the engines find wrong.
pub fn load(name: &str, settings: &Settings) -> Result<Loaded> {
    let (spec, card) = find(name)?;
    let (_, packing) = options(name, settings.packing)?;
    if let Some(card) = &card {
        card.verify()?;
    }
    let bar = progress::bytes(0, &format!("loading {name}"));
    let loaded = engines::load(&spec, &Settings { packing, ..settings.clone() }, &|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    loaded.map_err(user_or_failure).with_context(|| format!("cannot load model {name}"))
}

/// The SHA-256 that tells the weights of the model `name` from any others: of the file, where it is one; of the lines
/// `SUM  FILE` (as sha256sum prints them, in order of names) where there are several; `None` for synthetic weights, which
/// are a function of their name.
///
/// # Errors
/// As [`find`]; files that cannot be read.
pub fn checksum(name: &str) -> Result<Option<String>> {
    let folder = match find(name)?.0 {
        Spec::Synthetic { .. } => return Ok(None),
        Spec::File(path) => return checksum::of_file(&path).map(Some),
        Spec::Folder(folder) => folder,
    };
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            lines.push((file, checksum::of_file(&path)?));
        }
    }
    lines.sort();
    Ok(match lines.as_slice() {
        [] => None,
        [(_, sum)] => Some(sum.clone()),
        lines => {
            let text: String = lines.iter().map(|(file, sum)| format!("{sum}  {file}\n")).collect();
            Some(checksum::of_bytes(text.as_bytes()))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_means_nothing_says_what_there_is() {
        let message = find("no-such-model").unwrap_err().to_string();
        assert!(message.contains("there is no model 'no-such-model'") && message.contains("bitnet-2b-4t"), "{message}");
        let message = find("synthetic:nothing").unwrap_err().to_string();
        assert!(message.contains("nothing") && message.contains("bitnet-2b-4t"), "{message}");
    }

    #[test]
    fn options_at_the_end_of_a_name_are_read_or_refused() {
        let (base, packing) = options("a/b+c/model+layout=t5+head=q8", Packing::default()).unwrap();
        assert_eq!(base, "a/b+c/model");
        assert_eq!((packing.ternary.name(), packing.head.to_string()), ("t5", "q8".to_string()));
        assert_eq!(options("x", packing).unwrap(), ("x", packing));
        let says = |name: &str| options(name, Packing::default()).unwrap_err().to_string();
        assert!(says("m+head=q3").contains("'q3'") && says("m+head=q3").contains("stored, q8, q4"));
        assert!(says("m+haed=q8").contains("haed"));
        assert!(find("synthetic:bitnet-tiny:3+dense=q4").is_ok());
    }

    #[test]
    fn a_synthetic_model_has_no_checksum_and_a_folder_that_of_its_weights() {
        assert_eq!(checksum("synthetic:bitnet-2b-4t").unwrap(), None);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.safetensors"), "abc").unwrap();
        std::fs::write(folder.path().join("config.json"), "{}").unwrap();
        let one = checksum(folder.path().to_str().unwrap()).unwrap().unwrap();
        assert_eq!(one, checksum::of_bytes(b"abc"));
        std::fs::write(folder.path().join("more.safetensors"), "d").unwrap();
        let two = checksum(folder.path().to_str().unwrap()).unwrap().unwrap();
        assert!(two != one && two.len() == 64);
    }
}
