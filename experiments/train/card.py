"""Writes a model's card: what it is, what it was made from and how, and how good it is."""

import hashlib
import json
from pathlib import Path

from corpus import SOURCES
from kinds import KINDS

LIMITS = (
    "Text: an English novel, encyclopedia articles and children's stories, under ten million bytes. Limits: made to "
    "measure kernels and engines with, not to be believed; it knows no facts, follows no instructions and repeats the "
    "outlook of its texts. Trained on windows of 512 tokens: later positions are untrained."
)


def text(value: str) -> str:
    """A TOML basic string (JSON's escapes are a subset of TOML's)."""
    return json.dumps(value, ensure_ascii=False)


def files(folder: Path) -> list[str]:
    """The lines of a card that hold the checksum of every other file of the folder."""
    lines = []
    for path in sorted(folder.iterdir()):
        if path.name != "card.toml":
            content = path.read_bytes()
            lines += [
                "",
                f"[files.{text(path.name)}]",
                f'sha256 = "{hashlib.sha256(content).hexdigest()}"',
                f"bytes = {len(content)}",
            ]
    return lines


def write_card(folder: Path, run: dict, parameters: int, bits: dict[str, float], data: Path, hardware: str) -> None:
    """Writes card.toml into `folder`, with the checksum of every other file there."""
    settings = run["settings"]
    kind = settings["model"]
    config = json.loads((folder / "config.json").read_text())
    architecture = config.get("architectures", [config["model_type"]])[0]
    options = ["seed", "device", "precision", "threads", "steps", "batch", "context", "muon_rate", "adam_rate", "decay"]
    options += ["dropout", "warmup", "report"]
    command = f"python train.py --model {kind} --data DATA --tokenizer tokenizer.json --out runs/{kind}"
    command += "".join(f" --{name.replace('_', '-')} {settings[name]}" for name in options)
    command += " --no-compile" if settings["no_compile"] else ""
    lines = [
        f"name = {text(folder.name)}",
        'kind = "model"',
        f"description = {text(KINDS[kind].description + ' ' + LIMITS)}",
        f"architecture = {text(architecture)}",
        f"parameters = {parameters}",
        'license = "CC-BY-SA-3.0, since the weights derive from the texts under training.data, each with its licence"',
    ]
    lines += files(folder)
    lines += [
        "",
        "[training]",
        f"command = {text(command)}",
        f"seed = {settings['seed']}",
        f"steps = {settings['steps']}",
        f"tokens = {run['tokens']}",
        f"context = {settings['context']}",
        f"hardware = {text(hardware)}",
    ]
    for source in SOURCES:
        _, _, (start, end) = source.split(data)
        lines += [
            "",
            "[[training.data]]",
            f'file = "{source.file}"',
            f'sha256 = "{source.sha256}"',
            f"bytes = {(data / source.file).stat().st_size}",
            f"license = {text(source.licence)}",
            f"held_out = [{start}, {end}]",
        ]
    for point in run["curve"]:
        lines += [
            "",
            "[[training.curve]]",
            f"step = {point['step']}",
            f"train_nats = {point['train_nats']:.4f}",
            f"held_out_nats = {point['held_out_nats']:.4f}",
        ]
    lines += ["", "[evaluation]", f"held_out_bits_per_byte = {bits['all']:.4f}", "", "[evaluation.sources]"]
    lines += [f"{name} = {value:.4f}" for name, value in bits.items() if name != "all"]
    (folder / "card.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
