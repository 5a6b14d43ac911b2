//! Evaluation data: `datasets/NAME/card.toml` says what a set is, where its files come from and what they must hash to.
//!
//! A file is looked for, in this order, beside its card (data that the repository owns), under the data directory
//! (`RYZANSTEIN_DATA`, else `.data` in the repository; where `dataset fetch` puts it) and under `../shared/datasets`
//! beside the checkout. In the last two it lies in the folder that the card names. Its checksum is verified at every
//! use, so a number can never come from a text that is not the one on the card.

mod card;
pub mod fetch;
pub mod passages;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

pub use card::{Card, FileCard, Form, TextCard};

use crate::{checksum, cli::UserError, root};

/// The environment variable that names the data directory.
pub const ENVIRONMENT: &str = "RYZANSTEIN_DATA";

/// The longest text that is read into memory, in bytes.
pub const MAX_TEXT_BYTES: u64 = 1 << 30;

/// A text to read: what a model is scored on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The name on the card, or the file's name.
    pub name: String,
    /// The text itself; never empty.
    pub text: String,
    /// SHA-256 of the text's bytes (of the file, where the text is one whole file).
    pub sha256: String,
}

/// Where data that the repository does not own may lie: first the place where fetched files go.
pub fn directories() -> Vec<PathBuf> {
    let root = root::root();
    let named = std::env::var_os(ENVIRONMENT).filter(|value| !value.is_empty()).map(PathBuf::from);
    let beside = root.join("../shared/datasets").canonicalize().ok();
    std::iter::once(named.unwrap_or_else(|| root.join(".data"))).chain(beside).collect()
}

/// Every dataset's card, by name.
///
/// # Errors
/// A missing `datasets/` folder, or a card that cannot be read or contradicts itself.
pub fn list() -> Result<Vec<Card>> {
    let folder = root::root().join("datasets");
    let entries = std::fs::read_dir(&folder).with_context(|| {
        format!("cannot list {} ({} names the repository's folder)", folder.display(), root::ENVIRONMENT)
    })?;
    let mut cards = Vec::new();
    for entry in entries {
        let card = entry.with_context(|| format!("cannot list {}", folder.display()))?.path().join("card.toml");
        if card.is_file() {
            cards.push(Card::read(&card)?);
        }
    }
    cards.sort_by(|a: &Card, b| a.name.cmp(&b.name));
    Ok(cards)
}

/// The card of the dataset `name`.
///
/// # Errors
/// [`UserError`] for an unknown name, with the names that there are; else as [`list`].
pub fn find(name: &str) -> Result<Card> {
    let mut cards = list()?;
    match cards.iter().position(|card| card.name == name) {
        Some(index) => Ok(cards.swap_remove(index)),
        None => Err(UserError::unknown("dataset", name, cards.iter().map(|card| card.name.as_str()), "")),
    }
}

/// The names of all texts, in order of dataset and name.
///
/// # Errors
/// As [`list`].
pub fn text_names() -> Result<Vec<String>> {
    Ok(list()?.iter().flat_map(|card| card.texts.keys().cloned().collect::<Vec<_>>()).collect())
}

/// The text `name` of any card, for example `almanac` or `wikitext2-test`; a dataset with one text goes by its own name
/// too.
///
/// # Errors
/// [`UserError`] for an unknown name; a file that is not on this machine (the sentence says how to fetch it) or is not
/// the one on the card.
pub fn text(name: &str) -> Result<Text> {
    let cards = list()?;
    let (card, text) = entry(&cards, name)?;
    let content = card.content(text)?;
    let text = match text.form {
        Form::Plain => content,
        Form::Passages => passages::prose(&passages::parse(&content, name)?),
    };
    finish(name.to_string(), text)
}

/// Whether the text `name` exists and all its files are on this machine (their checksums are verified on use).
///
/// # Errors
/// [`UserError`] for an unknown name; else as [`list`].
pub fn is_present(name: &str) -> Result<bool> {
    let cards = list()?;
    let (card, text) = entry(&cards, name)?;
    Ok(text.files.iter().all(|file| card.locate(file).is_some()))
}

/// How to get the text `name`, for whoever lacks it: a command.
///
/// # Errors
/// As [`is_present`].
pub fn remedy(name: &str) -> Result<String> {
    let cards = list()?;
    Ok(format!("harness dataset fetch {}", entry(&cards, name)?.0.name))
}

/// The card and entry of the text `name`.
fn entry<'a>(cards: &'a [Card], name: &str) -> Result<(&'a Card, &'a TextCard)> {
    let named = cards.iter().find_map(|card| Some((card, card.texts.get(name)?)));
    let only = || {
        let card = cards.iter().find(|card| card.name == name)?;
        (card.texts.len() == 1).then(|| card.texts.values().next().map(|text| (card, text)))?
    };
    named.or_else(only).ok_or_else(|| {
        let known = cards.iter().flat_map(|card| card.texts.keys().map(String::as_str));
        UserError::unknown("text", name, known, "`harness dataset list` tells more")
    })
}

/// The text in a file of the user's.
///
/// # Errors
/// A file that cannot be read, is longer than [`MAX_TEXT_BYTES`], is not UTF-8 or holds nothing but white space.
pub fn text_file(path: &Path) -> Result<Text> {
    let shown = path.display();
    let data = std::fs::metadata(path).map_err(|e| UserError::new(format!("cannot open text {shown}: {e}")))?;
    if !data.is_file() && data.is_dir() {
        return Err(UserError::new(format!("text {shown} is a folder: expected a file")));
    }
    if data.len() > MAX_TEXT_BYTES {
        bail!("text {shown} has {} bytes: at most {MAX_TEXT_BYTES} are read", data.len());
    }
    let mut bytes = Vec::new();
    let limit = MAX_TEXT_BYTES + 1;
    std::fs::File::open(path)
        .and_then(|file| std::io::Read::read_to_end(&mut std::io::Read::take(file, limit), &mut bytes))
        .with_context(|| format!("cannot read text {shown}"))?;
    if bytes.len() as u64 > MAX_TEXT_BYTES {
        bail!("text {shown} has more than {MAX_TEXT_BYTES} bytes, the most that is read");
    }
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    finish(name, utf8(bytes, &shown.to_string())?)
}

/// `bytes` as text, or the sentence that says where they stop being UTF-8.
fn utf8(bytes: Vec<u8>, source: &str) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        UserError::new(format!("{source} is not UTF-8 text: byte {at} is 0x{:02x}", error.as_bytes()[at]))
    })
}

/// The text with its checksum, unless there is nothing to read.
fn finish(name: String, text: String) -> Result<Text> {
    if text.trim().is_empty() {
        return Err(UserError::new(format!("text {name} is empty: expected at least one word")));
    }
    let sha256 = checksum::of_bytes(text.as_bytes());
    Ok(Text { name, text, sha256 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_file_must_exist_and_be_utf8_and_hold_something() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let fails = |path: &Path, part: &str| {
            let message = format!("{:#}", text_file(path).unwrap_err());
            assert!(message.contains(part), "{message}");
        };
        fails(&folder.path().join("missing"), "missing");
        fails(folder.path(), "is a folder");
        fails(&write("empty", b" \n"), "text empty is empty");
        fails(&write("latin", b"caf\xe9 noir"), "byte 3 is 0xe9");
        let good = text_file(&write("good", "café".as_bytes())).unwrap();
        assert_eq!((good.name.as_str(), good.text.as_str()), ("good", "café"));
    }
}
