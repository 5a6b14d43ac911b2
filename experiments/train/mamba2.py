"""Mamba-2 for training: the recurrence in blocks of tokens, which are matrix products.

Paper: "Transformers are SSMs" (arXiv 2405.21060): section 6 has the block form, section 7 the layer; one group.

Shapes: B sequences, T tokens, D model width, E = H P inner width of H heads, N states, K taps of the convolution.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from language_model import END_OF_TEXT, LanguageModel, RmsNorm


@dataclass(frozen=True)
class Shape:
    """Sizes of a model."""

    vocab: int = 4096
    width: int = 256
    layers: int = 9
    heads: int = 8
    head_width: int = 64
    states: int = 64
    taps: int = 4
    block: int = 64
    norm_eps: float = 1e-5

    @property
    def inner(self) -> int:
        return self.heads * self.head_width


def scan(u, dt, rates, keys, queries, block: int):
    """y_t = S_t C_t, where S_t = exp(dt_t a) S_(t-1) + dt_t u_t B_t^T for each head, from S = 0.

    u [B, T, H, P], dt [B, T, H], a = `rates` [H] below 0, B = `keys` and C = `queries` [B, T, N]; answers [B, T, H, P].
    Within a block of tokens the outputs are (C B^T masked by decays) (dt u); only states pass from block to block.
    """
    tokens = u.shape[1]
    missing = -tokens % block
    # A token with dt = 0 leaves the state as it is.
    u, dt, keys, queries = (F.pad(x, (0, 0) * (x.ndim - 2) + (0, missing)) for x in (u, dt, keys, queries))
    inputs = (u * dt[..., None]).unflatten(1, (-1, block)).permute(0, 3, 1, 2, 4)
    keys, queries = (x.unflatten(1, (-1, block))[:, None] for x in (keys, queries))
    decay = (dt * rates).unflatten(1, (-1, block)).permute(0, 3, 1, 2).cumsum(-1)
    past = torch.ones(block, block, dtype=torch.bool, device=u.device).tril()
    between = (decay[..., :, None] - decay[..., None, :]).masked_fill(~past, -torch.inf).exp()
    y = (queries @ keys.mT * between) @ inputs
    kept, whole = (decay[..., -1:] - decay).exp(), decay[..., -1].exp()
    added = keys.mT @ (inputs * kept[..., None])
    state, states = torch.zeros_like(added[:, :, 0]), []
    for i in range(added.shape[2]):
        states.append(state)
        state = whole[:, :, i, None, None] * state + added[:, :, i]
    y = y + decay.exp()[..., None] * (queries @ torch.stack(states, 2))
    return y.permute(0, 2, 3, 1, 4).flatten(1, 2)[:, :tokens]


class Mixer(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = shape
        channels = shape.inner + 2 * shape.states
        inputs = shape.inner + channels + shape.heads
        self.in_proj = nn.Linear(shape.width, inputs, bias=False)
        self.conv1d = nn.Conv1d(channels, channels, shape.taps, groups=channels, padding=shape.taps - 1)
        first = torch.exp(torch.empty(shape.heads).uniform_(math.log(1e-3), math.log(1e-1)))
        self.dt_bias = nn.Parameter(first + torch.log(-torch.expm1(-first)))
        self.A_log = nn.Parameter(torch.empty(shape.heads).uniform_(1.0, 16.0).log())
        self.D = nn.Parameter(torch.ones(shape.heads))
        self.norm = RmsNorm(shape.inner, shape.norm_eps)
        self.out_proj = nn.Linear(shape.inner, shape.width, bias=False)
        nn.init.normal_(self.in_proj.weight, std=shape.width**-0.5)
        nn.init.normal_(self.out_proj.weight, std=shape.inner**-0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape, tokens = self.shape, x.shape[1]
        widths = (shape.inner, shape.inner + 2 * shape.states, shape.heads)
        gate, mixed, dt = self.in_proj(x).float().split(widths, dim=-1)
        mixed = F.silu(self.conv1d(mixed.mT)[..., :tokens].mT)
        u, keys, queries = mixed.split((shape.inner, shape.states, shape.states), dim=-1)
        u = u.unflatten(-1, (shape.heads, shape.head_width))
        y = scan(u, F.softplus(dt + self.dt_bias), -self.A_log.exp(), keys, queries, shape.block)
        y = (y + self.D[:, None] * u).flatten(2)
        return self.out_proj(self.norm(y * F.silu(gate)))


class Block(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.norm = RmsNorm(shape.width, shape.norm_eps)
        self.mixer = Mixer(shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.mixer(self.norm(x))


class Mamba2(LanguageModel):
    """Hugging Face's `Mamba2ForCausalLM` with the embedding as its head."""

    def __init__(self, shape: Shape):
        super().__init__(shape.vocab, shape.width)
        self.shape = shape
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm_f = RmsNorm(shape.width, shape.norm_eps)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed_tokens(tokens)
        for block in self.layers:
            x = block(x)
        return self.norm_f(x)

    def head(self) -> torch.Tensor:
        return self.embed_tokens.weight

    def tensors(self) -> dict[str, torch.Tensor]:
        """As Hugging Face names them; bf16, but what decides decays stays f32, as in its files."""
        result = {}
        for name, parameter in self.named_parameters():
            name = name.replace("embed_tokens", "embeddings")
            exact = name.endswith(("A_log", "dt_bias", ".D"))
            result[f"backbone.{name}"] = parameter.detach().to(torch.float32 if exact else torch.bfloat16).contiguous()
        return result

    def config(self) -> dict:
        shape = self.shape
        return {
            "architectures": ["Mamba2ForCausalLM"],
            "model_type": "mamba2",
            "vocab_size": shape.vocab,
            "hidden_size": shape.width,
            "num_hidden_layers": shape.layers,
            "num_heads": shape.heads,
            "head_dim": shape.head_width,
            "expand": shape.inner // shape.width,
            "n_groups": 1,
            "state_size": shape.states,
            "conv_kernel": shape.taps,
            "chunk_size": shape.block,
            "hidden_act": "silu",
            "layer_norm_epsilon": shape.norm_eps,
            "use_bias": False,
            "use_conv_bias": True,
            "tie_word_embeddings": True,
            "bos_token_id": END_OF_TEXT,
            "eos_token_id": END_OF_TEXT,
            "pad_token_id": END_OF_TEXT,
            "torch_dtype": "bfloat16",
        }
