"""What shapes show: grids, patches, heads; and what each layout declares."""

from dataclasses import replace

import pytest

from vit_jax import InputError
from vit_jax.preprocess import Preprocess
from weights_convert.layouts import LAYOUTS
from weights_convert.layouts.inference import count_rows, infer_distances, infer_flat_patch, infer_grid, infer_positions
from weights_convert.layouts.preprocessing import (
    CLIP,
    CLIP_HF,
    DEIT_HF,
    GOOGLE,
    IMAGENET,
    IMAGENET_HF,
    SIGLIP,
    SQUASH_HF,
    TIPSV2,
    TORCHVISION,
)

PATCH = (8, 8)


@pytest.mark.parametrize(
    ("num_positions", "image_size", "grid"),
    [
        (16, None, (4, 4)),
        (16, (16, 64), (2, 8)),  # a stated size beats the square
        (16, (48, 48), (4, 4)),  # the size to resize to
        (8, (16, 32), (2, 4)),
    ],
)
def test_grids(num_positions, image_size, grid):
    assert infer_grid(num_positions, PATCH, image_size) == grid


@pytest.mark.parametrize("image_size", [None, (32, 32)])
def test_a_grid_that_is_no_square_must_be_stated(image_size):
    with pytest.raises(InputError, match=r"8 positions are no square grid; give the image size .*--image-size"):
        infer_grid(8, PATCH, image_size)


@pytest.mark.parametrize(
    ("num_positions", "num_prefix", "options", "expected"),
    [
        (17, 1, {}, ((4, 4), True)),
        (17, 1, dict(image_size=(16, 64)), ((2, 8), True)),
        (196, 1, {}, ((14, 14), False)),  # DeiT-III
        (256, 1, {}, ((16, 16), False)),
        (9, 1, dict(image_size=(16, 32)), ((2, 4), True)),
        (9, 1, dict(image_size=(24, 24)), ((3, 3), False)),
        (9, 1, dict(has_registers=True), ((3, 3), False)),
        (16, 0, {}, ((4, 4), False)),
        (198, 2, {}, ((14, 14), True)),  # DeiT with a distillation token
    ],
)
def test_positions_of_prefix_tokens(num_positions, num_prefix, options, expected):
    options = dict(image_size=None) | options
    assert infer_positions(num_positions, num_prefix, PATCH, **options) == expected


@pytest.mark.parametrize("image_size", [None, (48, 48)])
def test_positions_with_two_readings_are_refused(image_size):
    with pytest.raises(InputError, match=r"9 positions may be 3x3 patches, or 1 and 8 patches .* give the image size"):
        infer_positions(9, 1, PATCH, image_size)


@pytest.mark.parametrize(
    ("num_values", "options", "expected"),
    [
        (48, {}, (4, 3)),
        (768, {}, (16, 3)),
        (16, {}, (4, 1)),
        (16, dict(in_channels=4), (2, 4)),
        (48, dict(in_channels=1), (4, 3)),  # to adapt 3 channels to 1
        (160, dict(in_channels=10), (4, 10)),
        (160, dict(image_size=(16, 24), num_patches=24), (4, 10)),
    ],
)
def test_flat_patches(num_values, options, expected):
    assert infer_flat_patch(num_values, **options) == expected


@pytest.mark.parametrize("options", [{}, dict(image_size=(32, 32), num_patches=24), dict(in_channels=3)])
def test_flat_patches_that_fit_nothing(options):
    with pytest.raises(InputError, match=r"patches of 160 values .* give the number of channels \(--in-channels\)"):
        infer_flat_patch(160, **options)


@pytest.mark.parametrize(
    ("num_entries", "image_size", "grid"),
    [
        (732, None, (14, 14)),
        (3 * 5 + 3, (16, 24), (2, 3)),
        (1 * 9 + 3, (8, 40), (1, 5)),
        (1 * 9 + 3, None, (2, 2)),  # a square, which 1x5 may also be
        (1 * 9 + 3, (80, 80), (2, 2)),  # the size to resize to
    ],
)
def test_grids_of_relative_positions(num_entries, image_size, grid):
    assert infer_distances(num_entries, PATCH, image_size) == grid


def test_relative_positions_of_no_grid():
    with pytest.raises(InputError, match=r"18 relative positions are of no square grid; .* \(--image-size\)"):
        infer_distances(18, PATCH, None)
    with pytest.raises(InputError, match="7 relative positions"):
        infer_distances(7, PATCH, None)


def test_empty_heads_are_no_heads():
    timm = LAYOUTS["timm"]
    assert count_rows({"head.weight": (0, 64)}, "head.weight") == 0
    assert timm.is_unused("head.weight", (0, 64))
    assert timm.is_unused("decoder_embed.weight", (8, 8))
    assert not timm.is_unused("head.weight", (10, 64))


PREPROCESS = {  # layout, a name that decides -> preprocess
    ("lukemelas", "x"): GOOGLE,
    ("google", "x"): GOOGLE,
    ("dinov2", "x"): IMAGENET,
    ("hf_dinov2", "x"): IMAGENET_HF,
    ("hf_clip", "x"): CLIP_HF,
    ("openai_clip", "x"): CLIP,
    ("hf_siglip", "x"): SIGLIP,
    ("torchvision", "x"): TORCHVISION,
    ("hf_vit", "embeddings.cls_token"): GOOGLE,
    ("hf_vit", "x"): SQUASH_HF,  # I-JEPA
    ("flax_vit", "embeddings.cls_token"): GOOGLE,
    ("flax_dinov2", "x"): IMAGENET_HF,
    ("flax_clip", "x"): CLIP_HF,
    ("timm", "dist_token"): IMAGENET,
    ("timm", "decoder_pos_embed"): IMAGENET,
    ("timm", "norm_pre.weight"): CLIP,
    ("timm", "attn_pool.latent"): SIGLIP,
    ("timm", "x"): None,
    ("timm_eva", "pos_embed"): replace(CLIP, crop=0.9),  # EVA-02
    ("timm_eva", "cls_token"): replace(IMAGENET, crop=0.9),  # RoPE-ViT
    ("timm_eva", "reg_token"): None,  # timm's own
    ("timm_pe", "x"): Preprocess(kernel="bicubic", crop=1.0),
    ("beit", "x"): None,  # BEiT's and BEiTv2's differ
    ("dinov3", "x"): SQUASH_HF,
    ("hf_dinov3", "x"): SQUASH_HF,
    ("hf_beit", "x"): SIGLIP,
    ("hf_aimv2", "x"): CLIP_HF,
    ("timm_aimv2", "x"): CLIP,
    ("vit_pytorch", "x"): None,
    ("simple_vit", "x"): None,
    ("torch_encoder", "x"): None,
    ("catr", "x"): None,
}


@pytest.mark.parametrize(("layout", "name"), PREPROCESS)
def test_each_layout_declares_its_preprocess(layout, name):
    assert LAYOUTS[layout].preprocess({name: (1,)}) == PREPROCESS[layout, name]


def test_preprocess_of_several_names():
    assert LAYOUTS["timm"].preprocess({"blocks.0.ls1.gamma": (8,), "mask_token": (1, 8)}) == IMAGENET
    assert LAYOUTS["timm"].preprocess({"blocks.0.ls1.gamma": (8,)}) is None
    dinov3 = {"cls_token": (1, 1, 8), "reg_token": (1, 4, 8)}
    assert LAYOUTS["timm_eva"].preprocess(dinov3) == replace(IMAGENET, crop=1.0)
    mae = {"embeddings.cls_token": (1, 1, 8), "decoder.decoder_embed.weight": (8, 8)}
    assert LAYOUTS["hf_vit"].preprocess(mae) == SQUASH_HF
    deit = {"embeddings.cls_token": (1, 1, 8), "embeddings.distillation_token": (1, 1, 8)}
    assert LAYOUTS["hf_vit"].preprocess(deit) == DEIT_HF
    assert LAYOUTS["dinov2"].preprocess({"register_tokens": (1, 1, 8)}) == TIPSV2
    assert LAYOUTS["hf_dinov2"].preprocess({"embeddings.register_tokens": (1, 1, 8)}) == TIPSV2
    assert {layout for layout, _ in PREPROCESS} == set(LAYOUTS)


def test_the_numbers_of_the_families():
    assert (IMAGENET.mean, IMAGENET.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (IMAGENET.kernel, IMAGENET.crop, TORCHVISION.kernel) == ("bicubic", 224 / 256, "bilinear")
    assert (CLIP.mean, CLIP.crop) == ((0.48145466, 0.4578275, 0.40821073), 1.0)
    assert CLIP.std == (0.26862954, 0.26130258, 0.27577711)
    assert (IMAGENET.squash, IMAGENET.centre, CLIP.centre) == (False, "round", "round")
    assert (DEIT_HF.crop, DEIT_HF.squash, DEIT_HF.centre, CLIP_HF.centre) == (0.875, True, "floor", "floor")
    assert (SQUASH_HF.mean, SQUASH_HF.kernel, SQUASH_HF.crop) == (IMAGENET.mean, "bilinear", None)
    assert (SIGLIP.mean, SIGLIP.kernel, SIGLIP.crop) == ((0.5, 0.5, 0.5), "bicubic", None)
    assert (TIPSV2.mean, TIPSV2.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert (TIPSV2.kernel, TIPSV2.crop) == ("bilinear", None)
    assert (GOOGLE.mean, GOOGLE.kernel, GOOGLE.crop) == ((0.5, 0.5, 0.5), "bilinear", None)


def test_each_layout_declares_its_sidecar_family():
    families = {name: layout.sidecar_family for name, layout in LAYOUTS.items() if layout.sidecar_family}
    names = (
        "dinov2",  # TIPSv2's
        "hf_vit",
        "hf_dinov2",
        "hf_dinov3",
        "hf_beit",
        "hf_clip",
        "hf_siglip",
        "hf_aimv2",
        "flax_vit",
        "flax_dinov2",
        "flax_clip",
    )
    timm = dict.fromkeys(["timm", "timm_eva", "timm_pe", "timm_aimv2", "beit"], "timm")
    assert families == dict.fromkeys(names, "hf") | timm | {"openai_clip": "openai"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_missing_arrays_are_key_errors(layout):
    with pytest.raises(KeyError):
        LAYOUTS[layout].infer_architecture({}, (32, 32))
