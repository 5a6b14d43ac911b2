"""Turns a training run into a model folder: weights, configuration, tokenizer and card.

The folder is in the published form of Hugging Face's `BitNetForCausalLM`. A BitNet is written packed (four ternary
codes in a byte, one bf16 scale for each matrix, the rest bf16); its twin as plain bf16. The written files are then
loaded with the transformers library, compared with the training model, and scored on the held-out text: the card's
figures are those of the files, not of the training run.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from card import write_card
from corpus import END_OF_TEXT, Corpus
from model import Linear, Shape, Transformer, ternary
from verify import verify


def pack(codes: torch.Tensor) -> torch.Tensor:
    """Codes in {-1, 0, 1} [out, in] as bytes [out/4, in]: bits 2i..2i+1 of row j hold code + 1 of row i * out/4 + j."""
    blocks = (codes + 1).to(torch.uint8).unflatten(0, (4, -1))
    return blocks[0] | blocks[1] << 2 | blocks[2] << 4 | blocks[3] << 6


def tensors(model: Transformer) -> dict[str, torch.Tensor]:
    """Every tensor of the model under its published name, in its published form."""
    result = {}
    for name, parameter in model.named_parameters():
        result[f"model.{name}"] = parameter.detach().to(torch.bfloat16)
    for name, module in model.named_modules():
        if isinstance(module, Linear) and module.quantised:
            codes, scale = ternary(module.weight.detach())
            result[f"model.{name}.weight"] = pack(codes)
            result[f"model.{name}.weight_scale"] = scale.to(torch.bfloat16).reshape(1)
    return {name: tensor.contiguous() for name, tensor in result.items()}


def config(shape: Shape, quantised: bool) -> dict:
    """config.json of the folder."""
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
    if quantised:
        result["quantization_config"] = {
            "quant_method": "bitnet",
            "linear_class": "autobitlinear",
            "quantization_mode": "offline",
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="folder written by train.py")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder that holds the source texts")
    parser.add_argument("--tokenizer", type=Path, required=True, metavar="FILE", help="the tokenizer.json trained with")
    parser.add_argument("--hardware", required=True, metavar="TEXT", help="what the run ran on, for the card")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="model folder; its name names the model")
    arguments = parser.parse_args()

    run = json.loads((arguments.run / "run.json").read_text())
    shape, quantised = Shape(**run["shape"]), run["settings"]["model"] == "bitnet"
    model = Transformer(shape, quantised).eval()
    model.load_state_dict(torch.load(arguments.run / "checkpoint.pt", map_location="cpu", weights_only=True))

    arguments.out.mkdir(parents=True, exist_ok=True)
    save_file(tensors(model), arguments.out / "model.safetensors", metadata={"format": "pt"})
    (arguments.out / "model.safetensors").chmod(0o644)
    (arguments.out / "config.json").write_text(json.dumps(config(shape, quantised), indent=2) + "\n")
    shutil.copyfile(arguments.tokenizer, arguments.out / "tokenizer.json")

    corpus = Corpus(arguments.data, Tokenizer.from_file(str(arguments.tokenizer)))
    bits = verify(arguments.out, model, corpus, run["settings"]["context"])
    parameters = sum(p.numel() for p in model.parameters())
    write_card(arguments.out, run, parameters, bits, arguments.data, arguments.hardware)


if __name__ == "__main__":
    main()
