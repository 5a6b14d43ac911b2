"""Loads an exported folder by other means than it was trained by: are its logits the training model's, and how good is it?

Where the transformers library knows the architecture, it is the judge; for RWKV-7, rwkv7_steps.py is.
"""

import json
import os
from pathlib import Path

# The library compiles its quantisers; eager code needs no compiler and rounds as the formulas say.
os.environ["TORCHDYNAMO_DISABLE"] = "1"

import torch
import torch.nn.functional as F
from torch import nn
from transformers import BitNetForCausalLM, Mamba2ForCausalLM

from corpus import Corpus, bits_per_byte, windows
from language_model import LanguageModel
from rwkv7_steps import Steps

LIBRARY = {"bitnet": BitNetForCausalLM, "mamba2": Mamba2ForCausalLM}


class Library(nn.Module):
    """Token ids [B, T] to logits [B, T, V], computed in f32 by the transformers library."""

    def __init__(self, kind: str, folder: Path):
        super().__init__()
        self.model = LIBRARY[kind].from_pretrained(folder, dtype=torch.float32).to(torch.float32).eval()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model(tokens, use_cache=False).logits.float()


def load(folder: Path) -> nn.Module:
    """The folder's model as others see it: token ids [B, T] to logits [B, T, V]."""
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    return Library(kind, folder) if kind in LIBRARY else Steps(folder)


@torch.no_grad()
def verify(folder: Path, trained: LanguageModel, corpus: Corpus, context: int) -> dict[str, float]:
    """Prints how far the judge's logits lie from the training model's; returns held-out bits per byte by source.

    A model may differ by the rounding of its weights to bf16; a BitNet by that of its scales, embeddings and norms,
    and by whole steps of an activation that falls on the other side of a rounding boundary. A difference of more than
    half a per cent in the loss means that the export is wrong, and is refused.
    """
    exported = load(folder)

    def nats(tokens: torch.Tensor) -> torch.Tensor:
        logits = exported(tokens[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")

    for name, stream in corpus.held_out.items():
        tokens = windows(stream, context)[:8]
        ours, theirs = trained.logits(trained(tokens[:, :-1])), exported(tokens[:, :-1])
        loss = [float(F.cross_entropy(x.flatten(0, 1), tokens[:, 1:].flatten())) for x in (ours, theirs)]
        same = float((ours.argmax(-1) == theirs.argmax(-1)).float().mean())
        print(
            f"{folder.name}  {name}: {tokens[:, 1:].numel()} tokens; nats a token {loss[0]:.5f} trained, {loss[1]:.5f} "
            f"exported ({100 * (loss[1] / loss[0] - 1):+.3f} %); logits of std {float(ours.std()):.3f} differ by "
            f"{float((ours - theirs).abs().mean()):.5f} on average, {float((ours - theirs).abs().max()):.4f} at most; "
            f"same first choice {same:.4f}"
        )
        if abs(loss[1] / loss[0] - 1) > 0.005:
            raise SystemExit(f"{folder}: the exported model's loss on {name} is not the trained model's")

    bits = bits_per_byte(corpus, context, nats)
    trained_bits = bits_per_byte(corpus, context, lambda tokens: trained.loss(tokens, reduction="sum"))
    for name in bits:
        print(f"{folder.name}  {name}: bits per byte {bits[name]:.5f} exported, {trained_bits[name]:.5f} trained")
    return bits
