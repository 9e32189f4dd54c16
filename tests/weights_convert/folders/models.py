"""Small models of every family whose folders are written, and the way back."""

from dataclasses import replace

import jax
import numpy as np

from tests.create import create
from vit_jax import VisionTransformer, ViTConfig
from vit_jax.preprocess import Preprocess
from weights_convert._convert import convert_with_plan

NAMES = ("a house", "Ångström, 2", "x", "y", "z")
TINY = ViTConfig(
    image_size=(32, 32), patch_size=(8, 8), width=48, depth=2, num_heads=3, mlp_dim=96, num_classes=len(NAMES)
)
IMAGENET = Preprocess((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), kernel="bicubic", crop=0.875)


def make(**changes):
    """Return a random model of TINY with changes; a bias of the keys that has no effect is 0."""
    model = create(VisionTransformer, replace(TINY, **changes))
    if not model.config.key_bias:
        for block in model.blocks:
            block.attn.qkv.bias[...] = block.attn.qkv.bias[...].at[TINY.width : 2 * TINY.width].set(0.0)
    return model


def assert_same_when_read_back(folder, model, layout):
    """Assert that the folder converts, its layout detected, to the same arrays, settings, preprocessing and names."""
    back, plan = convert_with_plan(folder)
    assert plan.layout.name == layout
    assert plan.class_names == (NAMES if model.config.num_classes else ())
    for actual, expected in zip(jax.tree.leaves(back), jax.tree.leaves(model), strict=True):
        np.testing.assert_array_equal(actual, expected)
    assert back.config == model.config
