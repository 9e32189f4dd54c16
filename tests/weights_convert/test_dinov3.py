"""facebookresearch's DINOv3: the same arrays under timm's names, its stored periods, and the mask of the keys' bias."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import tests.reference as reference
from tests.create import create
from tests.weights_convert.originals import check_arrays
from vit_jax import InputError, VisionTransformer, ViTConfig, forward_with_attention
from vit_jax.position import Rotary
from weights_convert import convert, export
from weights_convert._convert import convert_with_plan

WIDTH, HEADS = 48, 3
CONFIG = ViTConfig(
    image_size=(32, 32), patch_size=(8, 8), width=WIDTH, depth=2, num_heads=HEADS, mlp_dim=64, num_classes=0,
    num_registers=4, position_table=False, rotary=Rotary(), key_bias=False, layer_scale=True, norm_eps=1e-5,
)  # fmt: skip
VARIANTS = {"MLP": CONFIG, "SwiGLU": replace(CONFIG, activation="swiglu"), "no biases": replace(CONFIG, qkv_bias=False)}
forward = jax.jit(forward_with_attention)


def originals(config=CONFIG, layout="dinov3"):
    return export(create(VisionTransformer, config), layout=layout)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_way_there_and_back_is_exact(variant):
    arrays = originals(VARIANTS[variant])
    assert ("blocks.0.attn.qkv.bias_mask" in arrays) == (variant != "no biases")
    assert ("blocks.0.mlp.w2.weight" in arrays) == (variant == "SwiGLU")
    extra = {"mask_token": np.zeros((1, WIDTH), np.float32), "local_cls_norm.weight": np.ones(WIDTH, np.float32)}
    model, plan = convert_with_plan(arrays | extra, image_size=(32, 32))
    assert plan.layout.name == "dinov3"
    assert set(plan.unused) == set(extra)
    assert model.config == replace(
        VARIANTS[variant],
        rotary=model.config.rotary,
        preprocess=model.config.preprocess,
        posemb_resize=model.config.posemb_resize,
        key_bias=variant == "no biases",
    )
    check_arrays(export(model, layout="dinov3"), arrays)


@pytest.mark.parametrize("variant", ["MLP", "SwiGLU"])
def test_timms_and_hugging_faces_names_hold_the_same_model(variant, x64):
    """timm pools by the mean of the patches, the authors and Hugging Face by [class]."""
    model = create(VisionTransformer, VARIANTS[variant])
    x = reference.images(3, 2, 24, 40)
    expected = forward(convert(export(model, layout="dinov3")), x)
    for layout, pooling in (("timm_eva", "gap"), ("hf_dinov3", "cls")):
        converted, plan = convert_with_plan(export(model, layout=layout), num_heads=HEADS)
        assert (plan.layout.name, converted.config.pooling) == (layout, pooling)
        output = forward(converted, x)
        assert reference.relative_error(output.features, expected.features) < 1e-6  # its periods are float32
        assert reference.relative_error(output.attention, expected.attention) < 1e-6


def test_periods_are_read_as_stored_and_say_how_many_heads_there_are():
    """Training rounds them to bfloat16."""
    arrays = originals() | {"rope_embed.periods": np.array([1.0, 3.15625, 10.0, 31.625], np.float32)}
    model, plan = convert_with_plan(arrays)
    assert model.config.rotary == Rotary(periods=(1.0, 3.15625, 10.0, 31.625))
    assert model.config.num_heads == HEADS
    [line] = [line for line in plan.settings.describe() if line.startswith("the values of its arrays: ")]
    assert "num_heads 3" in line
    assert "rotary (half, centred, yx, 4 stored periods)" in line
    check_arrays(export(model, layout="dinov3"), arrays)


def test_without_stored_periods_they_are_recomputed():
    arrays = originals()
    del arrays["rope_embed.periods"]
    model, plan = convert_with_plan(arrays, num_heads=HEADS)
    assert model.config.rotary == Rotary()
    assert any("periods 100 ** (4 j / K)" in line for line in plan.settings.describe())


@pytest.mark.parametrize(
    ("periods", "message"),
    [
        (np.ones((2, 2), np.float32), "has shape"),
        (np.ones(5, np.float32), "which no heads of a width of 48 have"),
        (np.array([1.0, np.nan, 2.0, 3.0], np.float32), "must be positive numbers"),
    ],
)
def test_damaged_periods_are_refused(periods, message):
    with pytest.raises(InputError, match=message):
        convert(originals() | {"rope_embed.periods": periods}, num_heads=HEADS)


def test_the_mask_may_hold_nan_and_the_keys_bias_has_no_effect(x64):
    """The bias under the mask stays in the file's array, and is exported as it was."""
    arrays = originals()
    masked = {name: np.full_like(array, np.nan) for name, array in arrays.items() if name.endswith("bias_mask")}
    keys = {
        name: np.where(np.arange(3 * WIDTH) // WIDTH == 1, 9.0, array).astype(np.float32)
        for name, array in arrays.items()
        if name.endswith("qkv.bias")
    }
    x = reference.images(3, 1, 32, 32)
    model = convert(arrays | masked | keys)
    np.testing.assert_array_equal(forward(model, x).logits, forward(convert(arrays), x).logits)
    check_arrays(export(model, layout="dinov3"), arrays | keys)
