"""Loads an exported folder with the transformers library: are its logits the training model's, and how good is it?"""

import os
from pathlib import Path

# The library compiles its quantisers; eager code needs no compiler and rounds as the formulas say.
os.environ["TORCHDYNAMO_DISABLE"] = "1"

import torch
import torch.nn.functional as F
from transformers import BitNetForCausalLM

from corpus import Corpus, bits_per_byte, windows
from model import Transformer


def load(folder: Path) -> BitNetForCausalLM:
    """The folder's model as the library sees it, computing in f32."""
    return BitNetForCausalLM.from_pretrained(folder, dtype=torch.float32).to(torch.float32).eval()


@torch.no_grad()
def verify(folder: Path, trained: Transformer, corpus: Corpus, context: int) -> dict[str, float]:
    """Prints how far the library's logits lie from the training model's; returns held-out bits per byte by source.

    The twin may differ by the rounding of its weights to bf16; a BitNet by that of its scales, embeddings and norms,
    and by whole steps of an activation that falls on the other side of a rounding boundary. A difference of more than
    half a per cent in the loss means that the export is wrong, and is refused.
    """
    exported = load(folder)

    def nats(tokens: torch.Tensor) -> torch.Tensor:
        logits = exported(tokens[:, :-1]).logits.float()
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")

    for name, stream in corpus.held_out.items():
        tokens = windows(stream, context)[:8]
        ours, theirs = trained.logits(trained(tokens[:, :-1])), exported(tokens[:, :-1]).logits.float()
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
