"""Small random models and a picture that the viewer's tests share."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from tests.create import create
from vit_jax import Pipeline, VisionTransformer, ViTConfig
from vit_jax.position import Rotary

GRID = (4, 5)
NAMES = ("cat", "<b>dog</b>", "cow & calf")
CONFIG = ViTConfig(
    image_size=(16, 20), patch_size=(4, 4), width=16, depth=3, num_heads=2, mlp_dim=24, num_classes=3, num_registers=2
)
BARE = replace(CONFIG, position_table=False, num_registers=0)
CONFIGS = {
    "registers": CONFIG,
    "rotary": replace(BARE, rotary=Rotary(), num_registers=1),
    "bias in each block": replace(BARE, relative_bias="blocks", posemb_resize="geometric", pooling="gap"),
    "shared bias": replace(BARE, relative_bias="shared", posemb_resize="bilinear"),
    "no class token": replace(BARE, class_token=False, pooling="map", position_table=True, num_classes=0),
}
PICTURE = np.random.default_rng(1).integers(0, 256, (32, 40, 3), np.uint8)


def make_pipeline(name):
    """Return a model whose attention has structure: its queries and keys are large."""
    config = CONFIGS[name]
    model = create(VisionTransformer, config)
    draw = np.random.default_rng(0)

    def enlarge(path, leaf):
        part = jax.tree_util.keystr(path)
        if "qkv" in part:
            return 3 * leaf
        return jnp.asarray(draw.normal(size=leaf.shape), leaf.dtype) if "relative_bias" in part else leaf

    model = jax.tree_util.tree_map_with_path(enlarge, model)
    return Pipeline(model, NAMES if config.num_classes else ())
