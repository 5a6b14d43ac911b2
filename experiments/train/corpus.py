"""The text: which bytes of which files are trained on, which are held out, and how both become tokens.

Every source is cut into documents (a chapter, an article, a paragraph, a story) by one regular expression over its
bytes. The last documents of a source, about one twentieth of its bytes, are held out: never trained on, neither the
model nor the tokenizer. The WikiText test split is not a source at all.
"""

import hashlib
import math
import random
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from language_model import END_OF_TEXT

HELD_OUT_SHARE = 0.05


@dataclass(frozen=True)
class Source:
    """One text file: the byte range used, and what separates its documents (a match is dropped; most are empty)."""

    name: str
    file: str
    sha256: str
    licence: str
    start: int
    end: int
    boundary: bytes

    def documents(self, folder: Path) -> list[tuple[int, bytes]]:
        """(offset in the file, bytes) of every document, in the file's order."""
        path = folder / self.file
        content = path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256:
            raise SystemExit(f"{path}: expected sha256 {self.sha256}, found {found}")
        cuts = [(self.start, self.start)]
        cuts += [m.span() for m in re.finditer(self.boundary, content) if self.start < m.start() and m.end() < self.end]
        ends = [start for start, _ in cuts[1:]] + [self.end]
        return [(start, content[start:end]) for (_, start), end in zip(cuts, ends)]

    def split(self, folder: Path) -> tuple[list[bytes], list[bytes], tuple[int, int]]:
        """Training documents, held-out documents, and the byte range [start, end) of the latter."""
        documents = self.documents(folder)
        edge = self.end - HELD_OUT_SHARE * (self.end - self.start)
        first = next(i for i, (offset, _) in enumerate(documents) if offset >= edge)
        contents = [content for _, content in documents]
        return contents[:first], contents[first:], (documents[first][0], self.end)


SOURCES = [
    # From the first chapter to the last word: without the publisher's header, table of contents and closing licence.
    Source(
        name="warandpeace",
        file="warandpeace/warandpeace.txt",
        sha256="bf5b273d9246268f96663c43c00a1055ae2e42c2262be32f7e43b48dd123451a",
        licence="public domain",
        start=7277,
        end=3274726,
        boundary=rb"(?m)^(?=CHAPTER [IVXL]+$)",
    ),
    Source(
        name="wikitext-train",
        file="wikitext2/train_sample_5k.txt",
        sha256="ed14f9ef053842b47270b885f9d4120f4bf6a5b9a00d19e786eb39144ec10cd3",
        licence="CC-BY-SA-3.0 and GFDL",
        start=0,
        end=2887164,
        boundary=rb"(?<=\n\n)(?=.)",
    ),
    Source(
        name="wikitext-valid",
        file="wikitext2/wiki.valid.raw",
        sha256="4cd0f6876d07a413aa911261ff6d363c72d757d47f0fdd6015702014c89cb9c7",
        licence="CC-BY-SA-3.0 and GFDL",
        start=0,
        end=1146846,
        boundary=rb"(?m)^(?= = [^=\n]+ = $)",
    ),
    # Up to the last separator: the story after it is cut short.
    Source(
        name="tinystories",
        file="tinystories_sample/tinystories_sample.txt",
        sha256="5352b299dcb1a32898b2d779b145b5a05f3e1265953fd21c264c9f9f9c9ae33d",
        licence="CDLA-Sharing-1.0",
        start=0,
        end=2096331,
        boundary=rb"\n<\|endoftext\|>\n",
    ),
]


def encode(tokenizer: Tokenizer, documents: list[bytes]) -> list[torch.Tensor]:
    """Token ids of each document, `END_OF_TEXT` first."""
    texts = [content.decode("utf-8") for content in documents]
    return [torch.tensor([END_OF_TEXT] + code.ids) for code in tokenizer.encode_batch(texts)]


def windows(stream: torch.Tensor, context: int) -> torch.Tensor:
    """Windows [n, context + 1] that overlap by one token, so that each token but the first is predicted once.

    What is left over at the end, less than one window, is dropped.
    """
    return stream.unfold(0, context + 1, context)


class Corpus:
    """The training text as batches in a seeded order, and the held-out text as one stream for each source."""

    def __init__(self, folder: Path, tokenizer: Tokenizer):
        self.training: list[torch.Tensor] = []
        self.held_out: dict[str, torch.Tensor] = {}
        self.held_out_bytes: dict[str, int] = {}
        for source in SOURCES:
            training, held_out, _ = source.split(folder)
            self.training += encode(tokenizer, training)
            self.held_out[source.name] = torch.cat(encode(tokenizer, held_out))
            self.held_out_bytes[source.name] = sum(map(len, held_out))

    def tokens(self) -> int:
        """Training tokens in one epoch."""
        return sum(map(len, self.training))

    def batches(self, size: int, context: int, seed: int):
        """Batches [size, context + 1] without end. Every epoch shuffles the documents, joins them, cuts the stream
        into windows and shuffles those; the order is a function of the seed alone."""
        epoch = 0
        while True:
            order = random.Random(f"{seed}/{epoch}")
            stream = torch.cat(order.sample(self.training, len(self.training)))
            cut = windows(stream, context)
            rows = order.sample(range(len(cut)), len(cut))
            for i in range(0, len(rows) - size + 1, size):
                yield cut[rows[i : i + size]]
            epoch += 1


def bits_per_byte(corpus: Corpus, context: int, nats) -> dict[str, float]:
    """Held-out bits per byte of each source and, under "all", of their sum.

    `nats(tokens)` gives the summed cross entropy of tokens[:, 1:] for windows [B, T + 1]. A source is one stream of
    `END_OF_TEXT` and document, one after the other, cut into windows of `context` predictions (the last one shorter);
    nothing is carried from one window to the next. The cost of predicting `END_OF_TEXT` is counted; the bytes that
    separate documents in the file are not.
    """
    bits, result = {}, {}
    for name, stream in corpus.held_out.items():
        whole = windows(stream, context)
        rest = stream[len(whole) * context :]
        total = sum(float(nats(batch)) for batch in whole.split(8))
        total += float(nats(rest[None])) if len(rest) > 1 else 0.0
        bits[name] = total / math.log(2.0)
        result[name] = bits[name] / corpus.held_out_bytes[name]
    result["all"] = sum(bits.values()) / sum(corpus.held_out_bytes.values())
    return result
