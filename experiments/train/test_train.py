"""Promises of this folder that need neither a trained model nor the texts: `python -m unittest`."""

import json
import tempfile
import unittest
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from corpus import windows
import mamba2
import rwkv7
from muon import Muon
from transformer import BitLinear, Shape, Transformer, pack
from verify import load

SMALL = Shape(vocab=64, width=128, inner=256, layers=2, heads=2, kv_heads=1, max_positions=64)
SMALL_MAMBA2 = mamba2.Shape(vocab=64, width=64, layers=2, heads=4, head_width=32, states=16, block=8)
SMALL_RWKV7 = rwkv7.Shape(vocab=64, width=64, inner=128, layers=2, head_width=32, decay_rank=8, rate_rank=8, value_rank=8)


class Promises(unittest.TestCase):
    def test_the_gradient_is_that_of_the_published_straight_through_form(self):
        torch.manual_seed(1)
        layer, x = BitLinear(128, 64), torch.randn(5, 7, 128, requires_grad=True)
        weight = layer.weight
        per_token = 127 / x.detach().abs().amax(-1, keepdim=True).clamp(min=1e-5)
        per_tensor = 1 / weight.detach().abs().mean().clamp(min=1e-5)
        quantised_x = x + ((x * per_token).round().clamp(-128, 127) / per_token - x).detach()
        quantised_weight = weight + ((weight * per_tensor).round().clamp(-1, 1) / per_tensor - weight).detach()
        expected, found = F.linear(quantised_x, quantised_weight), layer(x)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        direction = torch.randn_like(expected)
        for a, b in zip(*(torch.autograd.grad(y, (x, weight), direction) for y in (found, expected))):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)

    def test_packing_puts_row_blocks_into_bit_pairs(self):
        codes = torch.tensor([-1, 0, 1, 0, 1, -1, 1, 1])[:, None].expand(8, 3)
        expected = [0b10_10_10_00, 0b10_00_01_01]
        self.assertEqual(pack(codes)[:, 0].tolist(), expected)

    def test_an_exported_model_gives_others_the_logits_of_the_trained_one(self):
        torch.manual_seed(2)
        models = [
            (Transformer(SMALL, False), 0.02),
            (Transformer(SMALL, True), 0.1),
            (mamba2.Mamba2(SMALL_MAMBA2), 0.02),
            (rwkv7.Rwkv7(SMALL_RWKV7), 0.02),
        ]
        for model, allowed in models:
            torch.nn.init.normal_(model.eval().embed_tokens.weight)
            for parameter in model.layers.parameters():
                # Nothing may be hidden by a first value of zero.
                parameter.data += 0.05 * torch.randn_like(parameter)
            tokens = torch.randint(0, 64, (2, 33))
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                save_file(model.tensors(), folder / "model.safetensors", metadata={"format": "pt"})
                (folder / "config.json").write_text(json.dumps(model.config()))
                with torch.no_grad():
                    ours, theirs = model.logits(model(tokens)), load(folder)(tokens)
            self.assertLess(float((ours - theirs).abs().mean() / ours.std()), allowed, type(model).__name__)

    def test_blocks_of_tokens_are_the_recurrence_of_mamba2(self):
        torch.manual_seed(3)
        u, dt, rates = torch.randn(2, 37, 3, 8), torch.rand(2, 37, 3), -3 * torch.rand(3)
        keys, queries = torch.randn(2, 37, 5), torch.randn(2, 37, 5)
        state, rows = torch.zeros(2, 3, 8, 5), []
        for t in range(37):
            added = (dt[:, t, :, None] * u[:, t])[..., None] * keys[:, t, None, None]
            state = torch.exp(dt[:, t] * rates)[..., None, None] * state + added
            rows.append((state * queries[:, t, None, None]).sum(-1))
        found = mamba2.scan(u, dt, rates, keys, queries, 16)
        torch.testing.assert_close(found, torch.stack(rows, 1), rtol=1e-4, atol=1e-4)

    def test_blocks_of_tokens_are_the_recurrence_of_rwkv7(self):
        torch.manual_seed(4)
        r, k, v, removed = torch.randn(4, 2, 37, 3, 8)
        log_w, rate = -0.6065 * torch.rand(2, 37, 3, 8), torch.rand(2, 37, 3, 8)
        removed = F.normalize(removed, dim=-1)
        state, rows = torch.zeros(2, 3, 8, 8), []
        for t in range(37):
            gone = (removed[:, t, ..., None] * state).sum(-2, keepdim=True)
            state = log_w[:, t].exp()[..., None] * state - (removed * rate)[:, t, ..., None] * gone
            state = state + k[:, t, ..., None] * v[:, t, :, None]
            rows.append((r[:, t, ..., None] * state).sum(-2))
        found = rwkv7.recurrence(r, log_w, k, v, -removed, removed * rate, 16)
        torch.testing.assert_close(found, torch.stack(rows, 1), rtol=1e-4, atol=1e-4)

    def test_hidden_matrices_are_updated_as_pytorchs_optimiser_does(self):
        torch.manual_seed(5)
        for shape in ((24, 40), (40, 24)):
            ours = torch.nn.Parameter(torch.randn(shape))
            theirs = torch.nn.Parameter(ours.detach().clone())
            steppers = (
                Muon([ours], 0.01, 0.1, torch.bfloat16),
                torch.optim.Muon([theirs], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
            )
            for _ in range(3):
                ours.grad = torch.randn(shape)
                theirs.grad = ours.grad.clone()
                for stepper in steppers:
                    stepper.step()
            torch.testing.assert_close(ours, theirs, rtol=0.0, atol=0.0)

    def test_every_token_but_the_first_is_predicted_once(self):
        cut = windows(torch.arange(101), 10)
        self.assertEqual(cut[:, 1:].flatten().tolist(), list(range(1, 101)))


if __name__ == "__main__":
    unittest.main()
