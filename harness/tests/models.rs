//! Promises about the trained models that the repository owns.

mod toy;

use engines::{CacheFormat, Cpu, Packing, Settings};
use harness::experiments::synthetic_tasks::{Task, score};
use harness::model;
use kernels::Isa;

#[test]
fn every_model_is_the_one_on_its_card_and_reads_text() {
    let settings =
        Settings { cpu: Cpu::new(Isa::best(), 2).unwrap(), cache: CacheFormat::F32, packing: Packing::default() };
    let cards = model::list().unwrap();
    assert!(!cards.is_empty(), "models/ is empty");
    for card in cards {
        card.verify().unwrap();
        assert_eq!(
            model::checksum(&card.name).unwrap().as_ref(),
            card.files.get("model.safetensors").map(|f| &f.sha256)
        );
        let loaded = model::load(&card.name, &settings).unwrap();
        assert_eq!(loaded.name, card.name);
        assert_eq!(loaded.model.facts().parameters, card.parameters, "{}", card.name);
        if card.task.is_some() {
            assert!(loaded.tokenizer.is_none(), "{}: its tokens are the task's", card.name);
            continue;
        }
        let tokenizer = loaded.tokenizer.expect("a model of text has a tokenizer");
        let text = "The flood came up the estuary – and the gates fell shut.";
        let tokens = tokenizer.encode(text).unwrap();
        assert_eq!(tokenizer.decode(&tokens), text, "{}", card.name);
        assert!(tokens.iter().all(|token| (*token as usize) < loaded.model.vocab()));
    }
}

/// Cards sum up training: what they say of data must be what the dataset cards say, and nothing was trained on tests.
#[test]
fn training_data_is_carded_and_no_test_split() {
    let datasets = harness::dataset::list().unwrap();
    for card in model::list().unwrap() {
        assert!(card.training.data.iter().all(|data| !data.file.contains("test")), "{}", card.name);
        for data in &card.training.data {
            let known = datasets.iter().any(|set| set.files.values().any(|file| file.sha256 == data.sha256));
            assert!(known, "{} was trained on {}, which no card in datasets/ has", card.name, data.file);
        }
        assert!(card.training.curve.len() >= 2, "{} has no loss curve", card.name);
    }
}

#[test]
fn models_of_tasks_are_small_and_solve_what_their_cards_say() {
    let settings =
        Settings { cpu: Cpu::new(Isa::best(), 2).unwrap(), cache: CacheFormat::F32, packing: Packing::default() };
    for card in model::list().unwrap() {
        let Some(of) = &card.task else { continue };
        assert!(card.files["model.safetensors"].bytes <= 1_000_000, "{} is larger than 1 MB", card.name);
        let task = Task::ALL.into_iter().find(|task| task.name() == of.name).expect("a task that the experiment knows");
        let loaded = model::load(&card.name, &settings).unwrap();
        let trained = card.training.context as usize;
        for (length, expected) in &card.evaluation.solved {
            let length: usize = length.parse().expect("a length");
            if length <= 2 * trained {
                let score = score(&loaded, task, 1, 256, length, of.items).unwrap();
                let found = score.solved() as f64 / 256.0;
                // Sums in another order decide near ties otherwise.
                assert!((found - expected).abs() <= 0.03, "{} at {length}: {found}, its card {expected}", card.name);
            }
        }
        let own = card.training.context.to_string();
        assert!(card.evaluation.solved.contains_key(&own), "{} says nothing of its own length", card.name);
    }
}

#[test]
fn a_model_that_was_tampered_with_is_refused() {
    let card = &model::list().unwrap()[0];
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("models").join(&card.name);
    std::fs::create_dir_all(&folder).unwrap();
    for name in card.files.keys().map(String::as_str).chain(["card.toml"]) {
        std::fs::copy(card.at.join(name), folder.join(name)).unwrap();
    }
    let mut weights = std::fs::read(folder.join("model.safetensors")).unwrap();
    *weights.last_mut().unwrap() ^= 1;
    std::fs::write(folder.join("model.safetensors"), weights).unwrap();
    let output = toy::command(root.path())
        .env("RYZANSTEIN_ROOT", root.path())
        .args(["generate", "--model", &card.name, "--prompt", "a"])
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("sha256") && told.contains("where its card says"), "{told}");
}
