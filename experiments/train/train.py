"""Trains a small language model of one of the kinds in kinds.py.

All kinds read the same batches in the same order and follow the same schedule; BitNet and its twin also start from the
same random numbers. Hidden matrices are updated by Muon, everything else by AdamW; the learning rate rises linearly for
`--warmup` steps and then falls linearly to zero.

Writes into --out: `checkpoint.pt` (f32 master weights), `run.json` (settings, versions, loss curve), and while it runs
`progress.pt`: a run that was interrupted goes on from there when it is started again with the same settings.
Next step: export.py.
"""

import argparse
import json
import math
import platform
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from tokenizers import Tokenizer

from corpus import Corpus, bits_per_byte
from kinds import KINDS, new, shape_of
from language_model import LanguageModel
from muon import Muon

PRECISIONS = {"bf16": torch.bfloat16, "f32": torch.float32}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(KINDS), required=True, help="see kinds.py")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder that holds the source texts")
    parser.add_argument("--tokenizer", type=Path, required=True, metavar="FILE", help="made by tokenizer.py")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the checkpoint")
    parser.add_argument("--seed", type=int, default=1, help="of the weights and of the order of the text")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--precision",
        choices=list(PRECISIONS),
        default="bf16",
        help="of products (default %(default)s); f32 is faster on CPUs that have no bf16 arithmetic",
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves the choice to PyTorch")
    parser.add_argument("--no-compile", action="store_true", help="run eagerly: no C++ compiler needed, half the speed")
    parser.add_argument("--steps", type=int, default=1400, help="updates (default %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="windows in one update (default %(default)s)")
    parser.add_argument("--context", type=int, default=512, help="tokens in one window (default %(default)s)")
    parser.add_argument("--muon-rate", type=float, default=1e-2, help="peak rate, matrices (default %(default)s)")
    parser.add_argument("--adam-rate", type=float, default=1e-2, help="peak rate, the rest (default %(default)s)")
    parser.add_argument("--decay", type=float, default=0.1, help="weight decay, matrices (default %(default)s)")
    parser.add_argument("--dropout", type=float, default=0.0, help="on each block's output (default %(default)s)")
    parser.add_argument("--warmup", type=int, default=100, help="steps of rising rate (default %(default)s)")
    parser.add_argument("--report", type=int, default=120, help="steps between two points of the loss curve")
    parser.add_argument("--save", type=int, default=50, help="steps after which an interrupted run loses nothing")
    return parser.parse_args()


def optimizers(model: LanguageModel, settings: argparse.Namespace) -> list[torch.optim.Optimizer]:
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and name.startswith("layers.")]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or not name.startswith("layers.")]
    return [
        Muon(matrices, settings.muon_rate, settings.decay, PRECISIONS[settings.precision]),
        torch.optim.AdamW(others, lr=settings.adam_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate(step: int, settings: argparse.Namespace) -> float:
    """Share of the peak learning rate at `step` in 0..steps."""
    rising = (step + 1) / settings.warmup
    falling = (settings.steps - step) / max(1, settings.steps - settings.warmup)
    return max(0.0, min(1.0, rising, falling))


def working_precision(settings: argparse.Namespace):
    """What products are computed in."""
    return torch.autocast(settings.device, torch.bfloat16) if settings.precision == "bf16" else nullcontext()


def held_out(model: LanguageModel, corpus: Corpus, settings: argparse.Namespace) -> dict[str, float]:
    model.eval()
    with torch.no_grad(), working_precision(settings):
        result = bits_per_byte(
            corpus, settings.context, lambda tokens: model.loss(tokens.to(settings.device), reduction="sum")
        )
    model.train()
    return result


def main() -> None:
    settings = arguments()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    corpus = Corpus(settings.data, Tokenizer.from_file(str(settings.tokenizer)))
    model = new(settings.model, settings.dropout).to(settings.device)
    loss_of = model.loss if settings.no_compile else torch.compile(model.loss)
    steppers = optimizers(model, settings)
    peaks = [group["lr"] for stepper in steppers for group in stepper.param_groups]
    batches = corpus.batches(settings.batch, settings.context, settings.seed)
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {corpus.tokens()} tokens an epoch", flush=True)

    # What must not change when an interrupted run goes on.
    identity = {key: str(value) for key, value in vars(settings).items() if key not in ("threads", "report", "save")}
    progress = settings.out / "progress.pt"
    settings.out.mkdir(parents=True, exist_ok=True)
    first, curve, recent, start = 0, [], [], time.monotonic()
    if progress.exists():
        saved = torch.load(progress, map_location=settings.device, weights_only=True)
        if saved["identity"] != identity:
            raise SystemExit(f"{progress} is of a run with other settings: remove it, or choose another --out")
        first, curve, recent, start = saved["step"], saved["curve"], saved["recent"], start - saved["seconds"]
        model.load_state_dict(saved["model"])
        for stepper, state in zip(steppers, saved["steppers"]):
            stepper.load_state_dict(state)
        print(f"goes on from step {first}", flush=True)

    for step, tokens in zip(range(settings.steps), batches):
        if step < first:
            continue
        share = rate(step, settings)
        for group, peak in zip((g for stepper in steppers for g in stepper.param_groups), peaks):
            group["lr"] = peak * share
        tokens = tokens.to(settings.device)
        with working_precision(settings):
            loss = loss_of(tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad()
        recent.append(float(loss.detach()))
        if (step + 1) % settings.report == 0 or step + 1 == settings.steps:
            bits = held_out(model, corpus, settings)
            held_out_tokens = sum(len(stream) - 1 for stream in corpus.held_out.values())
            nats = bits["all"] * math.log(2.0) * sum(corpus.held_out_bytes.values()) / held_out_tokens
            curve.append({"step": step + 1, "train_nats": sum(recent) / len(recent), "held_out_nats": nats})
            elapsed = time.monotonic() - start
            print(
                f"step {step + 1}/{settings.steps}  train {curve[-1]['train_nats']:.3f}  held-out {nats:.3f} "
                f"nats a token, {bits['all']:.4f} bits a byte  {elapsed:.0f} s",
                flush=True,
            )
            recent = []
        if (step + 1) % settings.save == 0:
            saved = {
                "identity": identity,
                "step": step + 1,
                "curve": curve,
                "recent": recent,
                "seconds": time.monotonic() - start,
                "model": model.state_dict(),
                "steppers": [stepper.state_dict() for stepper in steppers],
            }
            # Whole or not at all.
            torch.save(saved, progress.with_suffix(".new"))
            progress.with_suffix(".new").replace(progress)
            print(f"step {step + 1}/{settings.steps} saved; its loss is {loss.item():.3f}", flush=True)

    torch.save(model.state_dict(), settings.out / "checkpoint.pt")
    run = {
        "settings": {key: str(value) if isinstance(value, Path) else value for key, value in vars(settings).items()},
        "shape": shape_of(settings.model),
        "tokens": settings.steps * settings.batch * settings.context,
        "seconds": round(time.monotonic() - start),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "held_out_bits_per_byte": held_out(model, corpus, settings),
        "curve": curve,
    }
    (settings.out / "run.json").write_text(json.dumps(run, indent=1) + "\n")
    progress.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
