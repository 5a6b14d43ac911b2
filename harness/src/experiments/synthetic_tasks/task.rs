//! Induction heads and selective copying (Mamba, arXiv 2312.00752, section 4.1), instance by instance.
//!
//! Symbols are the tokens 0 to 15. An instance is a function of its task, its length L and the sequence of [`Rng`], so that
//! `experiments/train/tasks.py` makes the same ones; `experiments/train/task-examples.json` pins both.
//!
//! * `induction`: L tokens. The special token 16 stands at a place p below L - 2 and at the end; all others are symbols. The
//!   answer to the last token is the symbol after p. Drawn: p, then the symbols at 0 to L - 1, two of which the special token
//!   covers.
//! * `copying`: L + K tokens. K of the first L places hold symbols, the rest noise (16); then K marks (17) follow. The answer
//!   to the i-th mark is the i-th symbol. Drawn: a word for each of the L places, of which the K smallest hold symbols (of
//!   equal words the first); then the K symbols.

use engines::Token;
use kernels::Rng;
use serde::{Deserialize, Serialize};

/// How many symbols there are.
pub const SYMBOLS: usize = 16;
const SPECIAL: Token = 16;
const NOISE: Token = 16;
const MARK: Token = 17;

/// A task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// What followed the special token when it stood here before?
    Induction,
    /// Which symbols stood among the noise, in order?
    Copying,
}

/// What is read, and what the last tokens should be answered with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// What is read.
    pub tokens: Vec<Token>,
    /// The answer to each of the last tokens.
    pub answers: Vec<Token>,
}

impl Task {
    /// Every task.
    pub const ALL: [Task; 2] = [Task::Induction, Task::Copying];

    /// Its name in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Task::Induction => "induction",
            Task::Copying => "copying",
        }
    }

    /// Tokens that a model must know.
    pub fn vocab(self) -> usize {
        match self {
            Task::Induction => SPECIAL as usize + 1,
            Task::Copying => MARK as usize + 1,
        }
    }

    /// Whether there are instances of `length` with `items` answers.
    ///
    /// # Errors
    /// A sentence that says what there is.
    pub fn check(self, length: usize, items: usize) -> Result<(), String> {
        match self {
            Task::Induction if items != 1 => Err(format!("items = {items}: induction has one answer")),
            Task::Induction if length < 3 => Err(format!("lengths: {length} where induction needs at least 3")),
            Task::Copying if items == 0 || items > length => {
                Err(format!("items = {items}: expected 1 to the length, {length}"))
            }
            _ => Ok(()),
        }
    }

    /// Instance number `index` of a seed. `length` and `items` are such that [`check`](Self::check) passes.
    pub fn instance(self, seed: u64, index: usize, length: usize, items: usize) -> Instance {
        // The generator's words are those of one key for each instance; keys of training begin with another word.
        let key = Rng::mix(Rng::mix(u64::from_be_bytes(*b"\0\0\0\0test") ^ seed).wrapping_add(index as u64));
        let mut rng = Rng::new(key);
        let symbols = |rng: &mut Rng, count: usize| (0..count).map(|_| rng.below(SYMBOLS) as Token).collect::<Vec<_>>();
        match self {
            Task::Induction => {
                let place = rng.below(length - 2);
                let mut tokens = symbols(&mut rng, length);
                let answers = vec![tokens[place + 1]];
                tokens[place] = SPECIAL;
                tokens[length - 1] = SPECIAL;
                Instance { tokens, answers }
            }
            Task::Copying => {
                let mut places: Vec<(u64, usize)> = (0..length).map(|place| (rng.next_u64(), place)).collect();
                places.sort_unstable();
                let mut places: Vec<usize> = places[..items].iter().map(|(_, place)| *place).collect();
                places.sort_unstable();
                let answers = symbols(&mut rng, items);
                let mut tokens = vec![NOISE; length];
                tokens.resize(length + items, MARK);
                for (place, answer) in places.into_iter().zip(&answers) {
                    tokens[place] = *answer;
                }
                Instance { tokens, answers }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn instances_are_those_that_models_are_trained_on() {
        let text = include_str!("../../../../experiments/train/task-examples.json");
        let examples: BTreeMap<String, Vec<Instance>> = serde_json::from_str(text).unwrap();
        assert!(examples.len() >= 4);
        for (name, instances) in examples {
            let [task, length, items] = name.split(' ').collect::<Vec<_>>()[..] else { panic!("{name}") };
            let task = Task::ALL.into_iter().find(|known| known.name() == task).unwrap();
            let (length, items) = (length.parse().unwrap(), items.parse().unwrap());
            for (index, instance) in instances.iter().enumerate() {
                assert_eq!(task.instance(1, index, length, items), *instance, "{name}, number {index}");
            }
        }
    }

    #[test]
    fn the_answer_stands_in_the_text() {
        for index in 0..200 {
            let Instance { tokens, answers } = Task::Induction.instance(7, index, 3 + index % 9, 1);
            let places: Vec<usize> = (0..tokens.len()).filter(|place| tokens[*place] == SPECIAL).collect();
            let [first, last] = places[..] else { panic!("{tokens:?}") };
            assert_eq!((last, tokens[first + 1]), (tokens.len() - 1, answers[0]), "{tokens:?}");
            let Instance { tokens, answers } = Task::Copying.instance(7, index, 5 + index % 9, 5);
            let symbols: Vec<Token> = tokens.iter().copied().filter(|token| (*token as usize) < SYMBOLS).collect();
            assert_eq!(symbols, answers);
            assert!(tokens[tokens.len() - 5..].iter().all(|token| *token == MARK));
            assert!(tokens.iter().all(|token| (*token as usize) < Task::Copying.vocab()));
        }
    }

    #[test]
    fn other_seeds_give_other_instances() {
        for task in Task::ALL {
            let items = if task == Task::Copying { 4 } else { 1 };
            assert_ne!(task.instance(0, 0, 32, items), task.instance(1, 0, 32, items));
            assert_ne!(task.instance(0, 0, 32, items), task.instance(0, 1, 32, items));
        }
    }
}
