"""Two synthetic tasks that tell architectures apart (Mamba, arXiv 2312.00752, section 4.1), instance by instance.

An instance is a function of its task, its length L and a key of 64 bits: word i of a key is SplitMix64's
`mix(key + (i + 1) * golden)`, and a number below b is the high half of the 128-bit product of a word and b. The crate
`harness` defines the same tasks by the same words (`harness/src/experiments/synthetic_tasks/task.rs`);
`task-examples.json` pins both.

Symbols are the tokens 0..15.

* **induction**: L tokens. Token 16, the special one, stands at a place p below L - 2 and at the end, L - 1; all others
  are symbols. The answer to the last token is the symbol at p + 1. Words: p, then the symbols at 0..L (two of them are
  covered by the special token).
* **copying**: L + K tokens. K of the first L places hold symbols, the rest are noise (token 16); then K marks (token 17)
  follow. The answer to the i-th mark is the i-th symbol. Words: one for each of the L places, of which the K smallest
  hold symbols (of equal words the first); then the K symbols.
"""

from dataclasses import dataclass

import numpy as np

SYMBOLS = 16
SPECIAL = 16
NOISE = 16
MARK = 17
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(word: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser."""
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


def keys(purpose: str, seed: int, first: int, count: int) -> np.ndarray:
    """Keys [count] of the instances `first`.. of a seed; those of different purposes ("train", "test") are unrelated."""
    word = np.array([int.from_bytes(purpose.encode(), "big") ^ seed], np.uint64)
    return mix(mix(word) + np.arange(first, first + count, dtype=np.uint64))


def words(key: np.ndarray, count: int) -> np.ndarray:
    """The first words [B, count] of keys [B]."""
    return mix(key[:, None] + np.arange(1, count + 1, dtype=np.uint64) * GOLDEN)


def below(word: np.ndarray, bound: int) -> np.ndarray:
    """Whole numbers in 0..bound; bound below 2^32."""
    half, bound = np.uint64(32), np.uint64(bound)
    low = (word & np.uint64(0xFFFFFFFF)) * bound >> half
    return (((word >> half) * bound + low) >> half).astype(np.int64)


@dataclass(frozen=True)
class Task:
    """A task; `items` is K, and 1 for induction."""

    name: str
    items: int

    @property
    def vocab(self) -> int:
        return {"induction": SPECIAL, "copying": MARK}[self.name] + 1

    def instances(self, key: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens [B, T] of keys [B], and the answers [B, K] to the last K of them."""
        rows = np.arange(len(key))[:, None]
        if self.name == "induction":
            drawn = words(key, length + 1)
            place = below(drawn[:, :1], length - 2)
            tokens = below(drawn[:, 1:], SYMBOLS)
            answers = tokens[rows, place + 1]
            tokens[rows, place] = SPECIAL
            tokens[:, -1] = SPECIAL
            return tokens, answers
        drawn = words(key, length + self.items)
        places = np.sort(np.argsort(drawn[:, :length], axis=1, kind="stable")[:, : self.items], axis=1)
        answers = below(drawn[:, length:], SYMBOLS)
        tokens = np.full((len(key), length + self.items), NOISE)
        tokens[rows, places] = answers
        tokens[:, length:] = MARK
        return tokens, answers


def examples() -> dict:
    """What `task-examples.json` holds: the first two instances of seed 1, of each task at two lengths."""
    result = {}
    for task in (Task("induction", 1), Task("copying", 4)):
        for length in (8, 21):
            tokens, answers = task.instances(keys("test", 1, 0, 2), length)
            result[f"{task.name} {length} {task.items}"] = [
                {"tokens": row.tolist(), "answers": answer.tolist()} for row, answer in zip(tokens, answers)
            ]
    return result
