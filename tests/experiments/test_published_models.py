"""A model with published weights starts from them, unless --from-scratch says otherwise."""

import pytest

from experiments import finetune
from experiments.common.training import parse_config
from vit_jax import InputError


def parse(*flags):
    return parse_config(finetune.PROGRAM, ["--data", "x", *flags])


def test_published_names_mean_their_weights():
    config = parse("--model", "B_16")
    assert (config.weights, config.recipe.model, config.recipe.image_size) == ("B_16", "B_16", None)
    assert parse("--recipe", "pets").weights == "B_16_imagenet1k"
    assert parse("--recipe", "pets", "--model", "L_32").weights == "L_32"
    assert parse("--model", "B_16", "--weights", "some.pth").weights == "some.pth"
    assert parse("--model", "Mini_16").weights is None
    assert parse("--model", "Ti_16").weights is None  # not released
    assert parse().weights is None


def test_from_scratch():
    config = parse("--model", "B_16", "--from-scratch")
    assert (config.weights, config.from_scratch) == (None, True)
    assert (config.recipe.model, config.recipe.image_size) == ("B_16", (384, 384))
    with pytest.raises(InputError, match="--from-scratch and --weights contradict one another"):
        parse("--from-scratch", "--weights", "some.pth")


def test_without_a_network_one_line_names_the_remedy_and_no_folder_is_left(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VIT_JAX_OFFLINE", "1")
    monkeypatch.setenv("VIT_JAX_CACHE", str(tmp_path / "cache"))
    for name, message in (
        ("B_16", "B_16 is not in the cache"),
        ("L_16", "L_16 was never released; L_16_imagenet1k was"),
    ):
        assert finetune.main(["--data", "digits", "--model", name, "--out", "run", "--no-compile-cache"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
        assert line.endswith(f"to train without weights, give --model {name} --from-scratch")
    assert list(tmp_path.iterdir()) == []


def test_a_path_of_the_name_of_a_release_is_ambiguous(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "B_16").mkdir()
    with pytest.raises(InputError, match="B_16: exists here, and is a release too; give --weights with its path"):
        parse("--model", "B_16")
    assert parse("--weights", "B_16").weights == str(tmp_path / "B_16")
