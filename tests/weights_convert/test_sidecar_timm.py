"""timm's config.json: architectures against timm's registry, model arguments, preprocessing."""

import json

import pytest

from tests import live_timm
from vit_jax import InputError
from weights_convert.sidecar import read_sidecar
from weights_convert.sidecar.timm_architectures import find_architecture

PLAIN = {"architecture": "vit_base_patch16_224"}


def read(folder, config):
    (folder / "config.json").write_text(json.dumps(config))
    return read_sidecar(folder)


def test_a_config_with_everything(tmp_path):
    sidecar = read(
        tmp_path,
        {
            "architecture": "vit_base_patch16_224.augreg_in21k",
            "num_classes": 2,
            "global_pool": "avg",
            "label_names": ["cat", "dog"],
            "model_args": {
                "num_heads": 6, "act_layer": "quick_gelu", "norm_layer": "layernorm", "img_size": [32, 64], "patch_size": 8,
                "proj_drop_rate": 0.1, "attn_drop_rate": 0.2, "drop_path_rate": 0.3, "qk_norm": False, "init_values": None,
            },
            "pretrained_cfg": {
                "input_size": [3, 224, 224], "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear",
                "crop_pct": 0.95, "crop_mode": "squash",
            },
        },
    )  # fmt: skip
    assert sidecar.family == "timm"
    assert sidecar.image_size == (32, 64)
    assert sidecar.class_names == ("cat", "dog")
    assert dict(sidecar.config_fields) == {
        "num_heads": 6, "activation": "quick_gelu", "norm_eps": 1e-6, "pooling": "gap", "dropout": 0.1,
        "attention_dropout": 0.2, "drop_path": 0.3,
    }  # fmt: skip
    assert dict(sidecar.preprocess_fields) == {
        "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4), "kernel": "bilinear", "crop": 0.95, "squash": True,
    }  # fmt: skip


def test_missing_preprocessing_fields_have_timms_defaults(tmp_path):
    """See timm.data.resolve_data_config. A config without any field leaves them to the layout."""
    fields = read(tmp_path, PLAIN | {"pretrained_cfg": {"crop_pct": None, "mean": [0.5, 0.5, 0.5]}}).preprocess_fields
    assert fields["crop"] == 0.875
    assert (fields["mean"], fields["std"]) == ((0.5, 0.5, 0.5), (0.229, 0.224, 0.225))
    assert (fields["kernel"], fields["squash"]) == ("bicubic", False)
    assert read(tmp_path, PLAIN | {"pretrained_cfg": {}}).preprocess_fields == {}


def test_defaults_equal_live_timms(tmp_path):
    live_timm.load()
    from timm.data import resolve_data_config

    stated = {"mean": [0.5, 0.5, 0.5]}
    expected = resolve_data_config(pretrained_cfg=dict(stated))
    fields = read(tmp_path, PLAIN | {"pretrained_cfg": stated}).preprocess_fields
    assert (fields["crop"], fields["kernel"]) == (expected["crop_pct"], expected["interpolation"])
    assert fields["std"] == expected["std"]
    assert expected["crop_mode"] == "center"


def test_the_old_flat_form(tmp_path):
    config = PLAIN | {
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "crop_pct": 0.9,
        "input_size": [3, 384, 256],
        "labels": ["a"],
    }
    sidecar = read(tmp_path, config)
    assert (sidecar.preprocess_fields["crop"], sidecar.preprocess_fields["mean"]) == (0.9, (0.5, 0.5, 0.5))
    assert sidecar.image_size == (384, 256)
    assert sidecar.class_names == ("a",)


def test_the_wrapper_of_transformers(tmp_path):
    config = PLAIN | {
        "model_type": "timm_wrapper",
        "pretrained_cfg": {"crop_pct": 1.0},
        "architectures": ["TimmWrapperModel"],
    }
    sidecar = read(tmp_path, config)
    assert (sidecar.family, sidecar.preprocess_fields["crop"]) == ("timm", 1.0)


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"global_pool": "token"}, "cls"),
        ({"global_pool": "avg"}, "gap"),
        ({"global_pool": "map"}, "map"),
        ({"global_pool": "map", "architecture": "vit_pe_core_base_patch16_224"}, "map_all"),
        ({"model_args": {"global_pool": "avg"}}, "gap"),
        ({"global_pool": "avg", "model_args": {"global_pool": "avg", "pool_include_prefix": True}}, "mean"),
        ({"global_pool": "token", "model_args": {"pool_include_prefix": True}}, "cls"),
        ({}, None),
    ],
)
def test_pooling(tmp_path, config, pooling):
    assert read(tmp_path, PLAIN | config).config_fields.get("pooling") == pooling


def test_a_model_that_returns_every_token_is_noted(tmp_path):
    assert "every token" in read(tmp_path, PLAIN | {"global_pool": "", "num_classes": 0}).notes[0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architecture": "resnet50"}, "'resnet50' of timm is not supported"),
        ({"model_args": {"act_layer": "silu"}}, "unknown act_layer 'silu': one of gelu"),
        ({"model_args": {"norm_layer": "rmsnorm"}}, "unknown norm_layer 'rmsnorm': one of layernorm"),
        ({"model_args": {"qk_norm": True}}, "not supported: qk_norm = True"),
        ({"model_args": {"pos_embed": "none"}}, "not supported: pos_embed = 'none'"),
        ({"model_args": {"rotary": 1}}, "model_args has rotary, whose effect is not known"),
        ({"global_pool": "avgmax"}, "unknown global_pool 'avgmax': one of token, avg, map"),
        (
            {"global_pool": "avg", "model_args": {"global_pool": "token"}},
            "global_pool is 'avg', but 'token' in model_args",
        ),
        (
            {"global_pool": "map", "model_args": {"pool_include_prefix": True}},
            "pool_include_prefix = True with global_pool",
        ),
        ({"global_pool": "", "num_classes": 10}, "global_pool = '' with a head"),
        ({"pretrained_cfg": {"crop_mode": "border"}}, "not supported: crop_mode = 'border'"),
        ({"pretrained_cfg": {"crop_pct": 1.1}}, "not supported: crop_pct = 1.1"),
        ({"pretrained_cfg": {"interpolation": "random"}}, "unknown interpolation 'random': one of nearest"),
        ({"pretrained_cfg": {"mean": [0.5, 0.5]}}, "mean .* of 3 channels"),
        ({"pretrained_cfg": {"input_size": [3, "wide"]}}, "not understood"),
        ({"label_names": {"0": "a", "5": "b"}}, "class numbers are not 0 to 1"),
        ({"architecture": None, "model_type": "timm_wrapper"}, "'None' of timm is not supported"),
    ],
)
def test_configs_that_are_refused(tmp_path, config, message):
    with pytest.raises(InputError, match=f"/config.json: .*{message}"):
        read(tmp_path, PLAIN | config)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("vit_tiny_patch16_224", {"num_heads": 3, "activation": "gelu", "norm_eps": 1e-6}),
        ("deit_small_distilled_patch16_224", {"num_heads": 6}),
        ("vit_base_patch32_224_clip_laion2b", {"num_heads": 12, "norm_eps": 1e-5}),  # an older name
        ("vit_large_patch14_clip_quickgelu_336", {"activation": "quick_gelu", "norm_eps": 1e-5}),
        ("vit_so400m_patch14_siglip_384", {"num_heads": 16, "activation": "gelu"}),
        ("vit_so400m_patch16_siglip_gap_256", {"num_heads": 16, "activation": "gelu_tanh"}),
        ("vit_giant_patch14_clip_224", {"num_heads": 16}),
        ("vit_giant_patch14_reg4_dinov2", {"num_heads": 24}),
        ("eva02_base_patch16_clip_224", {"num_heads": 12, "norm_eps": 1e-6}),
        ("vit_huge_plus_patch16_dinov3", {"num_heads": 20, "norm_eps": 1e-5}),
        ("vit_pe_spatial_gigantic_patch14_448", {"num_heads": 16, "norm_eps": 1e-5}),
        ("vit_small_patch16_rope_ape_224", {"num_heads": 6, "norm_eps": 1e-6}),
        ("aimv2_large_patch14_224", {"num_heads": 8, "activation": "swiglu", "norm_eps": 1e-5}),
        ("aimv2_3b_patch14_448", {"num_heads": 24}),
        ("vit_giant_patch14_reg1_tipsv2", {"num_heads": 24}),
        ("beitv2_large_patch16_224", {"num_heads": 16, "norm_eps": 1e-6}),
        ("flexivit_base", {"num_heads": 12, "posemb_resize": "bilinear"}),
    ],
)
def test_what_names_state(name, fields):
    assert fields.items() <= find_architecture(name).items()


@pytest.mark.parametrize(
    "name",
    [
        "vit_base_patch16_rope_mixed_224", "vit_relpos_base_patch16_224", "vit_base_r50_s16_224",
        "samvit_base_patch16", "vit_base_patch16_rpn_224", "vit_base_patch16_xp_224", "vit_small_patch16_18x2_224",
        "vit_dlittle_patch16_reg1_gap_256", "vit_so150m_patch16_reg4_gap_256", "beit3_base_patch16_224",
        "eva02_enormous_patch14_clip_224", "naflexvit_base_patch16_gap", "vit_base_mci_224",
    ],
)  # fmt: skip
def test_architectures_that_are_refused(name):
    with pytest.raises(InputError, match=f"{name}' of timm is not supported"):
        find_architecture(name)


ACTIVATIONS = {
    "GELU(approximate='none')": "gelu",
    "GELUTanh()": "gelu_tanh",
    "QuickGELU()": "quick_gelu",
    "SiLU()": "gelu",
}


def is_plain(model):
    """Return whether a model of timm is what VisionTransformer here computes."""
    from timm.layers import Attention, LayerNorm, PatchEmbed
    from timm.models.vision_transformer import Block
    from torch import nn

    block = model.blocks[0]
    return (
        type(block) is Block
        and type(block.attn) is Attention
        and type(block.norm1) is LayerNorm
        and type(model.patch_embed) is PatchEmbed
        and all(
            isinstance(module, nn.Identity)
            for module in (block.attn.q_norm, block.attn.norm, block.mlp.norm, model.patch_embed.norm)
        )
        and model.pos_embed is not None
        and (model.no_embed_class or not model.num_reg_tokens)
        and not model.pool_include_prefix
    )


def has_known_positions(model):
    """Return whether a model of timm's Eva or Beit class is one that this library has."""
    from timm.layers import LayerNorm
    from timm.models import beit, eva
    from torch import nn

    block = model.blocks[0]
    return (
        type(block) in (beit.Block, eva.EvaBlock)
        and type(block.norm1) is LayerNorm
        and not getattr(model, "rope_mixed", False)
        and isinstance(getattr(block.attn, "q_norm", nn.Identity()), nn.Identity)
        and getattr(block.attn, "gate", None) is None
    )


@pytest.mark.slow
def test_every_architecture_of_live_timm():
    """The names that are supported are those of such models, and they state what the models have."""
    timm = live_timm.load()
    plain = {}
    kinds = {"vision_transformer": is_plain, "deit": is_plain, "eva": has_known_positions, "beit": has_known_positions}
    for module, is_supported in kinds.items():
        for name in timm.list_models(module=module):
            model = timm.create_model(name, device="meta")
            if is_supported(model) and not name.startswith("test_") and "lingbot" not in name:
                block = model.blocks[0]
                activation = ACTIVATIONS[str(block.mlp.act)]  # SiLU is of the gated MLPs, which the arrays show
                plain[name] = {
                    "num_heads": block.attn.num_heads, "activation": activation, "norm_eps": block.norm1.eps,
                }  # fmt: skip
    assert len(plain) > 100
    stated = {}
    for name in timm.list_models():
        try:
            stated[name] = find_architecture(name)
        except InputError:
            continue
    assert {name: {key: fields[key] for key in plain[name]} for name, fields in stated.items()} == plain
