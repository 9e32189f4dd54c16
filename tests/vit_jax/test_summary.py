"""A model prints in a few lines."""

import jax
from flax import nnx

import caption
from vit_jax import CONFIGS, VisionTransformer


def test_a_model_prints_its_size_and_architecture():
    model = VisionTransformer(CONFIGS["Pico_8"], rngs=nnx.Rngs(0))
    assert repr(model) == str(model)
    assert repr(model).splitlines() == [
        f"VisionTransformer: {sum(x.size for x in jax.tree.leaves(model)):,} parameters, float32",
        "  width 32, depth 2, 2 heads, MLP 128, patch 8x8, image 24x24, 10 classes",
    ]


def test_a_captioner_prints_its_size_and_architecture():
    model = jax.eval_shape(lambda: caption.CaptionTransformer(caption.CONFIGS["catr"], rngs=nnx.Rngs(0)))
    assert repr(model).splitlines() == [
        "CaptionTransformer: 84,392,954 parameters, float32",
        "  ResNet of 3+4+23+3 blocks, 6 + 6 layers, width 256, 8 heads, MLP 2048, 30522 words, 128 positions",
    ]
