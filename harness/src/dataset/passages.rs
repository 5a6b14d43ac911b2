//! Passages with questions that only they answer: perplexity reads the prose, retrieval asks the questions.

use anyhow::Result;
use serde::Deserialize;

use super::{Form, entry, list};
use crate::cli::UserError;

/// A short text about one thing, with questions that no other passage answers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passage {
    /// A name that no other passage of the set has.
    pub id: String,
    /// What the passage is about; several passages share a subject.
    pub subject: String,
    /// The passage's own title.
    pub title: String,
    /// The prose: paragraphs, separated by a blank line.
    pub text: String,
    /// What can be asked of it.
    pub questions: Vec<Question>,
}

/// A question whose answer stands in its passage and in no other.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The question, which names enough to be understood without the passage.
    pub question: String,
    /// The answer in the passage's own words.
    pub answer: String,
}

impl Passage {
    /// The number of words, as white space separates them.
    pub fn words(&self) -> usize {
        self.text.split_whitespace().count()
    }
}

/// The passages of the dataset `name`, in order.
///
/// # Errors
/// [`UserError`] for an unknown name or one that holds no passages; files as in [`super::text`].
pub fn load(name: &str) -> Result<Vec<Passage>> {
    let cards = list()?;
    let (card, text) = entry(&cards, name)?;
    if text.form != Form::Passages {
        return Err(UserError::new(format!("dataset {name} holds plain text: expected passages with questions")));
    }
    parse(&card.content(text)?, name)
}

/// Passages from JSON lines; `name` is the set's name for the error's sentence.
pub(super) fn parse(lines: &str, name: &str) -> Result<Vec<Passage>> {
    let numbered = lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    numbered
        .map(|(index, line)| {
            serde_json::from_str(line)
                .map_err(|error| UserError::new(format!("dataset {name}, passage on line {}: {error}", index + 1)))
        })
        .collect()
}

/// The passages' prose as one text: no titles, a blank line between passages.
pub(super) fn prose(passages: &[Passage]) -> String {
    passages.iter().map(|passage| passage.text.as_str()).collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"id":"a","subject":"s","title":"t","text":"One two.","questions":[]}"#;

    #[test]
    fn a_passage_is_a_line_and_the_prose_joins_them() {
        let passages = parse(&format!("{LINE}\n\n{LINE}\n"), "toy").unwrap();
        assert_eq!(passages[0].words(), 2);
        assert_eq!(prose(&passages), "One two.\n\nOne two.");
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        let message = parse(&format!("{LINE}\n{{\"id\":1}}\n"), "toy").unwrap_err().to_string();
        assert!(message.contains("line 2"), "{message}");
    }
}
