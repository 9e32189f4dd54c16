"""Recipes for training captioners: every number of a run in one place, each with a flag."""

from dataclasses import dataclass, field
from typing import Any

from caption.data.augment import CaptionAugment
from vit_jax.settings import read_settings, setting
from vit_jax.train.recipe import TrainRecipe

MEASURES = ("loss", "cider", "exact")
NO_AUGMENT = CaptionAugment(angles=(0,), brightness=(1.0, 1.0), contrast=(1.0, 1.0), saturation=(1.0, 1.0), flip=0.0)


@dataclass(frozen=True, kw_only=True)
class CaptionRecipe(TrainRecipe):
    """How a captioner is trained. The defaults are those of CATR (configuration.py of the reference)."""

    model: str | None = setting(help="name of the architecture in caption.CONFIGS", none="that of the weights")
    batch_size: int = 32
    learning_rate: float = 1e-4
    schedule: str = "step"
    weight_decay: float = 1e-4
    clip_norm: float = 0.1
    longest: int | None = setting(
        None, "longer side of an image in pixels", interval="[1, inf)", none="the model's own"
    )
    max_length: int = setting(
        128, "maximum tokens of a caption, start and end included; longer ones are cut", interval="[3, inf)"
    )
    backbone_learning_rate: float = setting(1e-5, "peak learning rate of the image encoder", interval="[0, inf)")
    frozen_stages: int = setting(1, "stages of the ResNet that are frozen; 0 from scratch", interval="[0, inf)")
    train_norms: bool = setting(False, "train the scales and biases of the ResNet's frozen batch norm", paired=True)
    ignore_padding: bool = setting(False, "leave padding out of the loss; the reference counts it", paired=True)
    padding: str = setting(
        "reference", "how padding affects the image features: see caption.CaptionTransformer",
        choices=("alone", "reference"),
    )  # fmt: skip
    best_by: str = setting(
        "loss", "measure of the best epoch; exact is the fraction of captions reproduced word by word",
        choices=MEASURES,
    )  # fmt: skip
    augment: CaptionAugment = field(default_factory=CaptionAugment)


def recipe_from_dict(stored: dict[str, Any]) -> CaptionRecipe:
    """Return the recipe whose as_dict was stored. Raises InputError for unknown fields."""
    return read_settings(CaptionRecipe, stored)


RECIPES: dict[str, CaptionRecipe] = {
    # The reference's own (configuration.py of https://github.com/saahiluppal/catr), for COCO.
    "catr": CaptionRecipe(model="catr", epochs=30),
    # Synthetic scenes from scratch: python -m experiments.train_caption, seed 0, two CPU cores.
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
        clip_norm=1.0,
        frozen_stages=0,
        train_norms=True,
        ignore_padding=True,
        padding="alone",
        best_by="exact",
        augment=NO_AUGMENT,
    ),
    # A small captioner from scratch on your own images.
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
        clip_norm=1.0,
        frozen_stages=0,
        train_norms=True,
        ignore_padding=True,
        padding="alone",
        augment=NO_AUGMENT,
    ),
}
