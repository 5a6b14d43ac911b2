"""The BitNet b1.58 transformer and its full-precision twin, for training.

Both are Hugging Face's `BitNetForCausalLM`: RMSNorm before each block and again before each output projection
(`attn_sub_norm`, `ffn_sub_norm`), grouped-query attention, rotary positions on half-split heads, a squared-ReLU
gate, embeddings shared with the head, no biases. The twin differs in one class: `Linear` where BitNet has `BitLinear`.

Papers: "The Era of 1-bit LLMs" (arXiv 2402.17764) and "BitNet b1.58 2B4T" (arXiv 2504.12285).

Shapes: B sequences, T tokens, V vocabulary, D model width, E inner width, K head width.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from language_model import END_OF_TEXT, LanguageModel, RmsNorm


@dataclass(frozen=True)
class Shape:
    """Sizes of a model; every input and output width of a linear layer is a multiple of 128."""

    vocab: int = 4096
    width: int = 256
    inner: int = 1024
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_width: int = 64
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    max_positions: int = 2048


def ternary(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights [out, in] as codes in {-1, 0, 1} and the scale mean|W| that undoes the division (per tensor, f32)."""
    scale = weight.float().abs().mean().clamp(min=1e-5)
    return (weight.float() / scale).round().clamp(-1, 1), scale


def int8_activations(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations [..., in] as whole numbers in -128..127 and the step max|x| / 127 of each token [..., 1] (f32)."""
    step = x.float().abs().amax(dim=-1, keepdim=True).clamp(min=1e-5) / 127.0
    return (x.float() / step).round().clamp(-128, 127), step


def working_type(x: torch.Tensor) -> torch.dtype:
    """The type that products of x are computed from: autocast's where it is on, else x's own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


class TernaryProduct(torch.autograd.Function):
    """y = q t^T * (step * scale), with the straight-through gradient: the quantisers count as the identity.

    Codes, being whole numbers up to 128 in size, are exact in bfloat16, so under autocast only the product's result
    is rounded, as it is for every other linear layer.
    """

    @staticmethod
    def forward(ctx, codes, step, weight):
        ternary_codes, scale = ternary(weight)
        work = working_type(codes)
        codes, ternary_codes = codes.to(work), ternary_codes.to(work)
        ctx.save_for_backward(codes, step, ternary_codes, scale)
        return (codes @ ternary_codes.T).float() * (step * scale)

    @staticmethod
    def backward(ctx, grad):
        codes, step, ternary_codes, scale = ctx.saved_tensors
        work = codes.dtype
        grad_x = (grad.to(work) @ ternary_codes).float() * scale
        grad_weight = (grad * step).to(work).flatten(0, -2).T @ codes.flatten(0, -2)
        return grad_x, None, grad_weight.float()


class StraightThroughInt8(torch.autograd.Function):
    """`int8_activations` whose first result passes the gradient of the *dequantised* activations to x unchanged."""

    @staticmethod
    def forward(ctx, x):
        codes, step = int8_activations(x)
        ctx.mark_non_differentiable(step)
        return codes, step

    @staticmethod
    def backward(ctx, grad, _):
        return grad


class Linear(nn.Module):
    """y = x W^T; the twin's layer."""

    quantised = False

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * inputs**-0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight)


class BitLinear(Linear):
    """y = Q8(x) T(W)^T: int8 activations per token (absmax), ternary weights per tensor (absmean)."""

    quantised = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        codes, step = StraightThroughInt8.apply(x)
        return TernaryProduct.apply(codes, step, self.weight)


def pack(codes: torch.Tensor) -> torch.Tensor:
    """Codes in {-1, 0, 1} [out, in] as bytes [out/4, in]: bits 2i..2i+1 of row j hold code + 1 of row i * out/4 + j."""
    blocks = (codes + 1).to(torch.uint8).unflatten(0, (4, -1))
    return blocks[0] | blocks[1] << 2 | blocks[2] << 4 | blocks[3] << 6


def rotary(positions: int, head_width: int, theta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin [T, K/2] of the angle position * theta^(-2i/K)."""
    frequency = theta ** (-torch.arange(0, head_width, 2).float() / head_width)
    angle = torch.arange(positions).float()[:, None] * frequency
    return angle.cos(), angle.sin()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turns each pair (x[i], x[i + K/2]) of x [B, heads, T, K] by its position's angle."""
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Attention(nn.Module):
    def __init__(self, shape: Shape, linear: type[Linear]):
        super().__init__()
        queries, keys = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
        self.shape = shape
        self.q_proj, self.k_proj, self.v_proj = (linear(shape.width, n) for n in (queries, keys, keys))
        self.attn_sub_norm = RmsNorm(queries, shape.norm_eps)
        self.o_proj = linear(queries, shape.width)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        def heads(y):
            return y.unflatten(-1, (-1, self.shape.head_width)).transpose(1, 2)

        q, k = (rotate(heads(project(x)), cos, sin) for project in (self.q_proj, self.k_proj))
        v = heads(self.v_proj(x))
        work = working_type(x)
        group = self.shape.heads // self.shape.kv_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        mixed = F.scaled_dot_product_attention(q.to(work), k.to(work), v.to(work), is_causal=True)
        return self.o_proj(self.attn_sub_norm(mixed.transpose(1, 2).flatten(2)))


class FeedForward(nn.Module):
    def __init__(self, shape: Shape, linear: type[Linear]):
        super().__init__()
        self.gate_proj = linear(shape.width, shape.inner)
        self.up_proj = linear(shape.width, shape.inner)
        self.ffn_sub_norm = RmsNorm(shape.inner, shape.norm_eps)
        self.down_proj = linear(shape.inner, shape.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.ffn_sub_norm(F.relu(self.gate_proj(x)).square() * self.up_proj(x)))


class Block(nn.Module):
    def __init__(self, shape: Shape, linear: type[Linear], dropout: float):
        super().__init__()
        self.input_layernorm = RmsNorm(shape.width, shape.norm_eps)
        self.self_attn = Attention(shape, linear)
        self.post_attention_layernorm = RmsNorm(shape.width, shape.norm_eps)
        self.mlp = FeedForward(shape, linear)
        self.dropout = dropout

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        x = x + F.dropout(self.self_attn(self.input_layernorm(x), cos, sin), self.dropout, self.training)
        return x + F.dropout(self.mlp(self.post_attention_layernorm(x)), self.dropout, self.training)


class Transformer(LanguageModel):
    """A BitNet b1.58, or its twin in full precision."""

    def __init__(self, shape: Shape, quantised: bool, dropout: float = 0.0):
        super().__init__(shape.vocab, shape.width)
        self.shape = shape
        self.quantised = quantised
        self.layers = nn.ModuleList(
            Block(shape, BitLinear if quantised else Linear, dropout) for _ in range(shape.layers)
        )
        self.norm = RmsNorm(shape.width, shape.norm_eps)
        cos, sin = rotary(shape.max_positions, shape.head_width, shape.rope_theta)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        cos, sin = self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]]
        x = self.embed_tokens(tokens)
        for block in self.layers:
            x = block(x, cos, sin)
        return self.norm(x)

    def head(self) -> torch.Tensor:
        return self.embed_tokens.weight

    def tensors(self) -> dict[str, torch.Tensor]:
        """As Hugging Face names them. A BitNet is packed: four ternary codes in a byte, one bf16 scale for each matrix, the
        rest bf16; its twin is plain bf16."""
        result = {}
        for name, parameter in self.named_parameters():
            result[f"model.{name}"] = parameter.detach().to(torch.bfloat16)
        for name, module in self.named_modules():
            if isinstance(module, Linear) and module.quantised:
                codes, scale = ternary(module.weight.detach())
                result[f"model.{name}.weight"] = pack(codes)
                result[f"model.{name}.weight_scale"] = scale.to(torch.bfloat16).reshape(1)
        return {name: tensor.contiguous() for name, tensor in result.items()}

    def config(self) -> dict:
        shape = self.shape
        result = {
            "architectures": ["BitNetForCausalLM"],
            "model_type": "bitnet",
            "vocab_size": shape.vocab,
            "hidden_size": shape.width,
            "intermediate_size": shape.inner,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "head_dim": shape.head_width,
            "hidden_act": "relu2",
            "rms_norm_eps": shape.norm_eps,
            "rope_theta": shape.rope_theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
            "max_position_embeddings": shape.max_positions,
            "attention_bias": False,
            "tie_word_embeddings": True,
            "bos_token_id": END_OF_TEXT,
            "eos_token_id": END_OF_TEXT,
            "torch_dtype": "bfloat16",
        }
        if self.quantised:
            result["quantization_config"] = {
                "quant_method": "bitnet",
                "linear_class": "autobitlinear",
                "quantization_mode": "offline",
            }
        return result
