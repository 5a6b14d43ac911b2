"""What all trained models share: an embedding, a head, the cost of a text, and how they are written down.

Shapes: B sequences, T tokens, V vocabulary, D model width.
"""

import torch
import torch.nn.functional as F
from torch import nn

END_OF_TEXT = 0
"""Token id of `<|endoftext|>`; it stands before every document."""


class RmsNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis, in f32."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x.float(), (x.shape[-1],), self.weight, self.eps)


class LanguageModel(nn.Module):
    """Token ids [B, T] to the final normalised hidden states [B, T, D]; `logits` turns those into [B, T, V].

    A subclass keeps its blocks in `layers` and says how it is published: `tensors` under their published names, and the
    `config` that stands beside them.
    """

    def __init__(self, vocab: int, width: int):
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab, width)
        nn.init.normal_(self.embed_tokens.weight, std=0.02)

    def head(self) -> torch.Tensor:
        """The matrix [V, D] that turns hidden states into logits."""
        raise NotImplementedError

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor under its published name, in its published form."""
        raise NotImplementedError

    def config(self) -> dict:
        """What config.json says."""
        raise NotImplementedError

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return F.linear(hidden, self.head())

    def loss(self, tokens: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
        """Cross entropy in nats of tokens[:, 1:] given what comes before; tokens [B, T + 1]."""
        logits = self.logits(self(tokens[:, :-1])).float()
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction=reduction)
