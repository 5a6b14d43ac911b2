"""RWKV-7 token by token, from the published tensors: the equations as they stand, to judge the block form by.

Source: BlinkDL/RWKV-LM, RWKV-v7/rwkv_v7_demo_rnn.py (Apache-2.0); arXiv 2503.14456, section 4.

Shapes: B sequences, C model width, H heads of width N, V vocabulary; a state is [B, H, N values, N keys].
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn


class Steps(nn.Module):
    """Token ids [B, T] to logits [B, T, V], computed in f32."""

    def __init__(self, folder: Path):
        super().__init__()
        self.config = json.loads((folder / "config.json").read_text())
        self.tensors = {name: x.float() for name, x in load_file(folder / "model.safetensors").items()}

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        return F.layer_norm(x, x.shape[-1:], weight, bias, self.config["layer_norm_epsilon"])

    def time_mix(self, layer: int, x, before, state, first_values):
        """One token x [B, C] after `before`; answers with the output, the next state and the first layer's values."""
        p = {
            name.removeprefix(f"blocks.{layer}.att."): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(f"blocks.{layer}.att.")
        }
        heads = (-1, self.config["head_dim"])
        xr, xw, xk, xv, xa, xg = (x + (before - x) * p[f"x_{name}"] for name in "rwkvag")
        r, k, v = xr @ p["receptance.weight"].T, xk @ p["key.weight"].T, xv @ p["value.weight"].T
        w = torch.exp(-0.606531 * torch.sigmoid(p["w0"] + torch.tanh(xw @ p["w1"]) @ p["w2"]))
        a = torch.sigmoid(p["a0"] + xa @ p["a1"] @ p["a2"])
        g = torch.sigmoid(xg @ p["g1"]) @ p["g2"]
        kk = F.normalize((k * p["k_k"]).unflatten(-1, heads), dim=-1, eps=1e-12)
        k = k * (1 + (a - 1) * p["k_a"])
        if layer == 0:
            first_values = v
        else:
            v = v + (first_values - v) * torch.sigmoid(p["v0"] + xv @ p["v1"] @ p["v2"])
        r, w, k, v, a = (y.unflatten(-1, heads) for y in (r, w, k, v, a))
        removed = (state * kk[..., None, :]).sum(-1)
        state = state * w[..., None, :] - removed[..., None] * (kk * a)[..., None, :] + v[..., None] * k[..., None, :]
        y = (state * r[..., None, :]).sum(-1)
        count, eps = y.shape[1], self.config["group_norm_eps"]
        y = F.group_norm(y.flatten(1), count, p["ln_x.weight"], p["ln_x.bias"], eps)
        y = y + ((r * k * p["r_k"]).sum(-1, keepdim=True) * v).flatten(1)
        return (y * g) @ p["output.weight"].T, state, first_values

    @torch.no_grad()
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        rows, width, layers = len(tokens), self.config["hidden_size"], self.config["num_hidden_layers"]
        n = self.config["head_dim"]
        states = [torch.zeros(rows, width // n, n, n) for _ in range(layers)]
        time_before, channel_before = ([torch.zeros(rows, width) for _ in range(layers)] for _ in range(2))
        logits = []
        for token in tokens.T:
            x, first_values = self.norm(self.tensors["emb.weight"][token], "blocks.0.ln0"), None
            for i in range(layers):
                h = self.norm(x, f"blocks.{i}.ln1")
                y, states[i], first_values = self.time_mix(i, h, time_before[i], states[i], first_values)
                x, time_before[i] = x + y, h
                h = self.norm(x, f"blocks.{i}.ln2")
                mixed = h + (channel_before[i] - h) * self.tensors[f"blocks.{i}.ffn.x_k"]
                inner = F.relu(mixed @ self.tensors[f"blocks.{i}.ffn.key.weight"].T).square()
                x, channel_before[i] = x + inner @ self.tensors[f"blocks.{i}.ffn.value.weight"].T, h
            logits.append(self.norm(x, "ln_out") @ self.tensors["head.weight"].T)
        return torch.stack(logits, 1)
