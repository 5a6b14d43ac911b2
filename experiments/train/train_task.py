"""Trains a small model for one of the tasks in tasks.py and writes its folder: weights, configuration and card.

The loss is the cross entropy of the answers alone. Every batch is of new instances, all of one length, which is drawn from
`--lengths`; the longest of these is the trained length. The rate rises linearly, stays, and falls linearly to zero over the
last half. The folder has no tokenizer, since its tokens are the task's; the card's figures are of the rounded weights.
"""

import argparse
import json
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import mamba2
import rwkv7
import transformer
from card import files, text
from language_model import LanguageModel
from tasks import Task, keys
from train import optimizers

ASKED = 256
"""Instances of seed 1 that the card's figures are of; none of them is trained on."""

MULTIPLES = (1, 2, 4, 8)
"""Lengths that the card tells of, over the trained one."""

QUESTIONS = {
    "induction": "what followed a special token when it stood in the text before (induction heads)",
    "copying": "which symbols stood among noise, in order (selective copying)",
}

KINDS = {
    "dense": "A small transformer with full attention and rotary positions",
    "bitnet": "A small BitNet b1.58 with full attention and rotary positions",
    "mamba2": "A small Mamba-2",
    "rwkv7": "A small RWKV-7",
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(KINDS), required=True)
    parser.add_argument("--task", choices=sorted(QUESTIONS), required=True)
    parser.add_argument("--items", type=int, default=1, help="K, symbols to copy (default %(default)s)")
    parser.add_argument("--lengths", default="16,32,64", metavar="L,..", help="drawn from (default %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="model folder; its name names the model")
    parser.add_argument("--hardware", required=True, metavar="TEXT", help="what it runs on, for the card")
    parser.add_argument("--seed", type=int, default=1, help="of the weights and of the instances")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default %(default)s)")
    parser.add_argument("--steps", type=int, default=1000, help="updates (default %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="instances in one update (default %(default)s)")
    parser.add_argument("--muon-rate", type=float, default=1e-2, help="peak rate, matrices (default %(default)s)")
    parser.add_argument("--adam-rate", type=float, default=3e-3, help="peak rate, the rest (default %(default)s)")
    parser.add_argument("--decay", type=float, default=0.0, help="weight decay, matrices (default %(default)s)")
    parser.add_argument("--warmup", type=int, default=100, help="steps of rising rate (default %(default)s)")
    parser.add_argument("--report", type=int, default=100, help="steps between two points of the loss curve")
    parser.set_defaults(precision="f32")
    return parser.parse_args()


def build(kind: str, vocab: int) -> LanguageModel:
    """Two layers of width 64, as in the Mamba paper; a model of each kind has 60,000 to 90,000 numbers."""
    if kind == "mamba2":
        return mamba2.Mamba2(mamba2.Shape(vocab, width=64, layers=2, heads=4, head_width=32, states=32, block=32))
    if kind == "rwkv7":
        ranks = {"decay_rank": 16, "rate_rank": 16, "value_rank": 16, "gate_rank": 16}
        return rwkv7.Rwkv7(rwkv7.Shape(vocab, width=64, inner=128, layers=2, head_width=32, **ranks))
    shape = transformer.Shape(vocab, width=64, inner=128, layers=2, heads=2, kv_heads=2, head_width=32)
    return transformer.Transformer(shape, kind == "bitnet")


def rate(step: int, settings: argparse.Namespace) -> float:
    """Share of the peak learning rate at `step` in 0..steps."""
    return min(1.0, (step + 1) / settings.warmup, 2.0 * (settings.steps - step) / settings.steps)


def answer(model: LanguageModel, task: Task, key, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [B, K, V] of the answers to the instances of `key`, and the answers [B, K]."""
    tokens, right = (torch.from_numpy(x) for x in task.instances(key, length))
    return model.logits(model(tokens)[:, -task.items :]).float(), right


def cost(logits: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Mean nats of an answer."""
    return F.cross_entropy(logits.flatten(0, 1), right.flatten())


@torch.no_grad()
def examine(model: LanguageModel, task: Task, length: int) -> tuple[float, float]:
    """Nats an answer and the share of instances solved, of those that are asked at a length."""
    model.eval()
    size = max(1, 4096 // length)
    parts = [answer(model, task, keys("test", 1, i, min(size, ASKED - i)), length) for i in range(0, ASKED, size)]
    model.train()
    logits, right = (torch.cat(x) for x in zip(*parts))
    return float(cost(logits, right)), float((logits.argmax(-1) == right).all(-1).float().mean())


def train(settings: argparse.Namespace, task: Task) -> tuple[LanguageModel, list[dict], int]:
    """The trained model, its loss curve and the tokens it read."""
    torch.manual_seed(settings.seed)
    lengths = [int(length) for length in settings.lengths.split(",")]
    order = random.Random(settings.seed)
    model = build(settings.model, task.vocab)
    steppers = optimizers(model, settings)
    groups = [(group, group["lr"]) for stepper in steppers for group in stepper.param_groups]
    curve, recent, tokens, start = [], [], 0, time.monotonic()
    for step in range(settings.steps):
        for group, peak in groups:
            group["lr"] = peak * rate(step, settings)
        length = order.choice(lengths)
        logits, right = answer(model, task, keys("train", settings.seed, step * settings.batch, settings.batch), length)
        loss = cost(logits, right)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad()
        recent.append(float(loss.detach()))
        tokens += settings.batch * (length + (task.items if task.name == "copying" else 0))
        if (step + 1) % settings.report == 0 or step + 1 == settings.steps:
            nats, solved = examine(model, task, max(lengths))
            curve.append({"step": step + 1, "train_nats": sum(recent) / len(recent), "held_out_nats": nats})
            print(
                f"step {step + 1}/{settings.steps}  train {curve[-1]['train_nats']:.3f}  held-out {nats:.3f} nats an "
                f"answer, {100 * solved:.1f} % solved  {time.monotonic() - start:.0f} s",
                flush=True,
            )
            recent = []
    return model, curve, tokens


def round_weights(model: LanguageModel) -> None:
    """Rounds to bf16 what the file holds in bf16, except ternary layers, whose weights are quantised as they are read."""
    quantised = [m.weight for m in model.modules() if isinstance(m, transformer.Linear) and m.quantised]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            exact = name.endswith(("A_log", "dt_bias", ".D")) or any(parameter is weight for weight in quantised)
            if not exact:
                parameter.copy_(parameter.to(torch.bfloat16).float())


def write(model: LanguageModel, task: Task, settings: argparse.Namespace, curve: list[dict], tokens: int) -> None:
    folder = settings.out
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.tensors(), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    config = {key: value for key, value in model.config().items() if not key.endswith("_token_id")}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    round_weights(model)
    length = max(int(length) for length in settings.lengths.split(","))
    solved = {length * n: examine(model, task, length * n)[1] for n in MULTIPLES}
    options = ["items", "lengths", "seed", "threads", "steps", "batch", "muon_rate", "adam_rate", "decay", "warmup"]
    command = f"python train_task.py --model {settings.model} --task {task.name}"
    command += "".join(f" --{name.replace('_', '-')} {getattr(settings, name)}" for name in options)
    description = (
        f"{KINDS[settings.model]} that was trained for one synthetic task alone: {QUESTIONS[task.name]}. Its tokens are the "
        f"task's, so it has no tokenizer and reads no text. Trained on lengths of {settings.lengths.replace(',', ', ')} "
        "tokens; what it does with longer ones is what it is for."
    )
    lines = [
        f"name = {text(folder.name)}",
        'kind = "model"',
        f"description = {text(description)}",
        f"architecture = {text(model.config().get('architectures', [model.config()['model_type']])[0])}",
        f"parameters = {sum(p.numel() for p in model.parameters())}",
        'license = "MIT, as the code: no text was trained on"',
        "",
        "[task]",
        f"name = {text(task.name)}",
        f"items = {task.items}",
        *files(folder),
        "",
        "[training]",
        f"command = {text(command)}",
        f"seed = {settings.seed}",
        f"steps = {settings.steps}",
        f"tokens = {tokens}",
        f"context = {length}",
        f"hardware = {text(settings.hardware)}",
    ]
    for point in curve:
        lines += ["", "[[training.curve]]", f"step = {point['step']}"]
        lines += [f"{name} = {point[name]:.4f}" for name in ("train_nats", "held_out_nats")]
    lines += ["", "[evaluation.solved]", *(f"{length} = {share:.4f}" for length, share in solved.items())]
    (folder / "card.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{folder.name}: solved {solved}")


def main() -> None:
    settings = arguments()
    torch.set_num_threads(settings.threads)
    task = Task(settings.task, settings.items)
    model, curve, tokens = train(settings, task)
    write(model, task, settings, curve, tokens)


if __name__ == "__main__":
    main()
