"""A small random model with class names, and images with masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from tests.experiments.explain.inputs import NAMES
from vit_jax import (
    Preprocess,
    VisionTransformer,
    ViTConfig,
    save,
)


@pytest.fixture(scope="package")
def model():
    config = ViTConfig(
        image_size=(16, 24), patch_size=(8, 8), width=16, depth=2, num_heads=2, mlp_dim=24, num_classes=3,
        preprocess=Preprocess(crop=0.8),
    )  # fmt: skip
    draw = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: VisionTransformer(config, rngs=nnx.Rngs(0)))
    return jax.tree.map(lambda leaf: jnp.asarray(0.4 * draw.normal(size=leaf.shape), "float32"), shapes)


@pytest.fixture(scope="package")
def saved(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save(model, folder, class_names=NAMES)
    return str(folder)


@pytest.fixture(scope="package")
def pictures(tmp_path_factory):
    """Return a folder with five images of two shapes, and a folder with their masks."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    (root / "images" / "more").mkdir(parents=True)
    (root / "masks").mkdir()
    for i in range(5):
        height, width = (40, 60) if i % 2 else (50, 30)
        place = root / "images" / ("more" if i == 4 else "") / f"p{i}.png"
        Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(place)
        mask = np.full((height, width), 2, np.uint8)
        mask[5:30, 5:20] = 3
        mask[8:28, 8:18] = 1
        Image.fromarray(mask).save(root / "masks" / f"p{i}.png")
    return root
