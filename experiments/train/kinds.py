"""The kinds of model that `train.py` trains on text and their sizes."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import mamba2
import rwkv7
import transformer
from language_model import LanguageModel


@dataclass(frozen=True)
class Kind:
    """What a model of this kind is, its sizes, and how one is built from sizes and the share of outputs dropped."""

    description: str
    shape: object
    build: Callable[[object, float], LanguageModel]


def _without_dropout(model: type[LanguageModel]) -> Callable[[object, float], LanguageModel]:
    def build(shape, dropout):
        if dropout:
            raise SystemExit(f"{model.__name__} has no dropout")
        return model(shape)

    return build


KINDS = {
    "bitnet": Kind(
        "A small BitNet b1.58 language model: ternary weights (absmean per tensor) and int8 activations (absmax per "
        "token), by quantisation-aware training with a straight-through gradient.",
        transformer.Shape(),
        lambda shape, dropout: transformer.Transformer(shape, True, dropout),
    ),
    "dense": Kind(
        "The full-precision twin of a small BitNet b1.58 model: same shape, initial random numbers, tokenizer, order of "
        "the text and budget, with ordinary linear layers.",
        transformer.Shape(),
        lambda shape, dropout: transformer.Transformer(shape, False, dropout),
    ),
    "draft": Kind(
        "A tenth of the size of dense-5m and bitnet-5m, of their architecture in full precision and with their "
        "tokenizer: made to draft tokens that a larger model checks.",
        replace(transformer.Shape(), width=64, inner=256, heads=2, kv_heads=1, head_width=32),
        lambda shape, dropout: transformer.Transformer(shape, False, dropout),
    ),
    "mamba2": Kind(
        "A small Mamba-2 language model of the size of bitnet-5m and dense-5m: same tokenizer, order of the text and "
        "budget, another architecture.",
        mamba2.Shape(),
        _without_dropout(mamba2.Mamba2),
    ),
    "rwkv7": Kind(
        "A small RWKV-7 language model of the size of bitnet-5m and dense-5m: same tokenizer, order of the text and "
        "budget, another architecture.",
        rwkv7.Shape(),
        _without_dropout(rwkv7.Rwkv7),
    ),
}


def new(kind: str, dropout: float) -> LanguageModel:
    """A model of a kind with random weights."""
    return KINDS[kind].build(KINDS[kind].shape, dropout)


def of_run(run: dict) -> LanguageModel:
    """The model that a run of train.py trained, without its weights."""
    kind = KINDS[run["settings"]["model"]]
    return kind.build(type(kind.shape)(**run["shape"]), 0.0).eval()


def shape_of(kind: str) -> dict:
    """Its sizes, for run.json."""
    return asdict(KINDS[kind].shape)
