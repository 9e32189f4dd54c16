"""timm's checkpoints against golden outputs that timm itself computed in float64."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tests.reference as reference
from vit_jax import forward_with_attention
from weights_convert import convert, export

pytestmark = pytest.mark.parity

HEADS = {"vit_tiny_patch16_224": 3, "deit_tiny_distilled_patch16_224": 3, "vit_medium_patch16_reg4_gap_256": 8}
NAMES = sorted(json.loads((reference.GOLDEN / "timm_vit_state_dict.json").read_text()))
forward = jax.jit(forward_with_attention, static_argnames=("layers", "head_fusion"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_golden_parity_and_the_way_back(name, x64):
    golden = reference.golden_arrays("timm_vit")
    arrays = reference.golden_parameters("timm_vit", name)
    model = convert(arrays)
    config = model.config
    assert config.num_heads == HEADS.get(name, 6)
    output = forward(model, reference.images(3, 2, *config.image_size), layers=(0, config.depth // 2, config.depth - 1))
    first, middle, last = output.attention
    for actual, key in [
        (output.logits[:, :128], "logits"),
        (output.features[:, :6, :32], "features"),
        (first[:, :, 0], "attn_first"),
        (middle[:, :, 7], "attn_mid_row7"),
        (last[:, :, 0], "attn_last"),
    ]:
        assert reference.relative_error(actual, golden[f"{name}/{key}"]) < 1e-9, key
    back = export(model, layout="timm")
    assert set(back) == set(arrays)
    assert all(np.array_equal(back[key], arrays[key]) for key in arrays)


def test_float32():
    """The float32 error of the smallest model stays within the bound of BUILD.md."""
    golden = reference.golden_arrays("timm_vit")
    arrays = reference.golden_parameters("timm_vit", "vit_tiny_patch16_224")
    model = convert({name: array.astype(np.float32) for name, array in arrays.items()})
    logits = jax.jit(lambda m, x: m(x))(model, jnp.asarray(reference.images(3, 2, 224, 224), jnp.float32))
    assert reference.relative_error(logits[:, :128], golden["vit_tiny_patch16_224/logits"]) < 2e-5
