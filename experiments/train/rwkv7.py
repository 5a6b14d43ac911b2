"""RWKV-7 for training: the recurrence in blocks of tokens, which are matrix products.

Paper: "RWKV-7 Goose with Expressive Dynamic State Evolution" (arXiv 2503.14456); first values of the parameters as in its
author's training program. The block form is the one of gated delta rules ("WY representation", arXiv 2406.06484).

Shapes: B sequences, T tokens, C model width, H heads of width N.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from language_model import END_OF_TEXT, LanguageModel


@dataclass(frozen=True)
class Shape:
    """Sizes of a model."""

    vocab: int = 4096
    width: int = 256
    inner: int = 768
    layers: int = 4
    head_width: int = 64
    decay_rank: int = 32
    rate_rank: int = 32
    value_rank: int = 16
    gate_rank: int = 64
    # Decays of a block are multiplied up: exp(0.6065 * 16) is the most that a number grows or shrinks by.
    block: int = 16
    norm_eps: float = 1e-5
    head_eps: float = 64e-5

    @property
    def heads(self) -> int:
        return self.width // self.head_width


def recurrence(r, log_w, k, v, a, b, block: int):
    """y_t = r_t S_t, where S_t = diag(w_t) S_(t-1) + b_t^T (a_t S_(t-1)) + k_t^T v_t for each head, from S = 0.

    All [B, T, H, N], rows; S [N, N] from keys to values; w = exp(log_w) in (0.545, 1). With g_t the product of w up to t
    and Z = S / g, the decays disappear: Z_t = Z_(t-1) + (b_t / g_t)^T (a_t g_(t-1) Z_(t-1)) + (k_t / g_t)^T v_t, and the
    rows u_t = a_t g_(t-1) Z_(t-1) of a block solve a triangular system.
    """
    tokens = r.shape[1]
    missing = -tokens % block
    r, log_w, k, v, a, b = (
        F.pad(x, (0, 0, 0, 0, 0, missing)).unflatten(1, (-1, block)).permute(0, 3, 1, 2, 4)
        for x in (r, log_w, k, v, a, b)
    )
    total = log_w.cumsum(-2)
    grown, shrunk, last = total.exp(), (-total).exp(), total[..., -1:, :].exp().mT
    r, a, k, b = r * grown, a * (total - log_w).exp(), k * shrunk, b * shrunk
    unit = torch.eye(block, device=r.device)
    known = torch.cat((a, (a @ k.mT).tril(-1) @ v), dim=-1)
    # u = from_state @ Z + alone, Z the state before the block.
    solved = torch.linalg.solve_triangular(unit - (a @ b.mT).tril(-1), known, upper=False, unitriangular=True)
    from_state, alone = solved.chunk(2, dim=-1)
    removed = (r @ b.mT).tril()
    y = removed @ alone + (r @ k.mT).tril() @ v
    read = r + removed @ from_state
    kept = last * (torch.eye(r.shape[-1], device=r.device) + b.mT @ from_state)
    added = last * (b.mT @ alone + k.mT @ v)
    state, states = torch.zeros_like(added[:, :, 0]), []
    for i in range(added.shape[2]):
        states.append(state)
        state = kept[:, :, i] @ state + added[:, :, i]
    y = y + read @ torch.stack(states, 2)
    return y.permute(0, 2, 3, 1, 4).flatten(1, 2)[:, :tokens]


def before(x: torch.Tensor) -> torch.Tensor:
    """Each token's predecessor; zeros before the first."""
    return F.pad(x, (0, 0, 1, -1))


def first_shares(width: int, power: float) -> nn.Parameter:
    """Shares of the predecessor in an input: few in the first channels, most in the last."""
    return nn.Parameter(1.0 - (torch.arange(width) / width) ** power)


def low_rank(width: int, rank: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Two matrices whose product [C, C] is zero at first."""
    up = torch.empty(rank, width)
    nn.init.orthogonal_(up, gain=0.1 * max(1.0, rank / width) ** 0.5)
    return nn.Parameter(torch.zeros(width, rank)), nn.Parameter(up)


class TimeMix(nn.Module):
    def __init__(self, shape: Shape, index: int):
        super().__init__()
        self.shape = shape
        width = shape.width
        depth, rest = index / max(1, shape.layers - 1), 1.0 - index / shape.layers
        for name, power in (("r", 0.2), ("w", 0.9), ("k", 0.7), ("v", 0.7), ("a", 0.9), ("g", 0.2)):
            setattr(self, f"x_{name}", first_shares(width, power * rest))
        place = torch.arange(width) / (width - 1)
        self.w0 = nn.Parameter(-6.5 + 5.0 * place ** (0.85 + depth**0.5))
        self.w1, self.w2 = low_rank(width, shape.decay_rank)
        self.a0 = nn.Parameter(torch.zeros(width))
        self.a1, self.a2 = low_rank(width, shape.rate_rank)
        if index > 0:
            self.v0 = nn.Parameter(torch.ones(width))
            self.v1, self.v2 = low_rank(width, shape.value_rank)
        self.g1, self.g2 = low_rank(width, shape.gate_rank)
        self.k_k = nn.Parameter(torch.full((width,), 0.85))
        self.k_a = nn.Parameter(torch.ones(width))
        self.r_k = nn.Parameter(torch.zeros(width))
        self.receptance, self.key, self.value, self.output = (nn.Linear(width, width, bias=False) for _ in range(4))
        for linear, size in ((self.receptance, 0.5), (self.key, 0.05), (self.value, 0.5)):
            nn.init.uniform_(linear.weight, -size * width**-0.5, size * width**-0.5)
        nn.init.zeros_(self.output.weight)
        self.ln_x = nn.GroupNorm(shape.heads, width, eps=shape.head_eps)
        nn.init.constant_(self.ln_x.weight, ((1 + index) / shape.layers) ** 0.7)

    def forward(self, x: torch.Tensor, first_values: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        def mixed(share):
            return x + change * share

        def heads(y):
            return y.float().unflatten(-1, (-1, self.shape.head_width))

        change = before(x) - x
        r, k, v = self.receptance(mixed(self.x_r)), self.key(mixed(self.x_k)), self.value(mixed(self.x_v))
        log_w = -0.606531 * torch.sigmoid((self.w0 + torch.tanh(mixed(self.x_w) @ self.w1) @ self.w2).float())
        rate = torch.sigmoid(self.a0 + mixed(self.x_a) @ self.a1 @ self.a2)
        gate = torch.sigmoid(mixed(self.x_g) @ self.g1) @ self.g2
        if first_values is None:
            first_values = v
        else:
            v = v + (first_values - v) * torch.sigmoid(self.v0 + mixed(self.x_v) @ self.v1 @ self.v2)
        removed = F.normalize(heads(k * self.k_k), dim=-1, eps=1e-12)
        k = k * (1.0 + (rate - 1.0) * self.k_a)
        r, k, v = heads(r), heads(k), heads(v)
        y = recurrence(r, heads(log_w), k, v, -removed, removed * heads(rate), self.shape.block)
        y = self.ln_x(y.flatten(2).flatten(0, 1)).view_as(x)
        y = y + ((r * k * heads(self.r_k)).sum(-1, keepdim=True) * v).flatten(2)
        return self.output(y * gate), first_values


class ChannelMix(nn.Module):
    def __init__(self, shape: Shape, index: int):
        super().__init__()
        self.x_k = first_shares(shape.width, (1.0 - index / shape.layers) ** 4)
        self.key = nn.Linear(shape.width, shape.inner, bias=False)
        self.value = nn.Linear(shape.inner, shape.width, bias=False)
        nn.init.uniform_(self.key.weight, -0.5 * shape.width**-0.5, 0.5 * shape.width**-0.5)
        nn.init.zeros_(self.value.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.value(F.relu(self.key(x + (before(x) - x) * self.x_k)).square())


class Block(nn.Module):
    def __init__(self, shape: Shape, index: int):
        super().__init__()
        if index == 0:
            self.ln0 = nn.LayerNorm(shape.width, eps=shape.norm_eps)
        self.ln1, self.ln2 = (nn.LayerNorm(shape.width, eps=shape.norm_eps) for _ in range(2))
        self.att = TimeMix(shape, index)
        self.ffn = ChannelMix(shape, index)

    def forward(self, x: torch.Tensor, first_values: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        if hasattr(self, "ln0"):
            x = self.ln0(x)
        mixed, first_values = self.att(self.ln1(x), first_values)
        x = x + mixed
        return x + self.ffn(self.ln2(x)), first_values


class Rwkv7(LanguageModel):
    """RWKV-7 ("x070"), with a head of its own."""

    def __init__(self, shape: Shape):
        super().__init__(shape.vocab, shape.width)
        self.shape = shape
        nn.init.uniform_(self.embed_tokens.weight, -1e-4, 1e-4)
        self.layers = nn.ModuleList(Block(shape, index) for index in range(shape.layers))
        self.ln_out = nn.LayerNorm(shape.width, eps=shape.norm_eps)
        self.lm_head = nn.Linear(shape.width, shape.vocab, bias=False)
        nn.init.orthogonal_(self.lm_head.weight, gain=0.5 * max(1.0, shape.vocab / shape.width) ** 0.5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x, first_values = self.embed_tokens(tokens), None
        for block in self.layers:
            x, first_values = block(x, first_values)
        return self.ln_out(x)

    def head(self) -> torch.Tensor:
        return self.lm_head.weight

    def tensors(self) -> dict[str, torch.Tensor]:
        """As the author of RWKV names them, in bf16."""
        published = {"layers.": "blocks.", "embed_tokens.": "emb.", "lm_head.": "head."}
        result = {}
        for name, parameter in self.named_parameters():
            for ours, theirs in published.items():
                if name.startswith(ours):
                    name = theirs + name.removeprefix(ours)
            if name.endswith(".r_k"):
                parameter = parameter.unflatten(0, (self.shape.heads, self.shape.head_width))
            result[name] = parameter.detach().to(torch.bfloat16).contiguous()
        return result

    def config(self) -> dict:
        shape = self.shape
        return {
            "model_type": "rwkv7",
            "vocab_size": shape.vocab,
            "hidden_size": shape.width,
            "intermediate_size": shape.inner,
            "num_hidden_layers": shape.layers,
            "head_dim": shape.head_width,
            "decay_low_rank_dim": shape.decay_rank,
            "a_low_rank_dim": shape.rate_rank,
            "v_low_rank_dim": shape.value_rank,
            "gate_low_rank_dim": shape.gate_rank,
            "layer_norm_epsilon": shape.norm_eps,
            "group_norm_eps": shape.head_eps,
            "bos_token_id": END_OF_TEXT,
            "eos_token_id": END_OF_TEXT,
        }
