//! `card.toml`: what a dataset is, and how its files are told from any others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::{directories, utf8};
use crate::checksum;
use crate::cli::UserError;

/// The longest file that a card may name, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 36;

/// A dataset: one folder under `datasets/` with this card in it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// The folder's name.
    pub name: String,
    /// What the set is, in a line.
    pub title: String,
    /// What the set is for, and what to mind.
    pub description: String,
    /// The licence of the data, by its SPDX name where it has one.
    pub license: String,
    /// The public page that the data comes from.
    pub home: String,
    /// The folder under a data directory that holds the files; the name of the set where the card does not say.
    #[serde(default)]
    pub folder: Option<String>,
    /// The files, by name.
    pub files: BTreeMap<String, FileCard>,
    /// The texts that can be scored, by a name that is unique among all cards.
    #[serde(default)]
    pub texts: BTreeMap<String, TextCard>,
    /// The folder that the card was read from.
    #[serde(skip)]
    pub at: PathBuf,
}

/// One file of a dataset.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FileCard {
    /// The file's length.
    pub bytes: u64,
    /// The file's SHA-256, 64 lowercase hexadecimal digits.
    pub sha256: String,
    /// Where the file is fetched from; none for data that the repository owns.
    #[serde(default)]
    pub url: Option<String>,
}

/// One text of a dataset.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TextCard {
    /// The files that make the text, in order.
    pub files: Vec<String>,
    /// How the files hold the text.
    #[serde(default)]
    pub form: Form,
}

/// How files hold a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// The files are the text.
    #[default]
    Plain,
    /// Each line is a passage with questions, as JSON; the text is the passages' prose.
    Passages,
}

impl Card {
    /// Reads and checks the card at `path` (`.../NAME/card.toml`).
    ///
    /// # Errors
    /// A card that cannot be read, has a misspelt or missing key, or contradicts itself.
    pub fn read(path: &Path) -> Result<Card> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
        let mut card: Card = toml::from_str(&text).map_err(|error| {
            UserError::new(format!("{shown}: {}", error.to_string().trim_end().replace('\n', " | ")))
        })?;
        card.at = path.parent().unwrap_or(Path::new("")).to_path_buf();
        card.check().with_context(|| format!("{shown}"))?;
        Ok(card)
    }

    /// Whether the card agrees with itself and with its folder's name.
    fn check(&self) -> Result<()> {
        let folder = self.at.file_name().unwrap_or_default().to_string_lossy();
        ensure!(folder == self.name, "name is '{}', but the card lies in a folder named '{folder}'", self.name);
        ensure!(is_plain_name(self.folder()), "folder '{}' is not a plain name", self.folder());
        ensure!(!self.files.is_empty(), "a dataset needs at least one file");
        for (name, file) in &self.files {
            ensure!(is_plain_name(name), "file '{name}' is not a plain name");
            ensure!(file.bytes <= MAX_FILE_BYTES, "file '{name}' has {} bytes: at most {MAX_FILE_BYTES}", file.bytes);
            let digits = file.sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            ensure!(digits && file.sha256.len() == 64, "sha256 of '{name}' is not 64 lowercase hexadecimal digits");
        }
        for (name, text) in &self.texts {
            ensure!(!text.files.is_empty(), "text '{name}' has no files");
            for file in &text.files {
                ensure!(self.files.contains_key(file), "text '{name}' names the file '{file}', which is not listed");
            }
        }
        Ok(())
    }

    /// The folder under a data directory that holds the files.
    pub fn folder(&self) -> &str {
        self.folder.as_deref().unwrap_or(&self.name)
    }

    /// Where `file` may lie, best first: beside the card, then in each data directory.
    fn places(&self, file: &str) -> Vec<PathBuf> {
        let elsewhere = directories().into_iter().map(|directory| directory.join(self.folder()).join(file));
        std::iter::once(self.at.join(file)).chain(elsewhere).collect()
    }

    /// Where `file` lies on this machine, if it does; its content is not looked at.
    pub fn locate(&self, file: &str) -> Option<PathBuf> {
        self.places(file).into_iter().find(|place| place.is_file())
    }

    /// The path of `file`, whose length and checksum have been verified.
    ///
    /// # Errors
    /// A file that is nowhere on this machine, or is not the one on the card.
    pub fn path(&self, file: &str) -> Result<PathBuf> {
        let place = self.located(file)?;
        self.verify(file, &place)?;
        Ok(place)
    }

    /// Whether the file at `place` is the `file` of this card.
    ///
    /// # Errors
    /// The first difference: length, then checksum.
    pub fn verify(&self, file: &str, place: &Path) -> Result<()> {
        let expected = self.file(file)?;
        let found = std::fs::metadata(place).with_context(|| format!("cannot read {}", place.display()))?.len();
        expect_length(place, found, expected)?;
        expect_checksum(place, &checksum::of_file(place)?, expected)
    }

    /// The content of the files of `text`, one after the other.
    ///
    /// # Errors
    /// As [`Card::path`]; also files that are not UTF-8.
    pub(crate) fn content(&self, text: &TextCard) -> Result<String> {
        let mut content = String::new();
        for file in &text.files {
            let place = self.located(file)?;
            let expected = self.file(file)?;
            // The length is compared before reading, so that a wrong file cannot fill the memory.
            let found = std::fs::metadata(&place).with_context(|| format!("cannot read {}", place.display()))?.len();
            expect_length(&place, found, expected)?;
            let bytes = std::fs::read(&place).with_context(|| format!("cannot read {}", place.display()))?;
            expect_checksum(&place, &checksum::of_bytes(&bytes), expected)?;
            content.push_str(&utf8(bytes, &place.display().to_string())?);
        }
        Ok(content)
    }

    fn located(&self, file: &str) -> Result<PathBuf> {
        let Some(place) = self.locate(file) else {
            let places: Vec<_> = self.places(file).iter().map(|place| place.display().to_string()).collect();
            bail!(
                "dataset {} is not on this machine: there is no {}; run `harness dataset fetch {}`",
                self.name,
                places.join(" and no "),
                self.name
            );
        };
        Ok(place)
    }

    fn file(&self, file: &str) -> Result<&FileCard> {
        self.files.get(file).with_context(|| format!("dataset {} has no file '{file}'", self.name))
    }
}

fn expect_length(place: &Path, found: u64, expected: &FileCard) -> Result<()> {
    let wanted = expected.bytes;
    ensure!(found == wanted, "{} has {found} bytes where its card says {wanted}", place.display());
    Ok(())
}

pub(crate) fn expect_checksum(place: &Path, found: &str, expected: &FileCard) -> Result<()> {
    let wanted = &expected.sha256;
    ensure!(found == wanted, "{} has sha256 {found} where its card says {wanted}", place.display());
    Ok(())
}

/// Whether the name stays inside the folder that it is looked for in.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn card(folder: &Path, extra: &str) -> Result<Card> {
        let path = folder.join("toy").join("card.toml");
        std::fs::create_dir_all(folder.join("toy")).unwrap();
        let head = "title = 't'\ndescription = 'd'\nlicense = 'CC0-1.0'\nhome = 'h'\n";
        std::fs::write(&path, format!("{head}{extra}")).unwrap();
        Card::read(&path)
    }

    fn with_file(name: &str, bytes: u64, sum: &str) -> String {
        format!("name = 'toy'\n[files.'{name}']\nbytes = {bytes}\nsha256 = '{sum}'\n")
    }

    #[test]
    fn a_card_that_contradicts_itself_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let fails = |extra: &str, part: &str| {
            let message = format!("{:#}", card(folder.path(), extra).unwrap_err());
            assert!(message.contains(part) && !message.contains('\n'), "{message}");
        };
        fails("name = 'toy'\nlisence = 'x'\n", "lisence");
        fails("name = 'other'\n[files]\n", "lies in a folder named 'toy'");
        fails("name = 'toy'\n[files]\n", "at least one file");
        fails(&with_file("../x", 3, SUM), "not a plain name");
        fails(&with_file("a", 3, "ABC"), "64 lowercase");
        fails(&with_file("a", 1 << 40, SUM), "at most");
        fails(&format!("{}[texts.toy]\nfiles = ['b']\n", with_file("a", 3, SUM)), "'b', which is not listed");
    }

    #[test]
    fn a_file_is_verified_at_every_use() {
        let folder = tempfile::tempdir().unwrap();
        let card = card(folder.path(), &format!("{}[texts.toy]\nfiles = ['a']\n", with_file("a", 3, SUM))).unwrap();
        let path = folder.path().join("toy/a");
        let message = |result: Result<PathBuf>| format!("{:#}", result.unwrap_err());

        assert!(message(card.path("a")).contains("harness dataset fetch toy"));
        std::fs::write(&path, "abcd").unwrap();
        assert!(message(card.path("a")).contains("has 4 bytes where its card says 3"));
        std::fs::write(&path, "abd").unwrap();
        assert!(message(card.path("a")).contains("where its card says ba78"));
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(card.path("a").unwrap(), path);
        assert_eq!(card.content(&card.texts["toy"]).unwrap(), "abc");
    }
}
