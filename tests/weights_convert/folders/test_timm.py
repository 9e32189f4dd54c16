"""Folders for timm: what create_model loads equals the model, its class names and its preprocessing."""

import jax
import numpy as np
import pytest

import tests.live_timm as live_timm
import tests.reference as reference
from tests.optional import torch
from tests.pictures import SIZES, noise
from tests.weights_convert.folders.models import IMAGENET, NAMES, assert_same_when_read_back, make
from vit_jax import InputError
from vit_jax.preprocess import Preprocess
from weights_convert.folders import write_folder

TIMM = {"posemb_resize": "bicubic_antialias"}
NO_CLASS_TOKEN = TIMM | {"class_token": False, "class_position": False}
CASES = {
    "ViT": TIMM | {"preprocess": IMAGENET},
    "other settings": TIMM
    | {
        "activation": "relu",
        "qkv_bias": False,
        "patch_size": (8, 16),
        "image_size": (24, 48),
        "mlp_dim": 83,
        "dropout": 0.1,
    },
    "CLIP": TIMM | {"pre_norm": True, "patch_bias": False, "activation": "quick_gelu", "norm_eps": 1e-5},
    "torch's eps": TIMM | {"norm_eps": 1e-5, "layer_scale": True},
    "distilled": TIMM | {"distillation_token": True, "distillation_head": True},
    "registers": TIMM | {"num_registers": 3, "class_position": False, "layer_scale": True},
    "average of the patches": TIMM | {"pooling": "gap", "final_norm": "pooled"},
    "average of all tokens": TIMM | {"pooling": "mean"},
    "norm before the average": NO_CLASS_TOKEN | {"pooling": "gap", "activation": "gelu_tanh"},
    "attention pooling": NO_CLASS_TOKEN | {"pooling": "map"},
    "SwiGLU": TIMM | {"activation": "swiglu", "mlp_dim": 88, "layer_scale": True},
    "SwiGLU without layer scale": TIMM | {"activation": "swiglu", "mlp_dim": 88},
}
forward = jax.jit(lambda model, images: model(images))


@pytest.mark.parametrize("case", CASES)
def test_a_folder_is_read_back(case, tmp_path):
    model = make(**CASES[case])
    assert write_folder(model, tmp_path, layout="timm", class_names=NAMES) == ()
    assert_same_when_read_back(tmp_path, model, "timm")


@pytest.mark.parity
@pytest.mark.parametrize("case", CASES)
def test_timm_loads_it_with_equal_logits_and_names(case, x64, tmp_path):
    timm = live_timm.load()
    model = jax.tree.map(lambda values: values.astype("float32").astype("float64"), make(**CASES[case]))
    write_folder(model, tmp_path, layout="timm", class_names=NAMES)
    original = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).double().eval()  # timm loads into float32
    images = reference.images(3, 2, *model.config.image_size)
    with torch.no_grad():
        logits = original(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    assert reference.relative_error(forward(model, images), logits) < 1e-9
    assert tuple(original.pretrained_cfg["label_names"]) == NAMES


@pytest.mark.parity
@pytest.mark.parametrize(
    ("size", "preprocess"),
    [
        ((32, 32), Preprocess()),
        ((24, 40), Preprocess((0.4, 0.5, 0.6), (0.2, 0.3, 0.4), kernel="lanczos")),
        ((32, 32), Preprocess(kernel="bicubic", crop=0.9)),
        ((24, 40), Preprocess(kernel="bicubic", crop=0.9)),
        ((32, 32), Preprocess(kernel="hamming", crop=0.7, squash=True)),
    ],
)
def test_timms_transform_makes_the_models_input(size, preprocess, tmp_path):
    timm = live_timm.load()
    model = make(image_size=size, preprocess=preprocess, **TIMM)
    write_folder(model, tmp_path, layout="timm", class_names=NAMES)
    original = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(original), is_training=False)
    for picture in map(noise, SIZES):
        # float32 rounding of values up to 5: timm divides by 255 and by std in another order; a level is 0.01 or more.
        ours = model.config.image_preprocess(picture)
        np.testing.assert_allclose(ours, transform(picture).numpy().transpose(1, 2, 0), rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm_eps": 1e-12}, "norm_eps 1e-12: it needs norm_eps 1e-06 or 1e-05"),
        ({"distillation_token": True}, "distillation_head True, and this model False"),
        (
            {"distillation_token": True, "distillation_head": True, "pre_norm": True, "patch_bias": False},
            "distilled DeiT has pre_norm False, and this model True",
        ),
        ({"num_registers": 2}, "registers only where"),
        ({"pooling": "cls_gap"}, "no pooling 'cls_gap'"),
        ({"norm_position": "post"}, "norm_position"),
        ({"pre_norm": True}, "patch_bias False, and this model True"),
        ({"preprocess": Preprocess(crop=0.9, centre="floor")}, "--centre round"),
        ({"final_norm": "pooled"}, "timm cannot express final_norm 'pooled'"),
    ],
)
def test_what_timm_cannot_express_is_refused_in_one_line(changes, message, tmp_path):
    with pytest.raises(InputError, match=message) as error:
        write_folder(make(**changes), tmp_path / "out", layout="timm")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
