"""timm's AIMv2 and TIPSv2: live parity at two sizes, attention included, the way back, and what arrays show."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest

import tests.reference as reference
from tests.create import create
from tests.optional import torch
from tests.weights_convert.originals import check_arrays, randomize
from vit_jax import VisionTransformer, ViTConfig, forward_with_attention
from weights_convert import export
from weights_convert._convert import convert_with_plan

SMALL = dict(img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3, dynamic_img_size=True)
forward = jax.jit(forward_with_attention)


def make(timm, case):
    """Return a small random float64 model of timm, and the layout of its names."""
    rms = partial(timm.layers.RmsNorm, eps=1e-5)
    aimv2 = dict(
        class_token=False, fc_norm=False, global_pool="avg", qkv_bias=False, proj_bias=False, mlp_ratio=2.75,
        act_layer="silu", norm_layer=rms, embed_norm_layer=rms, mlp_layer=timm.layers.SwiGLU, num_classes=5,
    )  # fmt: skip
    tipsv2 = dict(init_values=1.0, reg_tokens=1, no_embed_class=True, num_classes=0)
    options, layout = {"AIMv2": (aimv2, "timm_aimv2"), "TIPSv2": (tipsv2, "timm")}[case]
    return randomize(timm.models.vision_transformer.VisionTransformer(**SMALL | options)), layout


def run_original(original, x):
    """Return the output, the features and each block's attention weights, its input from before the dropout."""
    recorded = []
    for block in original.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_pre_hook(lambda _, inputs: recorded.append(inputs[0].numpy()))
    pixels = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        output, count = original(pixels).numpy(), len(recorded)
        return output, original.forward_features(pixels).numpy(), recorded[:count]


@pytest.mark.parity
@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
@pytest.mark.parametrize("case", ["AIMv2", "TIPSv2"])
def test_parity_with_timm_and_the_way_back(case, size, x64, exact_timm):
    original, layout = make(exact_timm, case)
    arrays = reference.state_arrays(original)
    model, plan = convert_with_plan(arrays, num_heads=3)
    assert plan.layout.name == layout
    x = reference.images(3, 2, *size)
    logits, features, attention = run_original(original, x)
    output = forward(model, x)
    assert reference.relative_error(output.logits, logits) < 1e-9
    assert reference.relative_error(output.features, features) < 1e-9
    for actual, expected in zip(output.attention, attention, strict=True):
        assert reference.relative_error(actual, expected) < 1e-9
    check_arrays(export(model, layout=layout), arrays)


def test_names_and_shapes_show_an_aimv2():
    """Of a model that is exported; published widths have heads of 128."""
    config = ViTConfig(
        image_size=(28, 28), patch_size=(14, 14), width=1024, depth=1, num_heads=8, mlp_dim=16, num_classes=0,
        class_token=False, class_position=False, pooling="gap", activation="swiglu", norm="rms", embed_norm=True,
        qkv_bias=False, out_bias=False, mlp_bias=False, norm_eps=1e-5, posemb_resize="bicubic_antialias",
    )  # fmt: skip
    model = create(VisionTransformer, config)
    converted, plan = convert_with_plan(export(model, layout="timm_aimv2"))
    assert plan.layout.name == "timm_aimv2"
    assert converted.config == replace(config, preprocess=converted.config.preprocess)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(model), jax.tree.leaves(converted), strict=True))
