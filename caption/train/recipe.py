"""Recipes for training captioners: every number of a run in one place, by name, each to be overridden by a flag."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

import optax

from caption.data.augment import CaptionAugment
from vit_jax import InputError
from vit_jax.checkpoint import lists_to_tuples
from vit_jax.train.recipe import DTYPES

SCHEDULES = ("constant", "cosine", "step")
MEASURES = ("loss", "cider", "exact")
PLAIN = CaptionAugment(angles=(0,), brightness=(1.0, 1.0), contrast=(1.0, 1.0), saturation=(1.0, 1.0), flip=0.0)


@dataclass(frozen=True)
class CaptionRecipe:
    """How a captioner is trained.

    model:          a name of caption.CONFIGS; None takes whatever the weights are.
    longest:        the longer side of an image in pixels; None keeps the model's own.
    epochs:         passes over the captions. batch_size: captions per optimiser step, over all devices.
    max_length:     tokens of a caption at most, start and end included; longer ones are cut.
    learning_rate:  the peak; backbone_learning_rate that of the image encoder.
    schedule:       constant, cosine down to 0, or step: a tenth after each step_epochs. warmup_epochs: linear from 0.
    beta2, weight_decay: AdamW's. max_norm: gradients are scaled to this global norm.
    frozen_stages:  how much of the ResNet stays as it is; 0 where it starts from scratch.
    train_norms:    whether its frozen batch norm learns its scales and biases all the same.
    ignore_padding: False counts the loss over every position, as the reference does.
    padding:        "reference" or "alone": see caption.CaptionTransformer.
    accumulate, dtype, ema, patience: see vit_jax.train.recipe.
    best_by:        the measure of the best epoch: loss, cider or exact (share of captions repeated word by word).
    """

    model: str | None
    epochs: int
    longest: int | None = None
    batch_size: int = 32
    max_length: int = 128
    learning_rate: float = 1e-4
    backbone_learning_rate: float = 1e-5
    schedule: str = "step"
    step_epochs: int = 20
    warmup_epochs: float = 0.0
    beta2: float = 0.999
    weight_decay: float = 1e-4
    max_norm: float = 0.1
    frozen_stages: int = 1
    train_norms: bool = False
    dropout: float | None = None
    ignore_padding: bool = False
    label_smoothing: float = 0.0
    padding: str = "reference"
    best_by: str = "loss"
    augment: CaptionAugment = field(default_factory=CaptionAugment)
    seed: int = 0
    accumulate: int = 1
    dtype: str = "float32"
    ema: float = 0.0
    patience: int = 0

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES or self.best_by not in MEASURES:
            raise InputError(f"schedule is one of {', '.join(SCHEDULES)}; best_by one of {', '.join(MEASURES)}")
        if min(self.epochs, self.batch_size, self.step_epochs) < 1 or self.max_length < 3:
            raise InputError("epochs, batch size and step epochs are at least 1, max_length at least 3")
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"label_smoothing is in [0, 1), not {self.label_smoothing}")
        if self.batch_size % max(1, self.accumulate):
            raise InputError(f"accumulate {self.accumulate} does not divide the batch size {self.batch_size}")
        if self.dtype not in DTYPES or self.accumulate < 1 or self.patience < 0 or not 0 <= self.ema < 1:
            raise InputError("dtype is float32 or bfloat16, accumulate at least 1, patience at least 0, ema in [0, 1)")

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` reads it back."""
        return asdict(self)


def recipe_from_dict(stored: dict[str, Any]) -> CaptionRecipe:
    """The recipe that as_dict wrote."""
    known = {f.name for f in fields(CaptionRecipe)}
    values = {name: value for name, value in stored.items() if name in known}
    return CaptionRecipe(**values | {"augment": CaptionAugment(**lists_to_tuples(stored["augment"]))})


def rates(recipe: CaptionRecipe, peak: float, steps_per_epoch: int) -> optax.Schedule:
    """The learning rate at each step."""
    total = recipe.epochs * steps_per_epoch
    warmup = min(round(recipe.warmup_epochs * steps_per_epoch), total)
    after: optax.Schedule
    if recipe.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, max(1, total - warmup))
    elif recipe.schedule == "step":
        after = optax.exponential_decay(peak, recipe.step_epochs * steps_per_epoch, 0.1, staircase=True)
    else:
        after = optax.constant_schedule(peak)
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup]) if warmup else after


RECIPES: dict[str, CaptionRecipe] = {
    # The reference's own (configuration.py of https://github.com/saahiluppal/catr), for COCO.
    "catr": CaptionRecipe(model="catr", epochs=30),
    # Made scenes from scratch: python -m experiments.train_caption, seed 0, two CPU cores.
    # Expected: at least 95 % of held-out scenes captioned exactly, in under 4 minutes.
    "scenes": CaptionRecipe(
        model="scenes",
        epochs=11,
        max_length=14,
        learning_rate=2e-3,
        backbone_learning_rate=2e-3,
        schedule="cosine",
        warmup_epochs=0.5,
        beta2=0.99,
        weight_decay=0.01,
        max_norm=1.0,
        frozen_stages=0,
        train_norms=True,
        ignore_padding=True,
        padding="alone",
        best_by="exact",
        augment=PLAIN,
    ),
    # A small captioner from scratch on one's own pictures.
    "small": CaptionRecipe(
        model="mini",
        epochs=100,
        longest=160,
        max_length=32,
        learning_rate=1e-3,
        backbone_learning_rate=1e-3,
        schedule="cosine",
        warmup_epochs=5.0,
        beta2=0.99,
        weight_decay=0.01,
        max_norm=1.0,
        frozen_stages=0,
        train_norms=True,
        ignore_padding=True,
        padding="alone",
        augment=PLAIN,
    ),
}
