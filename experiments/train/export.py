"""Turns a training run into a model folder: weights, configuration, tokenizer and card.

The folder is in the published form of its architecture: see `tensors` and `config` of each model. The written files are
then loaded by a program of others where there is one (verify.py), compared with the training model, and scored on the
held-out text: the card's figures are those of the files, not of the training run.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from card import write_card
from corpus import Corpus
from kinds import of_run
from verify import verify


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="folder written by train.py")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder that holds the source texts")
    parser.add_argument("--tokenizer", type=Path, required=True, metavar="FILE", help="the tokenizer.json trained with")
    parser.add_argument("--hardware", required=True, metavar="TEXT", help="what the run ran on, for the card")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="model folder; its name names the model")
    arguments = parser.parse_args()

    run = json.loads((arguments.run / "run.json").read_text())
    model = of_run(run)
    model.load_state_dict(torch.load(arguments.run / "checkpoint.pt", map_location="cpu", weights_only=True))

    arguments.out.mkdir(parents=True, exist_ok=True)
    save_file(model.tensors(), arguments.out / "model.safetensors", metadata={"format": "pt"})
    (arguments.out / "model.safetensors").chmod(0o644)
    (arguments.out / "config.json").write_text(json.dumps(model.config(), indent=2) + "\n")
    shutil.copyfile(arguments.tokenizer, arguments.out / "tokenizer.json")

    corpus = Corpus(arguments.data, Tokenizer.from_file(str(arguments.tokenizer)))
    bits = verify(arguments.out, model, corpus, run["settings"]["context"])
    parameters = sum(p.numel() for p in model.parameters())
    write_card(arguments.out, run, parameters, bits, arguments.data, arguments.hardware)


if __name__ == "__main__":
    main()
