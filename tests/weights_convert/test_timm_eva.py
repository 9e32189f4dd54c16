"""timm's Eva and Beit classes: which model the names show, live parity with timm, and the way back."""

import json
import re
from dataclasses import replace

import jax
import numpy as np
import pytest

import tests.reference as reference
from tests import live_timm
from tests.create import create
from tests.optional import torch
from tests.weights_convert.originals import check_arrays, randomize
from vit_jax import InputError, VisionTransformer, ViTConfig, forward_with_attention
from vit_jax.position import relative_position_index
from weights_convert import export
from weights_convert._convert import convert_with_plan, open_arrays
from weights_convert.layouts import rotary
from weights_convert.layouts.timm_eva import EVA
from weights_convert.plan import Request, plan_conversion

SMALL = dict(img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3)
EVA02 = dict(swiglu_mlp=True, mlp_ratio=8 / 3, use_rot_pos_emb=True, ref_feat_shape=(16, 16))
SEPARATE = EVA02 | dict(qkv_fused=False, scale_mlp=True)
ROPE = dict(attn_type="rope", init_values=0.1, use_rot_pos_emb=True)
PERCEPTION = dict(
    attn_type="rope", use_pre_transformer_norm=True, use_rot_pos_emb=True, ref_feat_shape=(4, 4), rope_grid_offset=1.0,
    rope_grid_indexing="xy",
)  # fmt: skip
EPS = 1e-5
# Name -> (class, its arguments, layout, arguments that arrays do not show).
CASES = {
    "EVA": ("Eva", dict(num_classes=5), "timm_eva"),
    "EVA-02 tiny": ("Eva", EVA02 | dict(num_classes=5), "timm_eva"),
    "EVA-02 base": ("Eva", SEPARATE | dict(num_classes=0), "timm_eva"),
    "EVA-02 CLIP": ("Eva", SEPARATE | dict(scale_attn_inner=True, global_pool="token", num_classes=5), "timm_eva"),
    "DINOv3": (
        "Eva",
        dict(
            num_classes=0, init_values=0.1, rope_type="dinov3", rope_temperature=100, rope_rotate_half=True, eps=EPS,
            use_rot_pos_emb=True, use_abs_pos_emb=False, num_reg_tokens=4, use_fc_norm=False, swiglu_mlp=True,
            swiglu_align_to=8,
        ),
        "timm_eva",
    ),
    "RoPE, registers, mean": (
        "Eva",
        dict(
            num_classes=5, init_values=0.1, class_token=False, num_reg_tokens=2, use_rot_pos_emb=True,
            use_abs_pos_emb=False, ref_feat_shape=(16, 16),
        ),
        "timm_eva",
    ),
    "RoPE-ViT": (
        "Eva",
        ROPE | dict(num_classes=5, global_pool="token", use_abs_pos_emb=False, rope_grid_indexing="xy", rope_temperature=100.0),
        "timm_eva",
    ),
    "RoPE-ViT with a table": (
        "Eva",
        ROPE | dict(num_classes=5, global_pool="token", no_embed_class=True, rope_grid_indexing="xy", rope_temperature=100.0),
        "timm_eva",
    ),
    "Perception Encoder, core": ("Eva", PERCEPTION | dict(global_pool="map", attn_pool_num_heads=8, num_classes=5, eps=EPS), "timm_pe"),
    "Perception Encoder, spatial": (
        "Eva",
        PERCEPTION | dict(use_post_transformer_norm=False, use_fc_norm=False, init_values=0.1, num_classes=0, eps=EPS),
        "timm_pe",
    ),
    "BEiT": ("Beit", dict(num_classes=5, use_abs_pos_emb=False, use_rel_pos_bias=True, init_values=0.1, qkv_bias=True), "beit"),
    "BEiT, shared bias, [class]": (
        "Beit",
        dict(
            num_classes=0, use_abs_pos_emb=False, use_shared_rel_pos_bias=True, init_values=0.1, qkv_bias=True,
            global_pool="token",
        ),
        "beit",
    ),
}  # fmt: skip
forward = jax.jit(forward_with_attention)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def make(timm, case, **changes):
    """Return a small random float64 model of timm."""
    kind, options, _ = CASES[case]
    options = dict(options)
    eps = options.pop("eps", 1e-6)
    model = {"Eva": timm.models.eva.Eva, "Beit": timm.models.beit.Beit}[kind](
        **SMALL | options | changes, norm_layer=lambda *sizes, **more: timm.layers.LayerNorm(*sizes, eps=eps, **more)
    )
    return randomize(model)


def run_original(original, x):
    """Return timm's output, features and attention weights, at any size."""
    recorded = []
    for block in original.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_pre_hook(lambda _, inputs: recorded.append(inputs[0].numpy()))
    pixels = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        output, count = original(pixels).numpy(), len(recorded)
        return output, original.forward_features(pixels).numpy(), recorded[:count]


@pytest.mark.parity
@pytest.mark.parametrize("case", CASES)
def test_parity_with_timm_and_the_way_back(case, x64, exact_timm):
    is_beit = CASES[case][0] == "Beit"
    original = make(exact_timm, case, **({} if is_beit else dict(dynamic_img_size=True)))
    arrays = reference.state_arrays(original)
    model, plan = convert_with_plan(arrays, num_heads=3, image_size=(32, 32))
    assert plan.layout.name == CASES[case][2]
    for size in ((32, 32), (24, 40)):
        if is_beit:
            original.set_input_size(size)
        x = reference.images(3, 2, *size)
        logits, features, attention = run_original(original, x)
        output = forward(model, x)
        assert reference.relative_error(output.logits, logits) < 1e-9
        assert reference.relative_error(output.features, features) < 1e-9
        for actual, expected in zip(output.attention, attention, strict=True):
            assert reference.relative_error(actual, expected) < 1e-9
    check_arrays(export(model, layout=plan.layout.name), arrays)


@pytest.mark.parity
def test_timms_own_angles_differ_by_their_rounding_alone(x64):
    original = make(live_timm.load(), "EVA-02 tiny")
    model, _ = convert_with_plan(reference.state_arrays(original), num_heads=3)
    x = reference.images(3, 2, 32, 32)
    assert reference.relative_error(forward(model, x).logits, run_original(original, x)[0]) < 1e-6


TIMM = ViTConfig(
    image_size=(32, 32), patch_size=(8, 8), width=48, depth=2, num_heads=3, mlp_dim=64, num_classes=5, key_bias=False,
    posemb_resize="bicubic_antialias",
)  # fmt: skip
GATED = replace(TIMM, activation="swiglu", rotary=rotary.EVA)
NAMED = {
    "EVA": ("timm_eva", replace(TIMM, pooling="gap", final_norm="pooled")),
    "EVA-02 tiny": ("timm_eva", replace(GATED, pooling="gap", final_norm="pooled")),
    "EVA-02 base": ("timm_eva", replace(GATED, pooling="gap", final_norm="pooled", mlp_norm=True)),
    "EVA-02 CLIP": ("timm_eva", replace(GATED, mlp_norm=True, attention_norm=True)),
    "RoPE-ViT": (
        "timm_eva",
        replace(TIMM, key_bias=True, rotary=rotary.ROPE_VIT, position_table=False, layer_scale=True),
    ),
    "Perception Encoder": (
        "timm_pe",
        replace(
            TIMM, key_bias=True, rotary=rotary.perception((4, 4)), pooling="map_all", pool_heads=8, pre_norm=True,
            patch_bias=False, norm_eps=1e-5,
        ),
    ),
    "BEiT": (
        "beit",
        replace(
            TIMM, position_table=False, relative_bias="blocks", posemb_resize="geometric", layer_scale=True,
            pooling="gap", final_norm="pooled",
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_names_and_shapes_show_the_architecture(name):
    """Of a model that is exported; none is taken for another layout's."""
    layout, config = NAMED[name]
    model = create(VisionTransformer, config)
    for block in model.blocks:
        if not config.key_bias:
            block.attn.qkv.bias[...] = block.attn.qkv.bias[...].at[48:96].set(0.0)
    arrays = export(model, layout=layout)
    converted, plan = convert_with_plan(arrays, num_heads=3, image_size=(32, 32))
    assert plan.layout.name == layout
    assert converted.config == replace(config, preprocess=converted.config.preprocess)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(model), jax.tree.leaves(converted), strict=True))


def golden_shapes(name):
    stored = json.loads((reference.GOLDEN / "timm_modern_state_dict.json").read_text())
    return {key: np.broadcast_to(np.float32(0), shape) for key, shape in stored[name].items()}


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("vit_small_patch16_dinov3_qkvb", "rotary (half, centred, yx, periods 100 ** (4 j / K))"),
        ("eva02_tiny_patch14_224", "rotary (interleaved, index scaled to 16x16, yx, periods 10000 ** (4 j / K))"),
        (
            "vit_pe_core_tiny_patch16_384",
            "rotary (interleaved, index from 1 scaled to 24x24, xy, periods 10000 ** (4 j",
        ),
        ("beit_base_patch16_224", "relative_bias blocks"),
    ],
)
def test_the_position_convention_is_printed(name, line):
    plan = plan_conversion(open_arrays(golden_shapes(name)).arrays, Request())
    assert any(line in text for text in plan.settings.describe())


def test_beits_stored_index_is_compared():
    config = ViTConfig(
        image_size=(16, 24), patch_size=(8, 8), width=16, depth=1, num_heads=2, mlp_dim=24, num_classes=3, key_bias=False,
        relative_bias="blocks", position_table=False, posemb_resize="geometric", layer_scale=True,
    )  # fmt: skip
    arrays = export(create(VisionTransformer, config), layout="beit")
    name, index = "blocks.0.attn.relative_position_index", relative_position_index((2, 3))
    options = dict(num_heads=2, image_size=(16, 24))
    assert convert_with_plan(arrays | {name: index}, **options)[1].unused == ()
    with pytest.raises(InputError, match=f"{name} does not hold"):
        convert_with_plan(arrays | {name: index[::-1]}, **options)


def test_what_the_class_has_and_this_library_does_not_is_refused():
    shapes = {name: array.shape for name, array in golden_shapes("eva02_tiny_patch14_224").items()}
    with pytest.raises(InputError, match=re.escape("learned (mixed) frequencies")):
        EVA.infer_architecture(shapes | {"rope.freqs": (2, 12, 3, 32)}, None)
    with pytest.raises(InputError, match="enormous CLIP, whose norms follow each branch"):
        EVA.infer_architecture(shapes | {"patch_embed.proj.weight": (1792, 3, 14, 14)}, None)
