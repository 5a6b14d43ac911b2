"""Promises of this folder that need neither a trained model nor the texts: `python -m unittest`."""

import json
import tempfile
import unittest
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from corpus import windows
from export import config, pack, tensors
from model import BitLinear, Shape, Transformer
from verify import load

SMALL = Shape(vocab=64, width=128, inner=256, layers=2, heads=2, kv_heads=1, max_positions=64)


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

    def test_an_exported_model_gives_the_library_the_logits_of_the_trained_one(self):
        for quantised, allowed in ((False, 0.02), (True, 0.1)):
            torch.manual_seed(2)
            model = Transformer(SMALL, quantised).eval()
            torch.nn.init.normal_(model.embed_tokens.weight)
            tokens = torch.randint(0, SMALL.vocab, (2, 33))
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                save_file(tensors(model), folder / "model.safetensors", metadata={"format": "pt"})
                (folder / "config.json").write_text(json.dumps(config(SMALL, quantised)))
                with torch.no_grad():
                    ours, theirs = model.logits(model(tokens)), load(folder)(tokens).logits
            self.assertLess(float((ours - theirs).abs().mean() / ours.std()), allowed)

    def test_every_token_but_the_first_is_predicted_once(self):
        cut = windows(torch.arange(101), 10)
        self.assertEqual(cut[:, 1:].flatten().tolist(), list(range(1, 101)))


if __name__ == "__main__":
    unittest.main()
