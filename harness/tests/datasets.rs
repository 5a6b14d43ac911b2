//! Promises about the data that the repository owns, and about every card.

use std::collections::{BTreeMap, BTreeSet};

use harness::dataset::{self, passages};

#[test]
fn every_card_reads_and_every_text_has_a_name_of_its_own() {
    let cards = dataset::list().unwrap();
    assert!(cards.iter().any(|card| card.name == "almanac"), "the almanac is missing from {:?}", dataset::text_names());
    let mut names = BTreeSet::new();
    for card in &cards {
        for text in card.texts.keys() {
            assert!(names.insert(text.clone()), "two texts are called {text}");
        }
        for (name, file) in &card.files {
            match &file.url {
                Some(url) => assert!(url.starts_with("https://"), "{}/{name} is fetched from {url}", card.name),
                None => assert!(card.at.join(name).is_file(), "{}/{name} has no url and is not here", card.name),
            }
        }
        assert!(card.at.join("README.md").is_file(), "{} has no README.md", card.name);
    }
}

/// Data of the repository always, fetched data where it is on this machine.
#[test]
fn every_file_that_is_here_has_the_checksum_of_its_card() {
    let mut checked = 0;
    for card in dataset::list().unwrap() {
        for file in card.files.keys() {
            match card.locate(file) {
                Some(_) => checked += usize::from(card.path(file).is_ok_and(|path| path.is_file())),
                None => {
                    eprintln!("not checked: {}/{file} is not on this machine", card.name);
                    checked += 1;
                }
            }
        }
    }
    let all: usize = dataset::list().unwrap().iter().map(|card| card.files.len()).sum();
    assert_eq!(checked, all, "a file on this machine is not the one on its card");
}

#[test]
fn the_almanac_has_the_size_it_promises() {
    let all = passages::load("almanac").unwrap();
    assert!(all.len() >= 100, "{} passages", all.len());
    let subjects: BTreeSet<&str> = all.iter().map(|passage| passage.subject.as_str()).collect();
    assert!(subjects.len() >= 20, "{} subjects", subjects.len());
    let ids: BTreeSet<&str> = all.iter().map(|passage| passage.id.as_str()).collect();
    assert_eq!(ids.len(), all.len(), "two passages share an id");
    for passage in &all {
        let words = passage.words();
        assert!((120..=200).contains(&words), "{} has {words} words", passage.id);
        assert!(!passage.title.trim().is_empty(), "{} has no title", passage.id);
        assert!(passage.questions.len() >= 3, "{} has {} questions", passage.id, passage.questions.len());
    }
}

#[test]
fn every_answer_stands_in_its_passage_and_no_question_is_asked_twice() {
    let mut asked = BTreeSet::new();
    for passage in passages::load("almanac").unwrap() {
        let text = passage.text.to_lowercase();
        for q in &passage.questions {
            assert!(text.contains(&q.answer.to_lowercase()), "{} does not say '{}'", passage.id, q.answer);
            assert!(q.question.trim_end().ends_with('?'), "{} asks '{}'", passage.id, q.question);
            assert!(asked.insert(q.question.to_lowercase()), "asked twice: {}", q.question);
        }
    }
}

/// A question that shares no rare word with its gold passage, or more with another, could not be answered from it alone.
/// Words are weighted by log(N / number of passages with the word); ranking by that sum finds the gold passage first.
#[test]
fn questions_point_to_their_gold_passage() {
    let words = |text: &str| -> BTreeSet<String> {
        text.to_lowercase()
            .split(|c: char| !c.is_alphanumeric())
            .filter(|w| !w.is_empty())
            .map(str::to_string)
            .collect()
    };
    let all = passages::load("almanac").unwrap();
    let bags: Vec<BTreeSet<String>> = all.iter().map(|p| words(&format!("{} {}", p.title, p.text))).collect();
    let mut spread: BTreeMap<&str, usize> = BTreeMap::new();
    for word in bags.iter().flatten() {
        *spread.entry(word).or_default() += 1;
    }
    let (mut questions, mut first) = (0, 0);
    for (gold, passage) in all.iter().enumerate() {
        for q in &passage.questions {
            let asked = words(&q.question);
            let score = |bag: &BTreeSet<String>| -> f64 {
                asked.intersection(bag).map(|word| (all.len() as f64 / spread[word.as_str()] as f64).ln()).sum()
            };
            let best = (0..bags.len()).max_by(|&a, &b| score(&bags[a]).total_cmp(&score(&bags[b])));
            questions += 1;
            first += usize::from(best == Some(gold));
        }
    }
    assert!(first * 100 >= questions * 95, "only {first} of {questions} questions lead to their passage");
}

#[test]
fn the_almanacs_text_is_its_prose_in_order() {
    let text = dataset::text("almanac").unwrap();
    let all = passages::load("almanac").unwrap();
    assert!(text.text.starts_with(&all[0].text) && text.text.ends_with(&all[all.len() - 1].text));
    let bytes: usize = all.iter().map(|passage| passage.text.len()).sum();
    assert_eq!(text.text.len(), bytes + 2 * (all.len() - 1));
    assert_eq!(text.sha256, harness::checksum::of_bytes(text.text.as_bytes()));
}
