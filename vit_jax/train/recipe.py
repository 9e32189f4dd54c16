"""Training recipes: every number of a run in one place, each with a flag."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from vit_jax.background import parse_colour
from vit_jax.config import as_pair
from vit_jax.data.augment.transforms import Augment
from vit_jax.errors import InputError
from vit_jax.precision import DTYPES
from vit_jax.settings import check_settings, read_settings, setting
from vit_jax.suggest import describe_unknown

SCHEDULES = ("constant", "cosine", "step")
TRAIN = ("all", "head", "lora")
BALANCE = ("none", "weights", "sampler")
LORA_TARGETS = ("attention", "all")
AnyRecipe = TypeVar("AnyRecipe", bound="TrainRecipe")


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """The settings that every kind of training shares: of the optimizer, the schedule and the step.

    AdamW: https://arxiv.org/abs/1711.05101; its weight decay applies to every parameter.
    """

    model: str | None = setting(help="name of the architecture", none="that of the weights")
    epochs: int = setting(help="passes over the training data", interval="[1, inf)", aliases=("num_epochs",))
    batch_size: int = setting(
        16, "examples per optimizer step, over all devices", interval="[1, inf)", aliases=("batch", "bs")
    )
    learning_rate: float = setting(1e-5, "peak learning rate", interval="[0, inf)", aliases=("lr",))
    schedule: str = setting(
        "constant", "of the learning rate: constant, cosine to 0, or a tenth per --step-epochs", choices=SCHEDULES
    )
    step_epochs: int = setting(20, "epochs per step of --schedule step", interval="[1, inf)", extra=True)
    warmup_epochs: float = setting(
        0.0, "linear warm-up from 0, in epochs; may be a fraction", interval="[0, inf)", aliases=("warmup",)
    )
    beta1: float = setting(0.9, "AdamW: decay of the first moment", interval="[0, 1)")
    beta2: float = setting(0.999, "AdamW: decay of the second moment", interval="[0, 1)")
    eps: float = setting(1e-8, "AdamW: added to the denominator", interval="(0, inf)")
    weight_decay: float = setting(
        0.01, "AdamW: decoupled weight decay of every parameter", interval="[0, inf)", aliases=("wd",)
    )
    dropout: float | None = setting(
        None, "dropout rate of branches and attention weights", interval="[0, 1)", none="the model's own"
    )
    background: str | None = setting(
        None, "colour behind transparent images, a name or #rrggbb; saved with the model", extra=True,
        none="the model's own, white if it has none",
    )  # fmt: skip
    max_value: float | None = setting(
        None, "value of white in image files of more than 8 bits, such as 4095 for 12 bits; saved with the model",
        interval="(0, inf)", none="the model's own, the range of each file if it has none", extra=True,
    )  # fmt: skip
    seed: int = setting(
        0, "of initial parameters, data order, augmentation and dropout", interval="[0, 4294967296)"
    )  # below 2^32: jax drops higher bits
    label_smoothing: float = setting(
        0.0, "fraction of the target spread over all classes", interval="[0, 1)", extra=True,
        aliases=("smoothing",),
    )  # fmt: skip
    clip_norm: float = setting(
        0.0, "maximum global norm of the gradient, 0 for none", interval="[0, inf)", extra=True, aliases=("clip_grad",)
    )
    ema: float = setting(
        0.0, "decay of the moving average of the parameters, which is then validated and saved; 0 for none",
        interval="[0, 1)", extra=True,
    )  # fmt: skip
    accumulate: int = setting(1, "parts that a batch is split into, to save memory", interval="[1, inf)", extra=True)
    dtype: str = setting("float32", "of the computation; parameters stay float32", choices=tuple(DTYPES), extra=True)
    patience: int = setting(
        0, "epochs without improvement after which training stops, 0 for never", interval="[0, inf)", extra=True
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.background is not None:
            object.__setattr__(self, "background", parse_colour(self.background))
        if self.batch_size % self.accumulate:
            raise InputError(f"accumulate {self.accumulate} does not divide the batch size {self.batch_size}")

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-able dict, which `vit_jax.settings.read_settings` reads."""
        return asdict(self)


def resolve_recipe(recipe: Any, recipes: Mapping[str, AnyRecipe], *, unset: Sequence[str]) -> AnyRecipe:
    """Return a recipe, given itself or its name in `recipes`.

    unset: the fields of a named recipe that a given model decides; they become None.
    Raises InputError for an unknown name and for anything that is not of the recipes' type.
    """
    if isinstance(recipe, str):
        if recipe not in recipes:
            raise InputError(describe_unknown("recipe", recipe, recipes))
        changed: dict[str, Any] = dict.fromkeys(unset)
        return replace(recipes[recipe], **changed)
    kind = type(next(iter(recipes.values())))
    if not isinstance(recipe, kind):
        names = ", ".join(recipes)
        raise InputError(f"recipe: {type(recipe).__name__} is no {kind.__name__}; give one, or a name: {names}")
    return recipe


@dataclass(frozen=True, kw_only=True)
class Recipe(TrainRecipe):
    """How an image classifier is trained.

    mixup, cutmix: alpha of the Beta distribution of the mixing weight of a batch, as in torchvision.
    layer_decay:   factor of the learning rate between a layer and the one above it; the head has the full rate.
    lora_*:        see vit_jax/train/lora.py.
    """

    model: str | None = setting(
        help="name of the architecture (python -m weights_convert list)", none="that of the weights"
    )
    image_size: tuple[int, int] | None = setting(
        None, "(height, width) in pixels; a multiple of the patch size", none="the model's own", metavar="N|HxW",
        aliases=("img_size",),
    )  # fmt: skip
    in_channels: int | None = setting(
        None, "channels of the images: 1 grey, 3 RGB, others as stored; RGB weights are adapted", interval="[1, inf)",
        none="the model's own", extra=True,
    )  # fmt: skip
    drop_path: float | None = setting(
        None, "drop-path rate of the last block; it grows linearly from 0 at the first", interval="[0, 1)",
        none="the model's own", extra=True,
    )  # fmt: skip
    mixup: float = setting(0.0, "mixup alpha; 0.8 is common, 0 for none", interval="[0, inf)", extra=True)
    cutmix: float = setting(0.0, "cutmix alpha; 1 is common, 0 for none", interval="[0, inf)", extra=True)
    balance: str = setting(
        "none", "of classes of unequal size: weights in the loss, or a sampler that draws all classes equally",
        choices=BALANCE, extra=True,
    )  # fmt: skip
    train: str = setting("all", "parameters to train: all, the head, or LoRA and the head", choices=TRAIN, extra=True)
    lora_rank: int = setting(8, "rank of LoRA", interval="[1, inf)", extra=True, only_with=("train", "lora"))
    lora_alpha: float = setting(
        16.0, "scale of LoRA, divided by the rank", interval="(0, inf)", extra=True, only_with=("train", "lora")
    )
    lora_targets: str = setting(
        "attention", "layers that LoRA adapts: attention, or all of a block", choices=LORA_TARGETS, extra=True,
        only_with=("train", "lora"),
    )  # fmt: skip
    layer_decay: float = setting(
        1.0, "factor of the learning rate from layer to layer, 1 for none", interval="(0, 1]", extra=True
    )
    augment: Augment = field(default_factory=Augment)

    def __post_init__(self) -> None:
        if self.image_size is not None:
            object.__setattr__(self, "image_size", as_pair(self.image_size))
        super().__post_init__()
        if self.layer_decay < 1 and self.train != "all":
            raise InputError("layer_decay is for training all layers; leave it out, or give --train all")


def recipe_from_dict(stored: dict[str, Any]) -> Recipe:
    """Return the recipe whose as_dict was stored. Raises InputError for unknown fields."""
    return read_settings(Recipe, stored)


RECIPES: dict[str, Recipe] = {
    # The published fine-tuning study on Oxford-IIIT Pet: AdamW with PyTorch's defaults at 1e-5, batch 16, images
    # resized to 384 x 384 without keeping the aspect ratio. Its best validation accuracies: B_16_imagenet1k 0.9433,
    # L_32_imagenet1k 0.9383, B_32_imagenet1k 0.9249, B_16 0.9155, L_32 0.9062, B_32 0.8823. The study does not state
    # its epochs; 10 is this project's choice.
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
    # A small model from scratch on your own images.
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
    # 0.97 validation accuracy in about a minute. The 8x8 images are enlarged to 24x24, so that rotations and crops
    # move them by fractions of a pixel.
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
