"""Trains the byte-level BPE tokenizer on the training part of the text and writes `tokenizer.json`.

Any byte string that is UTF-8 goes through and comes back unchanged: the alphabet has all 256 bytes, no character is
normalised and no space is added in front.
"""

import argparse
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from corpus import SOURCES
from language_model import END_OF_TEXT


def train(folder: Path, vocab: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[AddedToken("<|endoftext|>", normalized=False, special=True)],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    documents = (content.decode("utf-8") for source in SOURCES for content in source.split(folder)[0])
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def check(tokenizer: Tokenizer, folder: Path) -> None:
    """Every held-out document, and some unusual text, must come back unchanged."""
    assert tokenizer.token_to_id("<|endoftext|>") == END_OF_TEXT
    texts = [content.decode("utf-8") for source in SOURCES for content in source.split(folder)[1]]
    for text in texts + ["", " ", "\n\n\t x", "naïve Ω 漢字 🙂", "\u0000\u00ad\ufeff", "e\u0301", "don't  stop "]:
        if tokenizer.decode(tokenizer.encode(text).ids) != text:
            raise SystemExit(f"the tokenizer does not round-trip {text[:80]!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder that holds the source texts")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to write tokenizer.json")
    parser.add_argument("--vocab", type=int, default=4096, help="number of tokens (default %(default)s)")
    arguments = parser.parse_args()
    tokenizer = train(arguments.data, arguments.vocab)
    check(tokenizer, arguments.data)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(arguments.out))
    print(f"{arguments.out}: {tokenizer.get_vocab_size()} tokens, {arguments.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
