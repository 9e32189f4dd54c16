"""Hugging Face's sidecar files against live transformers: image processors to the pixel, and the defaults of configs."""

import json

import numpy as np
import pytest

from tests.optional import load
from tests.pictures import SIZES, noise
from vit_jax import ImagePreprocess, InputError, Preprocess
from weights_convert.sidecar import read_sidecar
from weights_convert.sidecar.huggingface import MODEL_TYPES
from weights_convert.sidecar.huggingface_processor import PROCESSORS

transformers = load("transformers")


def write(folder, config, **files):
    """Write config.json and other JSON files, by name without .json; return the folder."""
    for name, content in {"config": config, **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def image_preprocess(sidecar, size):
    return ImagePreprocess(size, Preprocess(**sidecar.preprocess_fields))


PROCESSOR_CASES = [
    ("clip", "CLIP", {}, 224),
    ("clip", "CLIP", {"size": 30, "crop_size": 29}, 29),
    ("dinov2", "Bit", {"size": {"shortest_edge": 256}}, 224),
    ("deit", "DeiT", {}, 224),
    ("deit", "DeiT", {"size": {"height": 40, "width": 60}, "crop_size": {"height": 34, "width": 51}}, (34, 51)),
    ("vit", "ViT", {}, 224),
    ("vit", "ViT", {"size": [33, 47], "resample": 1}, (33, 47)),
    ("vit", "ViT", {"size": 32, "resample": 5, "image_mean": 0.4, "image_std": 0.2}, 32),
    ("ijepa", "ViT", {"size": 32, "resample": 4, "do_normalize": False}, 32),
    ("vit_mae", "ViT", {"size": 32, "resample": 0, "do_rescale": False}, 32),
    ("siglip", "Siglip", {"rescale_factor": 1 / 127.5}, 224),
    ("vit", "ConvNext", {"size": {"shortest_edge": 224}}, 224),
    ("vit", "ConvNext", {"size": {"shortest_edge": 100}, "crop_pct": 0.9}, 100),
    ("vit", "ConvNext", {}, 384),
]


@pytest.mark.parametrize(("model_type", "kind", "settings", "size"), PROCESSOR_CASES)
def test_inputs_equal_the_live_processors(tmp_path, model_type, kind, settings, size):
    processor = getattr(transformers, f"{kind}ImageProcessorPil")(**settings)
    processor.save_pretrained(tmp_path)
    size = (size, size) if isinstance(size, int) else size
    vision = {"image_size": list(size)}
    write(
        tmp_path,
        {"model_type": model_type, **({"vision_config": vision} if model_type in ("clip", "siglip") else vision)},
    )
    sidecar = read_sidecar(tmp_path)
    assert sidecar.notes == () or model_type == "vit_mae"
    ours = image_preprocess(sidecar, size)
    for picture in map(noise, SIZES):
        pixels = processor(picture, do_rescale=False, do_normalize=False, input_data_format="channels_last")
        np.testing.assert_array_equal(ours.resize(picture), np.asarray(pixels["pixel_values"][0]).transpose(1, 2, 0))
    values = np.asarray(processor(picture, input_data_format="channels_last")["pixel_values"][0], np.float32)
    np.testing.assert_allclose(ours(picture), values.transpose(1, 2, 0), rtol=1e-6, atol=2e-6)


def test_the_defaults_of_dinov3s_processor(tmp_path):
    """Its class needs torchvision, so its values are written out."""
    write(
        tmp_path,
        {"model_type": "dinov3_vit"},
        preprocessor_config={"image_processor_type": "DINOv3ViTImageProcessorFast"},
    )
    fields = read_sidecar(tmp_path).preprocess_fields
    assert (fields["mean"], fields["std"]) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (fields["kernel"], fields["crop"], fields["squash"]) == ("bilinear", None, False)


def test_the_defaults_of_tipsv2s_processor(tmp_path):
    """Its class needs torchvision, so its values are written out."""
    processor = {"image_processor_type": "Tipsv2ImageProcessor"}
    sidecar = read_sidecar(write(tmp_path, {"model_type": "tipsv2"}, preprocessor_config=processor))
    fields = sidecar.preprocess_fields
    assert (fields["mean"], fields["std"]) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert (fields["kernel"], fields["crop"], fields["squash"]) == ("bilinear", None, False)
    assert (sidecar.image_size, sidecar.notes) == ((448, 448), ())


@pytest.mark.parametrize("kind", [kind for kind in PROCESSORS if kind not in ("DINOv3ViT", "Tipsv2")])
def test_defaults_of_processors_are_the_classes(tmp_path, kind):
    write(tmp_path, {"model_type": "vit"}, preprocessor_config={"image_processor_type": f"{kind}ImageProcessorFast"})
    stated = read_sidecar(tmp_path)
    getattr(transformers, f"{kind}ImageProcessorPil")().save_pretrained(tmp_path)
    assert read_sidecar(tmp_path) == stated


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_defaults_of_configs_are_the_classes(tmp_path, model_type):
    config = transformers.AutoConfig.for_model(model_type)
    bare = read_sidecar(write(tmp_path, {"model_type": model_type}))
    whole = read_sidecar(write(tmp_path, config.to_dict()))
    assert bare.image_size == whole.image_size
    assert whole.config_fields == bare.config_fields


def test_files_of_old_feature_extractors(tmp_path):
    """A size that is a number is a square for DeiT and the shorter side for CLIP."""
    stored = {"feature_extractor_type": "DeiTFeatureExtractor", "size": 256, "crop_size": 224, "do_center_crop": True}
    fields = read_sidecar(write(tmp_path, {"model_type": "deit"}, preprocessor_config=stored)).preprocess_fields
    assert (fields["crop"], fields["squash"], fields["centre"]) == (0.875, True, "floor")
    stored["feature_extractor_type"] = "CLIPFeatureExtractor"
    fields = read_sidecar(write(tmp_path, {"model_type": "clip"}, preprocessor_config=stored)).preprocess_fields
    assert (fields["crop"], fields.get("squash", False)) == (0.875, False)


def test_a_processor_nested_in_processor_config_comes_first(tmp_path):
    nested = {"image_processor": {"image_processor_type": "SiglipImageProcessor", "image_mean": [0.1, 0.2, 0.3]}}
    write(tmp_path, {"model_type": "siglip"}, processor_config=nested, preprocessor_config={"image_mean": 0.9})
    sidecar = read_sidecar(tmp_path)
    assert sidecar.preprocess_fields["mean"] == (0.1, 0.2, 0.3)
    assert sidecar.files == ("config.json", "processor_config.json")


def test_a_processor_of_another_size_is_noted(tmp_path):
    stored = {"size": {"shortest_edge": 256}, "crop_size": 224}
    sidecar = read_sidecar(write(tmp_path, {"model_type": "dinov2", "image_size": 518}, preprocessor_config=stored))
    assert sidecar.image_size == (518, 518)
    assert sidecar.preprocess_fields["crop"] == 0.875
    (note,) = sidecar.notes
    assert note.startswith("preprocessor_config.json: the image processor makes 224x224 pixels, the model has 518x518")


def test_without_do_resize_pictures_of_the_models_size_stay_as_they_are(tmp_path):
    write(tmp_path, {"model_type": "vit", "image_size": 32}, preprocessor_config={"do_resize": False})
    sidecar = read_sidecar(tmp_path)
    picture = noise((32, 32))
    np.testing.assert_array_equal(image_preprocess(sidecar, (32, 32)).resize(picture), np.asarray(picture))
    assert "does not resize" in sidecar.notes[0]


def test_the_config_of_a_model(tmp_path):
    config = {
        "model_type": "vit", "num_attention_heads": 5, "hidden_act": "relu", "layer_norm_eps": 1e-3, "image_size": [16, 64],
        "attention_probs_dropout_prob": 0.2, "pooler_act": "gelu", "id2label": {"1": "dog", "0": "cat"},
    }  # fmt: skip
    sidecar = read_sidecar(write(tmp_path, config))
    assert sidecar.image_size == (16, 64)
    assert sidecar.class_names == ("cat", "dog")
    assert dict(sidecar.config_fields) == {
        "num_heads": 5, "activation": "relu", "norm_eps": 1e-3, "attention_dropout": 0.2,
        "dropout": 0.0, "drop_path": 0.0, "representation_activation": "gelu",
    }  # fmt: skip
    assert sidecar.preprocess_fields == {}


def test_the_problem_type_is_the_task(tmp_path):
    for stated, task in (
        ("multi_label_classification", "multi_label"),
        ("single_label_classification", "single_label"),
    ):
        assert (
            read_sidecar(write(tmp_path, {"model_type": "vit", "problem_type": stated})).config_fields["task"] == task
        )
    assert "task" not in read_sidecar(write(tmp_path, {"model_type": "vit", "problem_type": None})).config_fields
    with pytest.raises(InputError, match="unknown problem_type 'regression'"):
        read_sidecar(write(tmp_path, {"model_type": "vit", "problem_type": "regression"}))


def test_old_clip_configs_have_the_vision_tower_twice(tmp_path):
    tower = {"num_attention_heads": 16, "image_size": 336}
    config = {"model_type": "clip", "vision_config": {"num_attention_heads": 12}, "vision_config_dict": tower}
    sidecar = read_sidecar(write(tmp_path, config))
    assert (sidecar.config_fields["num_heads"], sidecar.image_size) == (16, (336, 336))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "dinov3_convnext"}, "model_type 'dinov3_convnext' is not supported: one of dinov3_vit, beit"),
        ({"model_type": "data2vec-vision"}, "model_type 'data2vec-vision' is not supported"),
        ({"model_type": "vision-encoder-decoder"}, "model_type 'vision-encoder-decoder' is not supported"),
        ({"model_type": "vit", "hidden_act": "mish"}, "unknown hidden_act 'mish': one of gelu"),
        ({"model_type": "vit", "pooler_act": "silu"}, "unknown pooler_act 'silu'"),
        ({"model_type": "vit", "id2label": {"0": "a", "2": "b"}}, r"class numbers are not 0 to 1: \[1\] have no name"),
        ({"model_type": "vit", "quantization_config": {"bits": 8}}, "not supported: quantization_config"),
        ({"model_type": "vit", "image_size": "large"}, "not understood"),
        ({"model_type": "vit", "image_size": 0}, "not understood"),
        ({"model_type": "vit", "layer_norm_eps": 0}, "layer_norm_eps is above 0, not 0"),
        ({"model_type": "vit", "layer_norm_eps": float("nan")}, "not JSON .it has NaN"),
        ([], "not a JSON object"),
    ],
)
def test_configs_that_are_refused(tmp_path, config, message):
    with pytest.raises(InputError, match=f"/config.json: .*{message}"):
        read_sidecar(write(tmp_path, config))


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"resample": 6}, "unknown resample 6: one of 0, 1, 2, 3, 4, 5"),
        ({"image_processor_type": "YolosImageProcessor"}, "unknown image processor 'Yolos': one of ViT, DeiT"),
        ({"do_pad": True}, "not supported: do_pad = True"),
        ({"do_flip_channel_order": True}, "not supported: do_flip_channel_order = True"),
        ({"size": {"shortest_edge": 224}}, "without do_center_crop"),
        ({"size": {"longest_edge": 224}}, "not supported: size = {'longest_edge': 224}"),
        ({"size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": 256}, "256x256 is larger than size"),
        ({"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": [224, 200]}, "crop_size 224x200"),
        ({"size": [256, 256], "do_center_crop": True, "crop_size": [224, 200]}, "not the same fraction of both sides"),
        ({"do_resize": False, "do_center_crop": True, "crop_size": 224}, "do_center_crop without do_resize"),
        ({"rescale_factor": 0}, "rescale_factor is above 0"),
        ({"image_mean": [0.5, 0.5]}, "image_mean .* is not one number per channel, of 3 channels"),
        ({"image_std": [0.5, 0.0, 0.5]}, "std above 0"),
        ({"image_mean": "half"}, "image_mean is a number, not 'half'"),
        ([], "not a JSON object"),
    ],
)
def test_processors_that_are_refused_are_named(tmp_path, stored, message):
    with pytest.raises(InputError, match=f"/preprocessor_config.json: .*{message}"):
        read_sidecar(write(tmp_path, {"model_type": "vit"}, preprocessor_config=stored))


def test_a_processor_without_its_config_is_refused(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(InputError, match=r"preprocessor_config.json: it needs the config.json that belongs to it"):
        read_sidecar(tmp_path)


@pytest.mark.parametrize("stored", [{"do_pad": False, "do_convert_rgb": True}, {"do_reduce_labels": None}])
def test_steps_that_are_off_are_fine(tmp_path, stored):
    read_sidecar(write(tmp_path, {"model_type": "vit"}, preprocessor_config=stored))
