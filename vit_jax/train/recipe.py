"""Training recipes: every number of a run in one place, by name, each to be overridden by a flag."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from vit_jax.checkpoint import lists_to_tuples
from vit_jax.config import as_pair
from vit_jax.data.augment.transforms import Augment
from vit_jax.errors import InputError

SCHEDULES = ("constant", "cosine")
TRAIN = ("all", "head", "lora")
LORA_TARGETS = ("attention", "all")
DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    model:          a name of vit_jax.CONFIGS; None takes whatever the weights are.
    image_size:     (height, width) in pixels; None keeps the model's own.
    epochs:         passes over the training images.
    batch_size:     images per optimiser step, over all devices.
    learning_rate:  the peak. schedule: constant, or cosine down to 0. warmup_epochs: linear from 0, may be a fraction.
    beta1, beta2, eps, weight_decay: AdamW's (https://arxiv.org/abs/1711.05101); the decay falls on every parameter.
    dropout:        on branches and attention weights; None keeps the model's own.
    augment:        see Augment.
    seed:           of the initial weights, the order of images, the augmentations and dropout.

    Beyond the plain recipe, each off by default:
    drop_path:      the last block's share of images that pass it by, growing evenly from 0 at the first; None keeps the
                    model's own.
    label_smoothing: this share of a label is spread over all classes.
    mixup, cutmix:  alpha of the Beta distribution that a batch's share of the other image is drawn from; 0 for none.
    train:          all, head (the backbone stays as it is) or lora (low-rank additions, and the head).
    lora_rank, lora_alpha: see training/lora.py. lora_targets: what is added to, the attention alone or all of a block.
    layer_decay:    each layer learns by this factor of the one above it, the head by the whole rate; 1 for none.
    clip_norm:      gradients are scaled to this global norm at most; 0 for none.
    ema:            decay of the moving average of the parameters that is validated and kept; 0 for none.
    accumulate:     a batch goes through in so many parts, a divisor of its size: the same answer in less memory.
    dtype:          float32, or bfloat16 to compute in; parameters stay float32.
    patience:       training ends after so many epochs in a row without a better one; 0 goes to the last.
    """

    model: str | None
    epochs: int
    image_size: tuple[int, int] | None = None
    batch_size: int = 16
    learning_rate: float = 1e-5
    schedule: str = "constant"
    warmup_epochs: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01
    dropout: float | None = None
    augment: Augment = field(default_factory=Augment)
    seed: int = 0
    drop_path: float | None = None
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    train: str = "all"
    lora_rank: int = 8
    lora_alpha: float = 16.0
    lora_targets: str = "attention"
    layer_decay: float = 1.0
    clip_norm: float = 0.0
    ema: float = 0.0
    accumulate: int = 1
    dtype: str = "float32"
    patience: int = 0

    def __post_init__(self) -> None:
        if self.image_size is not None:
            object.__setattr__(self, "image_size", as_pair(self.image_size))
        if self.schedule not in SCHEDULES:
            raise InputError(f"unknown schedule {self.schedule!r}: one of {', '.join(SCHEDULES)}")
        if self.epochs < 1 or self.batch_size < 1 or self.warmup_epochs < 0 or self.learning_rate < 0:
            raise InputError("epochs and batch size are at least 1, warm-up and learning rate at least 0")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1 and self.eps > 0 and self.weight_decay >= 0):
            raise InputError("beta1 and beta2 are in [0, 1), eps above 0, weight decay at least 0")
        for name in ("drop_path", "label_smoothing", "ema"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise InputError(f"{name} is in [0, 1), not {value}")
        if self.train not in TRAIN or self.dtype not in DTYPES:
            raise InputError(f"train is one of {', '.join(TRAIN)}; dtype one of {', '.join(DTYPES)}")
        if min(self.mixup, self.cutmix, self.clip_norm, self.patience) < 0 or not 0 < self.layer_decay <= 1:
            raise InputError("mixup, cutmix, clip_norm and patience are at least 0, layer_decay in (0, 1]")
        if self.layer_decay < 1 and self.train != "all":
            raise InputError("layer_decay is for training all layers; leave it out, or give --train all")
        if self.lora_rank < 1 or self.lora_alpha <= 0 or self.accumulate < 1:
            raise InputError("lora_rank and accumulate are at least 1, lora_alpha above 0")
        if self.lora_targets not in LORA_TARGETS:
            raise InputError(f"lora_targets is one of {', '.join(LORA_TARGETS)}, not {self.lora_targets!r}")
        if self.batch_size % self.accumulate:
            raise InputError(f"accumulate {self.accumulate} does not divide the batch size {self.batch_size}")

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` reads it back."""
        return asdict(self)


def recipe_from_dict(stored: dict[str, Any]) -> Recipe:
    """The recipe that as_dict wrote."""
    known = {f.name for f in fields(Recipe)}
    values = {name: value for name, value in lists_to_tuples(stored).items() if name in known}
    return Recipe(**values | {"augment": Augment(**lists_to_tuples(stored["augment"]))})


RECIPES: dict[str, Recipe] = {
    # The published fine-tuning study on Oxford-IIIT Pet: AdamW with PyTorch's defaults at 1e-5, batch 16, images
    # squashed to 384 x 384. Its best validation accuracy: B_16_imagenet1k 0.9433, L_32_imagenet1k 0.9383,
    # B_32_imagenet1k 0.9249, B_16 0.9155, L_32 0.9062, B_32 0.8823. The number of epochs is ours.
    "pets": Recipe(
        model="B_16_imagenet1k",
        epochs=10,
        image_size=(384, 384),
        batch_size=16,
        learning_rate=1e-5,
        schedule="constant",
        warmup_epochs=0.0,
        beta1=0.9,
        beta2=0.999,
        eps=1e-8,
        weight_decay=0.01,
        augment=Augment(
            crop_scale=(0.08, 1.0),
            crop_ratio=(3 / 4, 4 / 3),
            degrees=30.0,
            flip=0.5,
            brightness=0.5,
            contrast=0.5,
            saturation=0.5,
            hue=0.5,
        ),
    ),
    # A small model from scratch on one's own pictures.
    "scratch": Recipe(
        model="Mini_16",
        epochs=60,
        batch_size=64,
        learning_rate=1e-3,
        schedule="cosine",
        warmup_epochs=3.0,
        weight_decay=0.05,
        augment=Augment(crop_scale=(0.35, 1.0), flip=0.5, brightness=0.3, contrast=0.3, saturation=0.3),
    ),
    # scikit-learn's digits from scratch: python -m experiments.finetune, seed 0, two CPU cores. Expected: at least
    # 0.97 validation accuracy in about a minute. The 8x8 pictures are enlarged to 24x24, so that turning and
    # cropping move them by fractions of a pixel.
    "digits": Recipe(
        model="Nano_6",
        epochs=36,
        batch_size=64,
        learning_rate=3e-3,
        schedule="cosine",
        warmup_epochs=2.0,
        beta2=0.99,
        weight_decay=0.05,
        augment=Augment(crop_scale=(0.65, 1.0), degrees=15.0),
    ),
}
