"""One rule for what a model's name or path stands for, in the library and in every program."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

import caption
import vit_jax
from caption.train.recipe import RECIPES
from caption.train.run_config import CaptionRun
from experiments.common.captioners import open_captioner
from experiments.common.models import open_model, starting_model
from experiments.train_caption.start import check_sources
from tests import live_timm
from tests.create import create
from vit_jax import InputError, Pipeline, Preprocess, VisionTransformer, ViTConfig, save
from vit_jax.checkpoint import from_arrays, to_arrays
from weights_convert import export, load_pipeline, load_pretrained
from weights_convert.formats import write_checkpoint
from weights_convert.hub.aliases import find_alias
from weights_convert.hub.timm_tags import DEFAULT_TAGS
from weights_convert.model_types import CAPTION_MODEL, IMAGE_MODEL
from weights_convert.resolve import find_source, locate, open_source
from weights_convert.sidecar.timm_architectures import find_architecture

CONFIG = ViTConfig(image_size=(16, 16), patch_size=(8, 8), width=16, depth=1, num_heads=2, mlp_dim=24, num_classes=2)
CAPTIONER = caption.CaptionConfig(
    encoder=replace(CONFIG, num_classes=0), width=16, num_heads=2, mlp_dim=16, encoder_layers=0, decoder_layers=1,
    head_width=16, vocab_size=30, max_positions=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return create(VisionTransformer, CONFIG)


@pytest.fixture
def sources(model, tmp_path):
    """Write one small model as a run, a saved folder and a bare file of timm, and a captioner as a run."""
    save(model, tmp_path / "run" / "best", class_names=("cat", "dog"))
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    save(model, tmp_path / "saved", class_names=("cat", "dog"))
    write_checkpoint(tmp_path / "bare.safetensors", export(model, layout="timm"))
    caption.save(create(caption.CaptionTransformer, CAPTIONER), tmp_path / "captions" / "best")
    return tmp_path


def weights(model):
    return np.asarray(model.patch_embed.kernel[...])


@pytest.mark.parametrize(("alias", "repository"), [
    ("vit_base_patch16_224", "hf:timm/vit_base_patch16_224.augreg2_in21k_ft_in1k"),
    ("vit_base_patch16_224.orig_in21k", "hf:timm/vit_base_patch16_224.orig_in21k"),
    ("vit_huge_patch14_clip_quickgelu_378", "hf:timm/vit_huge_patch14_clip_378.dfn5b"),
    ("timm/vit_tiny_patch16_224.augreg_in21k", "hf:timm/vit_tiny_patch16_224.augreg_in21k"),
    ("google/vit-base-patch16-224", "hf:google/vit-base-patch16-224"),
    ("facebook/dinov2-small@main", "hf:facebook/dinov2-small@main"),
    ("runs/digits", None), ("google/a/b", None), ("resnet50", None), ("B_16", None),
])  # fmt: skip
def test_names_of_other_libraries_are_repositories_of_the_hub(alias, repository):
    assert find_alias(alias) == repository


def test_a_folder_here_is_no_owner_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "google").mkdir()
    assert find_alias("google/vit-base-patch16-224") is None
    with pytest.raises(InputError, match=r"no such model; .* or hf:google/vit-base-patch16-224 for the Hugging Face"):
        find_source("google/vit-base-patch16-224")


def test_every_default_tag_is_of_a_supported_architecture():
    assert all(find_architecture(name)["num_heads"] for name in DEFAULT_TAGS)


def test_default_tags_are_those_of_timm():
    timm = live_timm.load()
    for name, tag in DEFAULT_TAGS.items():
        config = timm.models.get_pretrained_cfg(name)
        assert config.tag == tag
        assert f"hf:{config.hf_hub_id}" == find_alias(name)


def test_what_each_path_stands_for(sources, model):
    for name, folder in (("run", "run/best"), ("run/best", "run/best"), ("saved", "saved")):
        source = find_source(sources / name)
        assert (source.path, source.saved_type) == (sources / folder, IMAGE_MODEL)
        opened = open_source(source)
        assert opened.class_names == ("cat", "dog")
        np.testing.assert_array_equal(weights(opened.model), weights(model))
        assert open_source(source, num_classes=3).class_names == ()
    assert find_source(sources / "captions").saved_type is CAPTION_MODEL
    bare = find_source(sources / "bare.safetensors")
    assert (bare.path, bare.saved_type) == (sources / "bare.safetensors", None)
    opened = open_source(bare, num_heads=2)
    np.testing.assert_array_equal(weights(opened.model), weights(model))
    assert opened.plan.layout.name == "timm"


def test_a_run_is_opened_everywhere(sources, model, capsys):
    for opened in (
        vit_jax.load(sources / "run"),
        load_pretrained(sources / "run"),
        open_model(sources / "run")[0],
        starting_model(name=None, weights=str(sources / "run"), num_classes=2, image_size=None, seed=0),
    ):
        np.testing.assert_array_equal(weights(opened), weights(model))
    assert vit_jax.load_card(sources / "run").class_names == ("cat", "dog")
    assert isinstance(caption.load(sources / "captions"), caption.CaptionTransformer)
    assert capsys.readouterr().err == ""


def test_a_pipeline_has_the_class_names_and_the_preprocessing(sources, model):
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    expected = Pipeline(model, ("cat", "dog")).predict(picture)
    for name in ("run", "saved"):
        assert load_pipeline(sources / name).predict(picture) == expected
    bare = load_pipeline(
        sources / "bare.safetensors", num_heads=2, preprocess={"mean": (0.5,) * 3, "std": (0.5,) * 3}, image_size=24
    )
    assert bare.model.config.image_size == (24, 24)
    assert {prediction.name for prediction in bare.predict(picture)[0]} == {"class 0", "class 1"}
    with pytest.raises(InputError, match="captions: a captioner, and this needs an image model"):
        load_pipeline(sources / "captions")


def test_a_pipeline_of_a_folder_of_timm(model, tmp_path):
    """Its config.json states class names and preprocessing, and exporting a saved model writes them there."""
    preprocess = Preprocess(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25), kernel="bicubic", crop=0.9)
    stated = from_arrays(replace(model.config, norm_eps=1e-6, preprocess=preprocess), to_arrays(model))
    write_checkpoint(tmp_path / "model.safetensors", export(stated, layout="timm"))
    stored = {
        "architecture": "vit_tiny_patch16_224", "num_classes": 2, "label_names": ["cat", "dog"],
        "model_args": {"num_heads": 2, "img_size": 16},
        "pretrained_cfg": {
            "input_size": [3, 16, 16], "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25], "interpolation": "bicubic",
            "crop_pct": 0.9,
        },
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(stored))
    pipeline = load_pipeline(tmp_path)
    assert pipeline.model.config.preprocess == preprocess
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    assert pipeline.predict(picture) == Pipeline(stated, ("cat", "dog")).predict(picture)


def test_the_weights_of_a_saved_model_alone_are_not_a_checkpoint(sources):
    with pytest.raises(InputError, match=r"the weights of a saved model; give its folder, .*saved$"):
        find_source(sources / "saved" / "model.safetensors")


def test_a_run_without_a_best_model_is_named(sources):
    (sources / "run" / "best" / "config.json").unlink()
    for load in (vit_jax.load, load_pretrained, open_model, find_source):
        with pytest.raises(InputError, match=r"run: a run that has no best/ yet; let it finish an epoch"):
            load(sources / "run")


def test_a_bare_file_is_opened_and_its_assumptions_are_told(model, tmp_path, capsys):
    published = create(VisionTransformer, replace(CONFIG, width=192, depth=12, num_heads=3, mlp_dim=64))
    write_checkpoint(tmp_path / "bare.safetensors", export(published, layout="timm"))
    opened, card = open_model(tmp_path / "bare.safetensors")
    assert card.class_names == ()
    np.testing.assert_array_equal(weights(opened), weights(published))
    [line] = capsys.readouterr().err.splitlines()
    assert re.search(r"bare.safetensors: layout timm; .*num_heads 3.*mean 0\.\d", line)


def test_a_captioner_for_an_image_model_is_named_as_one(sources):
    captioner = str(sources / "captions")
    message = "captions: a captioner, and this needs an image model"
    for open_image_model in (
        open_model,
        lambda path: find_source(path, wanted=IMAGE_MODEL),
        lambda path: check_sources(CaptionRun(RECIPES["scenes"], data="scenes", encoder=path)),
        lambda path: starting_model(name=None, weights=path, num_classes=2, image_size=None, seed=0),
    ):
        with pytest.raises(InputError, match=message):
            open_image_model(captioner)
    with pytest.raises(InputError, match=r"a captioner; caption.load reads it: its format is 'caption/1'"):
        vit_jax.load(captioner)
    with pytest.raises(InputError, match="catr_v1: a captioner, and this needs an image model"):
        find_source("catr_v1", wanted=IMAGE_MODEL)  # before a download


def test_an_image_model_for_a_captioner_is_named_as_one(sources):
    message = "an image model; captions need a captioner, such as catr_v1 or catr_v2 or catr_v3"
    for open_caption_model in (
        open_captioner,
        lambda path: check_sources(CaptionRun(RECIPES["scenes"], data="scenes", weights=path)),
    ):
        for source in (str(sources / "run"), "B_16"):
            with pytest.raises(InputError, match=message):
                open_caption_model(source)
    with pytest.raises(InputError, match=r"an image model; vit_jax.load reads it: its format is 'vit_jax/1'"):
        caption.load(sources / "saved")
    with pytest.raises(InputError, match=message):
        open_source(find_source(sources / "bare.safetensors"), wanted=CAPTION_MODEL, num_heads=2)


@pytest.mark.parametrize(("name", "message"), [
    ("no/such/model.pth", "no/such/model.pth: no such model; give a run, a saved folder, a checkpoint, or a name"),
    ("runs/digits", "runs/digits: no such model; .* or hf:runs/digits for the Hugging Face hub"),
    ("B_61", "no released checkpoint 'B_61': one of B_16.*did you mean B_16"),
    ("vit_base_patch16_244", "no released checkpoint .*did you mean vit_base_patch16_224"),
    ("L_16", "L_16 was never released; L_16_imagenet1k was"),
    ("", "no model: the name is empty; give a run"),
])  # fmt: skip
def test_what_stands_for_nothing_is_refused(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for load in (find_source, load_pretrained, open_model, open_captioner):
        with pytest.raises(InputError, match=message) as error:
            load(name)
        assert "\n" not in str(error.value)


def test_a_path_that_hides_a_published_name_is_reported(sources, monkeypatch, capsys):
    monkeypatch.chdir(sources)
    (sources / "saved").rename(sources / "B_16")
    assert find_source("B_16").release is None
    assert capsys.readouterr().err == "B_16: the path here, not the published checkpoint of that name\n"
    assert locate("run") == (sources / "run").relative_to(sources)
    assert capsys.readouterr().err == ""
