"""Promises about the synthetic tasks: `python -m unittest`."""

import json
import unittest
from pathlib import Path

import numpy as np

from tasks import MARK, NOISE, SPECIAL, SYMBOLS, Task, examples, keys


class Promises(unittest.TestCase):
    def test_instances_are_those_that_the_experiment_asks(self):
        committed = json.loads(Path(__file__).with_name("task-examples.json").read_text())
        self.assertEqual(examples(), committed)

    def test_the_answer_stands_in_the_text(self):
        tokens, answers = Task("induction", 1).instances(keys("train", 3, 0, 500), 12)
        for row, answer in zip(tokens, answers):
            first, last = np.flatnonzero(row == SPECIAL)
            self.assertEqual((last, row[first + 1]), (11, answer[0]))
        tokens, answers = Task("copying", 5).instances(keys("train", 3, 0, 500), 12)
        for row, answer in zip(tokens, answers):
            self.assertEqual(row[row < SYMBOLS].tolist(), answer.tolist())
            self.assertEqual(((row == NOISE).sum(), row[-5:].tolist()), (7, [MARK] * 5))

    def test_training_and_examination_draw_from_other_keys(self):
        self.assertFalse(set(keys("train", 1, 0, 100_000).tolist()) & set(keys("test", 1, 0, 1000).tolist()))


if __name__ == "__main__":
    unittest.main()
