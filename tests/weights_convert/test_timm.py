"""timm's checkpoints against golden outputs that timm itself computed in float64."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tests.reference as reference
from vit_jax import InputError, forward_with_attention
from weights_convert import convert, export
from weights_convert.layouts import LAYOUTS

pytestmark = pytest.mark.parity

SIGLIP, CLIP = "vit_base_patch16_siglip_224", "vit_base_patch16_clip_quickgelu_224"
HEADS = {
    "vit_tiny_patch16_224": 3,
    "deit_tiny_distilled_patch16_224": 3,
    "vit_medium_patch16_reg4_gap_256": 8,
    SIGLIP: 12,
    CLIP: 12,
    "eva02_tiny_patch14_224": 3,
    "eva02_base_patch14_224": 12,
    "vit_pe_core_tiny_patch16_384": 3,
    "beit_base_patch16_224": 12,
}
LAYOUT_OF = {"dinov3": "timm_eva", "eva02": "timm_eva", "pe_core": "timm_pe", "beit": "beit"}  # else "timm"


def read_shapes(family):
    stored = json.loads((reference.GOLDEN / f"{family}_state_dict.json").read_text())
    return {name: {key: tuple(shape) for key, shape in shapes.items()} for name, shapes in stored.items()}


NAMES = [("timm_vit", name) for name in sorted(read_shapes("timm_vit"))]
NAMES += [("timm_modern", name) for name in read_shapes("timm_modern")]
TIMM = LAYOUTS["timm"]
# As a sidecar config states it for OpenAI's CLIP.
QUICK_GELU = replace(
    TIMM, infer_architecture=lambda shapes, size: TIMM.infer_architecture(shapes, size) | {"activation": "quick_gelu"}
)
forward = jax.jit(forward_with_attention, static_argnames=("layers", "head_fusion"))


@pytest.mark.slow
@pytest.mark.parametrize(("family", "name"), NAMES)
def test_golden_parity_and_the_way_back(family, name, x64):
    golden = reference.golden_arrays(family)
    arrays = reference.golden_parameters(family, name)
    model = convert(arrays, layout=QUICK_GELU if name == CLIP else "auto")
    config = model.config
    assert config.num_heads == HEADS.get(name, 6)
    sizes = {name: config.image_size} | ({f"{name}@192x320": (192, 320)} if f"{name}@192x320/logits" in golden else {})
    for prefix, size in sizes.items():
        output = forward(model, reference.images(3, 2, *size), layers=(0, config.depth // 2, config.depth - 1))
        first, middle, last = output.attention
        for actual, key in [
            (output.logits[:, :128], "logits"),
            (output.features[:, :6, :32], "features"),
            (first[:, :, 0], "attn_first"),
            (middle[:, :, 7], "attn_mid_row7"),
            (last[:, :, 0], "attn_last"),
        ]:
            assert reference.relative_error(actual, golden[f"{prefix}/{key}"]) < 1e-9, key
    back = export(model, layout=next((layout for part, layout in LAYOUT_OF.items() if part in name), "timm"))
    assert set(back) == set(arrays)
    assert all(np.array_equal(back[key], arrays[key]) for key in arrays)


def test_float32():
    """The float32 error of the smallest model stays within the bound of BUILD.md."""
    golden = reference.golden_arrays("timm_vit")
    arrays = reference.golden_parameters("timm_vit", "vit_tiny_patch16_224")
    model = convert({name: array.astype(np.float32) for name, array in arrays.items()})
    logits = jax.jit(lambda m, x: m(x))(model, jnp.asarray(reference.images(3, 2, 224, 224), jnp.float32))
    assert reference.relative_error(logits[:, :128], golden["vit_tiny_patch16_224/logits"]) < 2e-5


def test_siglip_towers_have_the_exact_gelu():
    """In both pooling variants: attention pooling, and the mean of the patches without [class]."""
    shapes = read_shapes("timm_modern")[SIGLIP]
    by_mean = {name: shape for name, shape in shapes.items() if not name.startswith("attn_pool")}
    fields = [TIMM.infer_architecture(variant, None) for variant in (shapes, by_mean)]
    assert [(each["pooling"], each["activation"]) for each in fields] == [("map", "gelu"), ("gap", "gelu")]


def test_a_perception_encoder_is_no_plain_vit():
    """Its arrays are those of a ViT with a norm before the blocks; its rotary positions are in no array."""
    shapes = read_shapes("timm_modern")["vit_pe_core_tiny_patch16_384"]
    spatial = {name: shape for name, shape in shapes.items() if not name.startswith(("attn_pool", "norm.", "head."))}
    for variant in (shapes, spatial):
        with pytest.raises(InputError, match="a Perception Encoder, whose rotary positions are in no array"):
            TIMM.infer_architecture(variant, None)
