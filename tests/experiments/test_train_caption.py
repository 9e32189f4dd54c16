"""Training captioners: a few steps on synthetic scenes and on a table, stopped, resumed; errors."""

import csv
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import caption
from caption.data.loader import SceneExamples, caption_batches
from caption.data.scenes import make_scene
from caption.tokenizer import load_tokenizer
from caption.train import measures
from caption.train.recipe import RECIPES, recipe_from_dict
from experiments.train_caption import prepare
from experiments.train_caption.__main__ import main
from experiments.train_caption.scene_report import pointing
from tests.create import create
from vit_jax import VisionTransformer, ViTConfig, save
from vit_jax.train.logging import read_metrics
from vit_jax.train.optim import make_schedule


@pytest.fixture(scope="module")
def few_scenes():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "SCENES_PER_EPOCH", 12)
        patch.setattr(prepare, "SCENES_HELD_OUT", 6)
        yield


@pytest.fixture(scope="module")
def scenes_run(few_scenes, tmp_path_factory):
    """Return the folder of a finished run on scenes."""
    out = tmp_path_factory.mktemp("runs") / "scenes"
    assert main(flags("--out", str(out))) == 0
    return out


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    with open(folder / "captions.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "caption"])
        for index in range(10):
            scene = make_scene(0, index)
            Image.fromarray(scene.image).resize((48 + index, 40)).save(folder / f"{index}.png")
            rows.writerow([f"{index}.png", scene.caption])
    return folder


def flags(*more):
    return ["--batch-size", "4", "--epochs", "2", "--warmup-epochs", "0", *more]


@pytest.mark.slow
def test_a_run_on_scenes_holds_everything(scenes_run):
    assert {p.name for p in (scenes_run / "words").iterdir()} == {f"scene_{i}.png" for i in range(4)}
    accuracy = json.loads((scenes_run / "pointing.json").read_text())
    assert 0 <= accuracy["layer 1"]["hits"] <= 1
    model = caption.load(scenes_run / "best")
    tokenizer = load_tokenizer(scenes_run / "best", vocab_size=model.config.vocab_size)
    assert tokenizer.decode([2, 7, 3])


@pytest.mark.slow
def test_a_finished_run_resumed_reports_the_same(scenes_run, capsys):
    before = (scenes_run / "pointing.json").read_text()
    assert main(["--resume", str(scenes_run)]) == 0
    assert "peaks inside its object for" in capsys.readouterr().out
    assert (scenes_run / "pointing.json").read_text() == before


@pytest.mark.slow
def test_a_broken_run_resumes_to_the_same_end(scenes_run, tmp_path, monkeypatch):
    broken = tmp_path / "broken"

    class Stopped(Exception):
        pass

    def stop(*arguments, **options):
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(measures, "measure_captions", stop)
        with pytest.raises(Stopped):
            main(flags("--out", str(broken)))
    assert main(["--resume", str(broken)]) == 0
    ours, theirs = (caption.load(folder / "best") for folder in (scenes_run, broken))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    records = [[r for r in read_metrics(f / "metrics.jsonl") if "val_loss" in r] for f in (scenes_run, broken)]
    assert [[r["val_loss"], r["val_exact"]] for r in records[0]] == [
        [r["val_loss"], r["val_exact"]] for r in records[1]
    ]


def test_a_table_by_cider_from_its_own_words(table, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "build").mkdir()  # pip leaves such a folder in a clone: it is not a vocabulary
    out = tmp_path / "run"
    small = ["--model", "scenes", "--longest", "40", "--max-length", "14", "--vocabulary", "build"]
    assert main(flags("--data", str(table), "--out", str(out), "--best-by", "cider", *small)) == 0
    assert "8 training and 2 validation images, 8 training captions" in capsys.readouterr().out
    record = next(r for r in read_metrics(out / "metrics.jsonl") if "val_cider" in r)
    assert np.isfinite(record["val_cider"])
    assert caption.load(out / "best").config.preprocess.longest == 40
    assert (out / "curves.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "huge"], "unknown captioner 'huge': one of catr"),
        (["--weights", "x", "--encoder", "y"], "--weights brings its own model"),
        (["--encoder", "{tmp}/none"], "none"),
        (["--max-length", "40"], "captions of 40 tokens need 39 positions, and the model has 16"),
        (["--data", "nowhere"], "nowhere: no such file or folder"),
        (["--resume"], "--resume needs the run's folder"),
        (["--weights", "{tmp}/none"], "none"),
    ],
)
def test_wrong_input_is_one_line(arguments, message, few_scenes, tmp_path, capsys):
    arguments = [a.replace("{tmp}", str(tmp_path)) for a in arguments]
    out = [] if "--resume" in arguments else ["--out", str(tmp_path / "run")]
    assert main([*arguments, *out]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.strip().count("\n") == 0


SMALL = ["--model", "scenes", "--max-length", "14", "--vocabulary", "build"]


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """Return a small ViT and the folder it is saved in."""
    config = ViTConfig(
        image_size=(32, 32), patch_size=(8, 8), width=16, depth=2, num_heads=2, mlp_dim=32, num_classes=5
    )
    model, folder = create(VisionTransformer, config), tmp_path_factory.mktemp("models") / "vit"
    save(model, folder)
    return model, folder


@pytest.fixture(scope="module")
def vit_run(table, vit, tmp_path_factory):
    """Return the folder of a finished run over the frozen ViT."""
    out = tmp_path_factory.mktemp("runs") / "over_vit"
    frozen = ["--encoder", str(vit[1]), "--backbone-learning-rate", "0", "--weight-decay", "0"]
    assert main(flags("--data", str(table), *SMALL, *frozen, "--out", str(out))) == 0
    return out


@pytest.mark.slow
def test_a_captioner_over_a_pretrained_vit(table, vit, vit_run, tmp_path, capsys):
    model, config = caption.load(vit_run / "best"), vit[0].config
    assert model.config.encoder.image_size == (32, 32)
    jax.tree.map(np.testing.assert_array_equal, model.encoder.blocks, vit[0].blocks)
    picture = Image.open(table / "3.png")
    np.testing.assert_allclose(model.config.image_preprocess(picture), config.image_preprocess(picture), atol=1e-6)
    assert model.config.image_preprocess.size == (32, 32)
    assert main(flags("--data", str(table), *SMALL, "--encoder", str(vit_run), "--out", str(tmp_path / "no"))) == 2
    assert "a captioner, and this needs an image model" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_gives_weights_to_another_and_a_resumed_run_keeps_its_data(table, vit_run, tmp_path, capsys):
    given = ["--weights", str(vit_run), "--vocabulary", str(vit_run / "vocab.txt"), "--max-length", "14"]
    more = ["--data", str(table), *given]
    assert main(flags(*more, "--recipe", "small", "--out", str(tmp_path / "more"))) == 0
    assert main([*flags(*more), "--longest", "40", "--out", str(tmp_path / "other")]) == 2
    assert "its encoder takes images of 32x32 pixels; give --longest 32" in capsys.readouterr().err
    assert main(["--resume", str(tmp_path / "more"), "--data", str(table)]) == 0
    assert main(["--resume", str(tmp_path / "more"), "--data", str(tmp_path), "--weights", str(vit_run / "best")]) == 2
    assert "leave out --data, --weights" in capsys.readouterr().err


@pytest.mark.slow
def test_all_settings_at_once(table, vit, tmp_path):
    more = ["--accumulate", "2", "--ema", "0.5", "--dtype", "bfloat16", "--patience", "1", "--remat", "full"]
    command = flags("--data", str(table), *SMALL, *more, "--encoder", str(vit[1]), "--out", str(tmp_path / "all"))
    assert main(command) == 0
    leaves = jax.tree.leaves(caption.load(tmp_path / "all" / "best"))
    assert all(np.isfinite(leaf).all() for leaf in leaves)


@pytest.mark.slow
def test_another_vocabulary_than_the_weights(table, scenes_run, tmp_path, capsys):
    (tmp_path / "v.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nred\n")
    arguments = ["--data", str(table), "--weights", str(scenes_run / "best"), "--max-length", "14"]
    assert main([*arguments, "--vocabulary", str(tmp_path / "v.txt"), "--out", str(tmp_path / "b")]) == 2
    assert "5 WordPieces, and the model has" in capsys.readouterr().err


def test_recipes_there_and_back():
    for recipe in RECIPES.values():
        assert recipe_from_dict(json.loads(json.dumps(recipe.as_dict()))) == recipe
    step = make_schedule(RECIPES["catr"], 10)
    np.testing.assert_allclose([step(0), step(199), step(200)], [1e-4, 1e-4, 1e-5], rtol=1e-6)


def test_batches_resume_from_any_batch():
    model = caption.CONFIGS["scenes"]
    tokenizer = load_tokenizer_of_scenes()
    examples = SceneExamples("train", 10, 0, tokenizer, model.preprocess, 14)
    batches = list(caption_batches(examples, 4, (64, 64), seed=1, epoch=2))
    rest = list(caption_batches(examples, 4, (64, 64), seed=1, epoch=2, start=1))
    assert [batch.weights.sum() for batch in batches] == [4, 4, 2]
    for one, other in zip(batches[1:], rest, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)
    other = next(caption_batches(examples, 4, (64, 64), seed=1, epoch=3))
    assert not np.array_equal(other.images, batches[0].images)


def load_tokenizer_of_scenes():
    import tempfile
    from pathlib import Path

    from caption.data.scenes import scene_captions
    from caption.tokenizer import build_vocabulary

    with tempfile.TemporaryDirectory() as folder:
        return build_vocabulary(scene_captions("train"), Path(folder) / "vocab.txt")


def test_pointing_counts_peaks_inside_objects():
    scenes = [make_scene(3, index) for index in range(20)]
    right, wrong = [], []
    for scene in scenes:
        words = [("", np.zeros((8, 8), np.float32)) for _ in scene.caption.split()]
        inside, outside = list(words), list(words)
        for place, region in scene.regions.items():
            cells = region.reshape(8, 8, 8, 8).mean(axis=(1, 3)).astype(np.float32)
            inside[place], outside[place] = ("", cells), ("", -cells)
        right.append(inside)
        wrong.append(outside)
    assert pointing(scenes, right).hits > 0.95
    assert pointing(scenes, wrong).hits < 0.05
    assert 0 < pointing(scenes, right).chance < 0.2


@pytest.mark.slow
def test_no_arguments_learn_held_out_scenes(tmp_path):
    """As the README states: at least 95 % of captions are exact, on scenes whose captions are not in training."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}  # the tests' are slow
    command = [sys.executable, "-m", "experiments.train_caption", "--out", str(tmp_path / "run")]
    subprocess.run(command, check=True, env=environment)
    best = max(r["val_exact"] for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if "val_exact" in r)
    assert best >= 0.95
    accuracy = json.loads((tmp_path / "run" / "pointing.json").read_text())
    assert max(layer["hits"] for layer in accuracy.values()) > 5 * accuracy["layer 0"]["chance"]


@pytest.mark.parametrize(
    ("flag", "message"), [("--weights", "an image model; captions need"), ("--encoder", "a captioner, and this needs")]
)
def test_a_model_of_the_wrong_type_is_refused_before_the_folder_is_created(flag, message, tmp_path, capsys):
    other = {"--weights": "vit_jax/1", "--encoder": "caption/1"}[flag]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"format": other}))
    assert main([flag, str(tmp_path / "model"), "--data", "scenes", "--out", str(tmp_path / "run")]) == 2
    assert f"model: {message}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
