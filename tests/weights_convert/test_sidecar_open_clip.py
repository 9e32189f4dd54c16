"""open_clip's open_clip_config.json."""

import json

import pytest

from vit_jax import InputError
from weights_convert.sidecar import SidecarConfig, read_sidecar

VISION = {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32}


def read(folder, vision=None, preprocess=None, **model):
    config = {"model_cfg": {"embed_dim": 512, "vision_cfg": VISION | (vision or {}), "text_cfg": {}, **model}}
    config |= {"preprocess_cfg": preprocess} if preprocess is not None else {}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return read_sidecar(folder)


def test_the_defaults_are_open_clips(tmp_path):
    sidecar = read(tmp_path)
    assert (sidecar.family, sidecar.image_size) == ("openai", (224, 224))
    assert dict(sidecar.config_fields) == {"num_heads": 12, "activation": "gelu", "norm_eps": 1e-5, "pooling": "cls"}
    assert dict(sidecar.preprocess_fields) == {
        "mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711), "kernel": "bicubic", "crop": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("vision", "model", "fields"),
    [
        ({"head_width": 96}, {}, {"num_heads": 8}),
        ({}, {"quick_gelu": True}, {"activation": "quick_gelu"}),
        ({"act_kwargs": {"approximate": "tanh"}}, {}, {"activation": "gelu_tanh"}),
        ({"norm_kwargs": {"eps": 1e-6}}, {}, {"norm_eps": 1e-6}),
        ({"pool_type": "avg"}, {}, {"pooling": "gap", "final_norm": "tokens"}),
        ({"pool_type": "avg", "final_ln_after_pool": True}, {}, {"pooling": "gap", "final_norm": "pooled"}),
        ({"no_ln_pre": True, "attentional_pool": False, "patch_dropout": 0.5}, {}, {"pre_norm": False}),
    ],
)
def test_settings_of_the_tower(tmp_path, vision, model, fields):
    assert fields.items() <= read(tmp_path, vision, **model).config_fields.items()


def test_a_tower_of_timm(tmp_path):
    vision = {
        "timm_model_name": "vit_so400m_patch16_siglip_256",
        "timm_pool": "map",
        "timm_proj": "none",
        "image_size": 256,
    }
    sidecar = read(tmp_path, vision, {"mean": 0.5, "std": [0.5] * 3, "resize_mode": "squash"}, quick_gelu=True)
    assert sidecar.family == "timm"
    assert dict(sidecar.config_fields) == {
        "num_heads": 16, "activation": "gelu_tanh", "norm_eps": 1e-6, "pooling": "map",
    }  # fmt: skip
    assert sidecar.preprocess_fields["mean"] == (0.5, 0.5, 0.5)
    assert sidecar.preprocess_fields["crop"] is None
    assert "pooling" not in read(tmp_path, vision | {"timm_pool": ""}).config_fields
    perception = read(tmp_path, vision | {"timm_model_name": "vit_pe_core_base_patch16_224"}).config_fields
    assert perception["pooling"] == "map_all"  # it reads [class] too


@pytest.mark.parametrize(
    ("size", "interpolation", "kernel"),
    [(224, "bilinear", "bilinear"), (224, "random", "bicubic"), ([224, 320], "bilinear", "bicubic")],
)
def test_interpolation(tmp_path, size, interpolation, kernel):
    """Of a size that is not square, open_clip resizes the shorter side by its default, whatever the config says."""
    assert read(tmp_path, {"image_size": size}, {"interpolation": interpolation}).preprocess_fields["kernel"] == kernel


@pytest.mark.parametrize(
    ("vision", "preprocess", "message"),
    [
        ({"attentional_pool": True}, {}, "not supported: attentional_pool = True"),
        ({"pool_type": "none"}, {}, "unknown pool_type 'none': one of tok, avg"),
        ({"layers": [3, 4, 6, 3]}, {}, "not supported: a ResNet tower"),
        ({"act_kwargs": {"slope": 1}}, {}, "act_kwargs has slope"),
        ({"norm_kwargs": {"elementwise_affine": False}}, {}, "norm_kwargs has elementwise_affine"),
        ({"block_type": "custom"}, {}, "not supported: block_type = 'custom'"),
        ({"scale_fc": True}, {}, "not supported: scale_fc = True"),
        ({"rope": True}, {}, "vision_cfg has rope, whose effect is not known"),
        ({"timm_model_name": "vit_base_mci_224"}, {}, "'vit_base_mci_224' of timm is not supported"),
        ({"timm_model_name": "vit_base_patch16_224", "timm_pool": "abs_attn"}, {}, "unknown timm_pool 'abs_attn'"),
        ({"timm_model_name": "vit_base_patch16_224", "timm_proj": "mlp"}, {}, "not supported: timm_proj = 'mlp'"),
        ({}, {"resize_mode": "longest"}, "unknown resize_mode .*'longest'"),
        ({}, {"interpolation": "nearest"}, "unknown interpolation 'nearest'"),
        ({}, {"mode": "L"}, "not supported: mode = 'L'"),
        ({"head_width": 0}, {}, "head_width is a whole number above 0, not 0"),
    ],
)
def test_configs_that_are_refused(tmp_path, vision, preprocess, message):
    with pytest.raises(InputError, match=f"/open_clip_config.json: .*{message}"):
        read(tmp_path, vision, preprocess)


def test_a_config_without_a_model_is_refused(tmp_path):
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(InputError, match="it has no 'model_cfg'"):
        read_sidecar(tmp_path)


def test_a_folder_with_the_configs_of_two_libraries(tmp_path):
    """The same model as open_clip and as transformers saved it: the file's layout decides which config applies."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": {"hidden_act": "gelu"}}))
    sidecar = read(tmp_path)
    assert sidecar.for_family("openai") is sidecar
    assert sidecar.for_family("hf").config_fields["activation"] == "gelu"
    assert sidecar.for_family("google") == SidecarConfig()
