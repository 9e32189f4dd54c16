"""Folders for transformers: what its Auto classes load equals the model, its labels and its preprocessing."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

import tests.reference as reference
import vit_jax
from tests.optional import torch
from tests.pictures import SIZES, noise
from tests.weights_convert.folders.models import IMAGENET, NAMES, assert_same_when_read_back, make
from vit_jax import InputError
from vit_jax.position import Rotary
from vit_jax.preprocess import Preprocess
from weights_convert import convert
from weights_convert.__main__ import main
from weights_convert.folders import write_folder

pytestmark = pytest.mark.parity

transformers = pytest.importorskip("transformers")

VIT = {"norm_eps": 1e-12, "posemb_resize": "bicubic"}
NO_CLASS_TOKEN = {"class_token": False, "pooling": "gap"}
IJEPA = NO_CLASS_TOKEN | {"class_position": False}
DINOV2 = VIT | {"layer_scale": True, "pooling": "cls_gap", "mlp_dim": 96, "norm_eps": 1e-6}
CLIP = {"posemb_resize": "bicubic", "pre_norm": True, "patch_bias": False, "activation": "quick_gelu", "norm_eps": 1e-5}
BEIT = {"norm_eps": 1e-12, "posemb_resize": "bilinear", "key_bias": False, "layer_scale": True}
DINOV3 = {
    "norm_eps": 1e-5, "position_table": False, "rotary": Rotary(temperature=50.0), "num_registers": 4,
    "layer_scale": True, "key_bias": False,
}  # fmt: skip
TIPSV2 = VIT | {"layer_scale": True, "norm_eps": 1e-6, "num_registers": 1, "posemb_resize": "bilinear_antialias"}
AIMV2 = NO_CLASS_TOKEN | {
    "class_position": False, "norm": "rms", "embed_norm": True, "activation": "swiglu", "norm_eps": 1e-5,
    "qkv_bias": False, "out_bias": False, "mlp_bias": False, "posemb_resize": "bicubic",
}  # fmt: skip
CASES = {
    "ViTForImageClassification": ("hf_vit", VIT),
    "ViT, sets of labels": ("hf_vit", VIT | {"task": "multi_label"}),
    "ViT, other settings": (
        "hf_vit",
        VIT
        | {"activation": "relu", "norm_eps": 1e-3, "qkv_bias": False, "patch_size": (8, 16), "image_size": (24, 48)},
    ),
    "DeiTForImageClassification": ("hf_vit", VIT | {"distillation_token": True}),
    "DeiTForImageClassificationWithTeacher": (
        "hf_vit",
        VIT | {"distillation_token": True, "distillation_head": True, "activation": "gelu_tanh"},
    ),
    "IJepaForImageClassification": ("hf_vit", VIT | IJEPA),
    "Dinov2ForImageClassification": ("hf_dinov2", DINOV2 | {"mlp_dim": 144}),
    "Dinov2 SwiGLU": ("hf_dinov2", DINOV2 | {"activation": "swiglu", "mlp_dim": 128}),
    "Dinov2WithRegistersForImageClassification": (
        "hf_dinov2",
        DINOV2 | {"num_registers": 4, "posemb_resize": "bicubic_antialias"},
    ),
    "CLIPForImageClassification": ("hf_clip", CLIP | {"pooling": "gap", "final_norm": "none"}),
    "BeitForImageClassification": (
        "hf_beit",
        BEIT | {"position_table": False, "relative_bias": "blocks", "pooling": "gap", "final_norm": "pooled"},
    ),
    "BEiT by [class], a table and a shared bias": ("hf_beit", BEIT | {"relative_bias": "shared"}),
    "SiglipForImageClassification": ("hf_siglip", VIT | NO_CLASS_TOKEN | {"activation": "gelu_tanh"}),
}
forward = jax.jit(lambda model, images: model(images))


def load_original(folder, kind="AutoModelForImageClassification"):
    dtype = torch.float64  # without torch this skips the test, before transformers raises
    model, info = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True, dtype=dtype)
    unused = ("mask_token", "vision_model.head.", "post_layernorm")  # pretraining's, and what a classifier never calls
    assert not [key for key in info["missing_keys"] if not any(part in key for part in unused)]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    return model.eval()


def compute_logits(original, images):
    with torch.no_grad():
        return original(pixel_values=torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).logits.numpy()


@pytest.mark.parametrize("case", CASES)
def test_classifiers_load_with_equal_logits_and_labels(case, x64, tmp_path):
    layout, changes = CASES[case]
    model = make(**changes)
    assert write_folder(model, tmp_path / "out", layout=layout, class_names=NAMES) == ()
    original = load_original(tmp_path / "out")
    assert type(original).__name__ == case or " " in case
    images = reference.images(3, 2, *model.config.image_size)
    assert reference.relative_error(forward(model, images), compute_logits(original, images)) < 1e-9
    assert original.config.id2label == dict(enumerate(NAMES))
    assert original.config.label2id == {name: number for number, name in enumerate(NAMES)}
    assert_same_when_read_back(tmp_path / "out", model, layout)


@pytest.mark.parametrize(
    ("kind", "layout", "changes", "output"),
    [
        ("ViTModel", "hf_vit", VIT | {"representation": 40, "representation_activation": "gelu"}, "pooler_output"),
        ("Dinov2Model", "hf_dinov2", DINOV2 | {"pooling": "cls"}, "pooler_output"),
        ("CLIPVisionModel", "hf_clip", CLIP | {"final_norm": "pooled"}, "pooler_output"),
        ("SiglipVisionModel", "hf_siglip", VIT | NO_CLASS_TOKEN | {"pooling": "map"}, "pooler_output"),
        ("DINOv3ViTModel", "hf_dinov3", DINOV3, "pooler_output"),
        ("DINOv3ViTModel", "hf_dinov3", DINOV3 | {"activation": "swiglu"}, "pooler_output"),
        ("BeitModel", "hf_beit", BEIT | {"relative_bias": "blocks"}, "pooler_output"),
        ("Tipsv2VisionModel", "dinov2", TIPSV2 | {"mlp_dim": 100}, "pooler_output"),
        ("Tipsv2VisionModel", "dinov2", TIPSV2 | {"activation": "swiglu", "mlp_dim": 128}, "pooler_output"),
        ("Aimv2VisionModel", "hf_aimv2", AIMV2 | {"pooling": "map", "plain_pool": True}, "pooler_output"),
    ],
)
def test_models_without_a_head(kind, layout, changes, output, x64, exact_angles, exact_steps, tmp_path):
    model = make(**changes, num_classes=0)
    write_folder(model, tmp_path, layout=layout)
    original = exact_angles(load_original(tmp_path, "AutoModel"))
    assert type(original).__name__ == kind
    images = reference.images(3, 2, 32, 32)
    with torch.no_grad():
        pooled = original(pixel_values=torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))[output].numpy()
    assert reference.relative_error(forward(model, images), pooled) < 1e-9
    assert_same_when_read_back(tmp_path, model, layout)


@pytest.mark.parametrize(
    ("size", "preprocess"),
    [
        ((32, 32), Preprocess()),
        ((24, 40), Preprocess((0.4, 0.5, 0.6), (0.2, 0.3, 0.4), kernel="lanczos")),
        ((32, 32), Preprocess(kernel="hamming", crop=0.9, centre="floor")),
        ((224, 224), Preprocess(kernel="bicubic", crop=1.0, centre="floor")),
        ((24, 40), Preprocess(kernel="box", crop=0.83, squash=True, centre="floor")),
        ((32, 32), Preprocess(kernel="nearest", crop=0.5, squash=True)),
    ],
)
def test_the_image_processor_makes_the_models_input(size, preprocess, tmp_path):
    model = make(image_size=size, preprocess=preprocess, **VIT)
    write_folder(model, tmp_path, layout="hf_vit", class_names=NAMES)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    ours = model.config.image_preprocess
    for picture in (*map(noise, SIZES), noise((90, 70)).convert("L")):
        values = np.asarray(processor(picture)["pixel_values"][0], np.float32).transpose(1, 2, 0)
        # float32 rounding of values up to 3: transformers multiplies by 1 / 255, and a level is 0.02 or more.
        np.testing.assert_allclose(ours(picture), values, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize(
    "preprocess", [Preprocess(), Preprocess(crop=0.7, centre="floor"), Preprocess(crop=0.5, squash=True)]
)
def test_a_familys_usual_preprocessing_does_not_leak_into_another(preprocess, tmp_path):
    """DeiT's processor squashes to 256x256 by default and CLIP's crops; neither may change a model that does not."""
    picture = noise((90, 51))
    for layout, changes in (CASES["DeiTForImageClassification"], CASES["CLIPForImageClassification"]):
        model = make(preprocess=preprocess, **changes)
        write_folder(model, tmp_path / layout, layout=layout, class_names=NAMES)
        values = transformers.AutoImageProcessor.from_pretrained(tmp_path / layout, backend="pil")(picture)
        back = convert(tmp_path / layout)
        for ours in (model.config.image_preprocess, back.config.image_preprocess):
            np.testing.assert_allclose(
                ours(picture), values["pixel_values"][0].transpose(1, 2, 0), rtol=1e-6, atol=2e-6
            )


@pytest.mark.parametrize(
    ("layout", "changes", "message"),
    [
        ("hf_vit", {"num_registers": 2}, "ViTForImageClassification has num_registers 0, and this model 2"),
        ("hf_vit", {"norm_position": "post"}, "norm_position"),
        ("hf_vit", {"activation": "swiglu"}, "no activation 'swiglu'"),
        ("hf_vit", {"attention_width": 24}, "heads of 48 in total, and this model of 24"),
        ("hf_vit", {"representation": 5}, "representation"),
        ("hf_vit", {"in_channels": 1}, "takes 1 channels"),
        ("hf_vit", {"pooling": "gap"}, "pooling 'cls', and this model 'gap'"),
        ("hf_vit", {"preprocess": IMAGENET}, "accept a shift of one pixel by --centre floor"),
        ("hf_vit", {"image_size": (24, 40), "preprocess": Preprocess(crop=0.8, centre="floor")}, "takes 24x40"),
        ("hf_dinov2", DINOV2 | {"mlp_dim": 100}, "a whole multiple of the width 48, and this model 100"),
        ("hf_clip", CLIP | {"pooling": "gap", "final_norm": "none", "image_size": (32, 40)}, "square pictures"),
        ("dinov2", DINOV2 | {"pooling": "cls"}, "Tipsv2VisionModel has num_registers 1, and this model 0"),
        ("hf_dinov3", DINOV3 | {"num_classes": 0, "rotary": Rotary(axes="xy")}, r"cannot express rotary .*xy"),
        ("hf_aimv2", AIMV2 | {"num_classes": 0, "image_size": (32, 40)}, "square pictures"),
        ("lukemelas", {}, "unknown layout of a folder 'lukemelas'"),
    ],
)
def test_what_transformers_cannot_express_is_refused_in_one_line(layout, changes, message, tmp_path):
    with pytest.raises(InputError, match=message) as error:
        write_folder(make(**changes), tmp_path / "out", layout=layout)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_notes_name_what_differs_elsewhere(tmp_path):
    model = make(dropout=0.1, drop_path=0.2, preprocess=Preprocess(background="#000000"), posemb_resize="zoom")
    notes = write_folder(model, tmp_path, layout="hf_vit")
    assert notes[0] == "transformers has no drop_path 0.2: it matters in training only"
    assert "resizes the positions by bicubic, this model by zoom" in notes[1]
    assert "no background" in notes[2]
    stored = json.loads((tmp_path / "config.json").read_text())
    assert (stored["hidden_dropout_prob"], stored["num_labels"]) == (0.1, len(NAMES))


@pytest.mark.parametrize(("layout", "changes"), [("hf_vit", VIT | IJEPA), ("hf_aimv2", AIMV2)])
def test_models_that_transformers_does_not_pool(layout, changes, x64, exact_steps, tmp_path):
    model = make(**changes, num_classes=0)
    (note,) = write_folder(model, tmp_path / "out", layout=layout)
    assert note == "transformers gives no pooled output; take the mean of last_hidden_state"
    original = load_original(tmp_path / "out", "AutoModel")
    images = reference.images(3, 2, 32, 32)
    with torch.no_grad():
        tokens = original(pixel_values=torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).last_hidden_state.numpy()
    assert reference.relative_error(forward(model, images), tokens.mean(axis=1)) < 1e-9
    assert_same_when_read_back(tmp_path / "out", model, layout)


def test_a_pooler_that_the_model_does_not_have_is_noted(x64, tmp_path):
    model = make(**VIT, num_classes=0)
    (note,) = write_folder(model, tmp_path / "out", layout="hf_vit")
    assert note == "transformers' pooler_output has random weights; read last_hidden_state[:, 0]"
    dtype = torch.float64  # as in load_original
    original = transformers.AutoModel.from_pretrained(tmp_path / "out", dtype=dtype).eval()
    images = reference.images(3, 2, 32, 32)
    with torch.no_grad():
        output = original(pixel_values=torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    assert reference.relative_error(forward(model, images), output.last_hidden_state[:, 0].numpy()) < 1e-9


def test_duplicate_class_names_are_refused(tmp_path):
    """label2id can hold a name once: ImageNet's two cranes would become one class."""
    with pytest.raises(InputError, match="class names"):
        write_folder(make(), tmp_path / "out", layout="hf_vit", class_names=("crane", "b", "crane", "d", "e"))


def test_the_command_writes_a_folder_and_never_over_one(tmp_path, capsys):
    vit_jax.save(make(**VIT), tmp_path / "model", class_names=NAMES)
    command = ["export", str(tmp_path / "model"), "--format", "folder", "--layout", "hf_vit", "--out"]
    assert main([*command, str(tmp_path / "out")]) == 0
    assert_same_when_read_back(tmp_path / "out", make(**VIT), "hf_vit")
    for taken in ("out", "model"):
        before = (tmp_path / taken / "config.json").read_bytes()
        assert main([*command, str(tmp_path / taken)]) == 2
        assert (tmp_path / taken / "config.json").read_bytes() == before
    assert "exists already" in capsys.readouterr().err.splitlines()[0]
    rounded = make(**VIT, preprocess=IMAGENET, image_size=(56, 56))
    vit_jax.save(rounded, tmp_path / "rounded", class_names=NAMES)
    command = ["export", str(tmp_path / "rounded"), *command[2:], str(tmp_path / "shifted")]
    assert main(command) == 2
    assert main([*command, "--centre", "floor"]) == 0
    assert convert(tmp_path / "shifted").config.preprocess == replace(IMAGENET, centre="floor")
