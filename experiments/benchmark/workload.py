"""The workload of a benchmark: a model with random weights on one random batch, and the flags that choose it."""

import argparse
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from flax import nnx

from experiments.common.flags import add_batch_size_flag
from vit_jax import CONFIGS, InputError, VisionTransformer, ViTConfig
from vit_jax.checkpoint import from_arrays, to_arrays
from vit_jax.cli import image_size
from vit_jax.position import Rotary
from vit_jax.suggest import describe_unknown
from vit_jax.train.recipe import Recipe


def _dinov3(width: int, depth: int, num_heads: int, mlp_dim: int, activation: str = "gelu") -> ViTConfig:
    """Return a DINOv3 at its first size, without a head (https://arxiv.org/abs/2508.10104, table 2)."""
    return ViTConfig(
        width=width,
        depth=depth,
        num_heads=num_heads,
        mlp_dim=mlp_dim,
        activation=activation,
        num_classes=0,
        num_registers=4,
        position_table=False,
        rotary=Rotary(),
        key_bias=False,
        layer_scale=True,
        norm_eps=1e-5,
    )


DINOV3: dict[str, ViTConfig] = {  # by their authors' names
    "dinov3_vits16": _dinov3(384, 12, 6, 1536),
    "dinov3_vits16plus": _dinov3(384, 12, 6, 1536, "swiglu"),
    "dinov3_vitb16": _dinov3(768, 12, 12, 3072),
    "dinov3_vitl16": _dinov3(1024, 24, 16, 4096),
    "dinov3_vith16plus": _dinov3(1280, 32, 20, 5120, "swiglu"),
}
MODELS = CONFIGS | DINOV3


@dataclass(frozen=True)
class Workload:
    """A model on one batch. train: a training step with AdamW, not the forward pass; scan: loop over the blocks.

    Raises InputError for a training step of a model without classes.
    """

    config: ViTConfig
    batch_size: int
    train: bool
    scan: bool
    dtype: str

    def __post_init__(self) -> None:
        if self.train and not self.config.num_classes:
            raise InputError("the model has no classes to train on; leave out --train")

    def images(self) -> np.ndarray:
        """Return the batch, float32 [B, h, w, c] in [-1, 1]."""
        shape = (self.batch_size, *self.config.image_size, self.config.in_channels)
        return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)

    def labels(self) -> np.ndarray:
        """Return a class per image, int32 [B]."""
        return np.random.default_rng(1).integers(0, self.config.num_classes, self.batch_size).astype(np.int32)

    @property
    def adamw_settings(self) -> dict[str, Any]:
        """The settings of AdamW, for this library and its peers."""
        recipe = Recipe(model=None, epochs=1)
        return dict(learning_rate=recipe.learning_rate, weight_decay=recipe.weight_decay)

    def __str__(self) -> str:
        height, width = self.config.image_size
        work = "training step (AdamW)" if self.train else "forward pass"
        return f"{height}x{width}, batch {self.batch_size}, {work}, {self.dtype}"


def add_workload_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose a workload."""
    parser.add_argument("--model", default="B_16_imagenet1k", help="a named architecture, or dinov3_vits16 and others")
    parser.add_argument("--image-size", type=image_size, metavar="N|HxW", help="default: the model's own")
    add_batch_size_flag(parser, 1)
    add_mode_flags(parser)
    parser.add_argument("--scan-layers", action="store_true", help="ours compiles one block and loops over it")


def add_mode_flags(parser: argparse.ArgumentParser) -> None:
    """Add --train and --dtype."""
    parser.add_argument("--train", action="store_true", help="a step of AdamW in place of the forward pass")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="to compute in")


def find_config(model: str, size: tuple[int, int] | None) -> ViTConfig:
    """Return a named architecture at an image size, its own for None. Raises InputError for an unknown name."""
    if model not in MODELS:
        raise InputError(describe_unknown("model", model, MODELS))
    config = MODELS[model]
    return config.resized(size or config.image_size)


def parse_workload(args: argparse.Namespace) -> Workload:
    """Return the workload that the flags choose. Raises InputError for an unknown model."""
    config = replace(find_config(args.model, args.image_size), dropout=0.0, attention_dropout=0.0)
    return Workload(config, args.batch_size, args.train, args.scan_layers, args.dtype)


def create_model(config: ViTConfig) -> VisionTransformer:
    """Create a model with random weights. The head's are random too: a new head is all zeros."""
    model = jax.jit(lambda: VisionTransformer(config, rngs=nnx.Rngs(0)))()
    if not config.num_classes:
        return model
    arrays = to_arrays(model)
    kernel = 0.05 * jax.random.normal(jax.random.key(1), arrays["head.kernel"].shape)
    return from_arrays(config, arrays | {"head.kernel": kernel})
