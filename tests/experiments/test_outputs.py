"""No program writes over what it reads; each refuses before any work, so that no model has to exist here."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments import finetune, predict
from experiments.benchmark import __main__ as benchmark
from experiments.caption import __main__ as caption
from experiments.evaluate import __main__ as evaluate
from experiments.explain import __main__ as explain
from experiments.report import __main__ as report
from experiments.sweep import __main__ as sweep
from experiments.train_caption import __main__ as train_caption
from tests.create import create
from vit_jax import VisionTransformer, ViTConfig, save
from weights_convert.__main__ import main as convert

MAIN = {
    "predict": predict.main, "explain": explain.main, "caption": caption.main, "evaluate": evaluate.main,
    "convert": lambda argv: convert(["convert", *argv]), "export": lambda argv: convert(["export", *argv]),
    "report": report.main, "finetune": finetune.main, "sweep": sweep.main, "train_caption": train_caption.main, "benchmark": benchmark.main,
}  # fmt: skip


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """Write images, masks, a saved model, a run and captions below the current folder; return their contents."""
    monkeypatch.chdir(tmp_path)
    for name in ("x/b.png", "x/cat/0.png", "x/cat/1.png", "x/dog/0.png", "x/dog/1.png", "masks/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(tmp_path / name)
    config = ViTConfig(image_size=(8, 8), patch_size=(4, 4), width=8, depth=1, num_heads=1, mlp_dim=8, num_classes=2)
    save(create(VisionTransformer, config), tmp_path / "model", class_names=("cat", "dog"))
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "evaluation.json").write_text(json.dumps({"x/b.png": "a cat"}))
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text("{}")
    (tmp_path / "run.pth").mkdir()
    (tmp_path / "old" / "figures").mkdir(parents=True)
    (tmp_path / "file").write_text("a file of mine")
    return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


CASES = [
    ("predict", "model x x/cat/0.png", "this command reads it"),
    ("predict", "model x model/config.json", "this command reads it"),
    ("predict", "model x x/out --shards", "among the images"),
    ("explain", "model x --out x", "among the images"),
    ("explain", "model x --out x/new", "among the images"),
    ("explain", "model x/b.png --out x", "an image of the same name as a result"),
    ("explain", "model x --out file", "file: exists and is not a folder"),
    ("explain", "model x/b.png --out file/sub", "file: exists and is not a folder"),
    ("explain", "model x/b.png --evaluate --masks masks --out masks", "among the images"),
    ("explain", "model x/b.png --evaluate --masks masks --out file", "file: exists and is not a folder"),
    ("caption", "x --out x/new --weights model", "among the images"),
    ("caption", "x/b.png --out x --weights model", "an image of the same name as a result"),
    ("caption", "x/b.png --out file --weights model", "file: exists and is not a folder"),
    ("evaluate", "model --data x --out x/new", "among the images"),
    ("evaluate", "model --data x --out file", "file: exists and is not a folder"),
    ("evaluate", "--captions scores/evaluation.json --references file --out scores", "this command reads it"),
    ("evaluate", "--captions scores/evaluation.json --references file --out file", "file: exists and is not a folder"),
    ("convert", "model --out model --force", "this command reads it"),
    ("convert", "model/model.safetensors --out model --force", "this command reads it"),
    ("export", "model --layout timm --out model/model.safetensors", "this command reads it"),
    ("export", "model --layout timm --out run.pth", "run.pth: a folder; give a file's path"),
    ("report", "run --out run", "exists already and holds more than a report"),
    ("report", "old/figures --out old", "this command reads it"),
    ("report", "run --out file/sub", "file: exists and is not a folder"),
    ("finetune", "--data x --out x/run", "among the images"),
    ("finetune", "--data digits --out file", "file: exists and is not a folder"),
    ("sweep", "--data x --scratch --models Pico_8 --out x/sweep", "among the images"),
    ("train_caption", "--data x --out x/run", "among the images"),
    ("benchmark", "explain --out file", "file: exists and is not a folder"),
]


@pytest.mark.parametrize(("program", "arguments", "message"), CASES)
def test_no_program_writes_over_its_input(inputs, tmp_path, capsys, program, arguments, message):
    assert MAIN[program](arguments.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == inputs


def test_results_of_two_images_do_not_share_a_name(inputs, tmp_path, capsys):
    """With all heads, b.png has the figure b_heads.png, as b_heads.png has."""
    Image.open(tmp_path / "x" / "b.png").save(tmp_path / "x" / "b_heads.png")
    assert explain.main(["model", "x/b.png", "x/b_heads.png", "--out", "out", "--head", "all"]) == 2
    assert "b_heads.png: would be the result of two images" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_table_may_lie_among_the_images(inputs, tmp_path):
    assert predict.main(["model", "x", "x/predictions.csv"]) == 0
    assert len((tmp_path / "x" / "predictions.csv").read_text().splitlines()) == 6
