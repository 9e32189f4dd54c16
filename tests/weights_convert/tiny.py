"""A small model under timm's names, for tests of what surrounds the arrays in a file."""

from dataclasses import replace

import numpy as np

from tests.create import create
from vit_jax import VisionTransformer, ViTConfig
from weights_convert import export

CONFIG = ViTConfig(
    image_size=(16, 16),
    patch_size=(8, 8),
    width=32,
    depth=1,
    num_heads=2,
    mlp_dim=48,
    num_classes=3,
    posemb_resize="bicubic_antialias",
)


def timm_arrays(seed=0, **changes) -> dict[str, np.ndarray]:
    return export(create(VisionTransformer, replace(CONFIG, **changes), seed=seed), layout="timm")
