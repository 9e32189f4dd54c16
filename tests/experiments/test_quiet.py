"""--quiet: programs print results, warnings and errors, no progress and no notes. See explain/ and caption/ for theirs."""

import re
import sys

import numpy as np
import pytest
from PIL import Image

from experiments import finetune, predict
from experiments.sweep import __main__ as sweep
from experiments.sweep import process, scheduler
from tests.create import create
from tests.experiments.test_predict import write_pictures
from tests.experiments.test_sweep_runs import FAKE, arguments
from vit_jax import VisionTransformer, ViTConfig, progress, save
from vit_jax.cli import Parser
from vit_jax.errors import one_line_errors
from vit_jax.notes import note
from weights_convert.__main__ import main as convert_main
from weights_convert.model_types import PUBLISHED_HEADS

CONFIG = ViTConfig(
    image_size=(16, 16), patch_size=(8, 8), width=16, depth=1, num_heads=2, mlp_dim=24, num_classes=3
)  # fmt: skip


@pytest.fixture(autouse=True)
def _print_every_update(monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)


@pytest.fixture
def saved(tmp_path):
    save(create(VisionTransformer, CONFIG), tmp_path / "model", class_names=("cat", "dog", "cow"))
    return str(tmp_path / "model")


def test_finetune_prints_the_measure_and_the_folder(shapes, tmp_path, capsys):
    out = tmp_path / "run"
    flags = ["--model", "Pico_8", "--batch-size", "8", "--epochs", "1", "--recipe", "scratch", "--warmup-epochs", "0"]
    assert finetune.main(["--data", str(shapes), "--out", str(out), *flags, "--quiet"]) == 0
    printed = capsys.readouterr()
    first, second = printed.out.splitlines()
    assert re.fullmatch(r"best accuracy \d\.\d{4} in epoch 1", first.replace("validation ", ""))
    assert re.fullmatch(rf"done in \d+ s; written to {re.escape(str(out))}/", second)
    assert printed.err == ""


def test_predict_prints_the_path_and_warnings(saved, tmp_path, capsys):
    folder, out = write_pictures(tmp_path / "in", 4), tmp_path / "out.csv"
    (folder / "01.png").write_bytes(b"no picture")
    command = [saved, str(folder), str(out), "--batch-size", "1"]
    assert predict.main(command) == 0
    assert "images/s" in capsys.readouterr().err
    assert predict.main([*command, "--quiet"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{out}: 3 predictions, 1 unreadable images skipped\n"
    assert [line.partition(":")[0] for line in printed.err.splitlines()] == ["skipped"]
    assert "01.png" in printed.err


def test_errors_are_printed_and_the_next_program_has_its_notes(saved, tmp_path, capsys):
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "a.png")
    assert predict.main([saved, str(tmp_path / "none"), str(tmp_path / "o.csv"), "--quiet"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'none'}: no such folder")
    note("heard")
    assert capsys.readouterr().out == "heard\n"


def test_a_program_that_a_quiet_one_calls_is_quiet(capsys):
    @one_line_errors
    def inner(argv):
        Parser().parse_args(argv)
        note("inner")
        return 0

    @one_line_errors
    def outer(argv):
        Parser().parse_args(argv)
        inner([])
        note("outer")
        return 0

    assert outer(["--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert outer([]) == 0
    assert capsys.readouterr().out == "inner\nouter\n"


def test_a_flag_file_can_ask_for_it(saved, tmp_path, capsys):
    (tmp_path / "flags.toml").write_text("quiet = true\n")
    folder, out = write_pictures(tmp_path / "in", 2), tmp_path / "out.csv"
    assert predict.main([saved, str(folder), str(out), "--config", str(tmp_path / "flags.toml")]) == 0
    assert capsys.readouterr().err == ""


def test_convert_prints_what_was_written(saved, tmp_path, capsys):
    file, out = str(tmp_path / "timm.safetensors"), tmp_path / "converted"
    assert convert_main(["export", saved, "--layout", "timm", "--out", file]) == 0
    command = ["convert", file, "--num-heads", "2", "--out", str(out)]
    assert convert_main(command) == 0
    loud = capsys.readouterr()
    assert "layout: timm" in loud.out
    assert "converted " in loud.err
    assert convert_main([*command, "--force", "--quiet"]) == 0
    printed = capsys.readouterr()
    assert re.fullmatch(rf"{re.escape(str(out))}: [\d,]+ parameters, .*, in \d+\.\d s\n", printed.out)
    assert re.fullmatch(
        rf"{re.escape(file)}: assumed, since nothing states it: image_size 16, mean 0.5, .*\n", printed.err
    )
    assert convert_main(["inspect", file, "--num-heads", "2", "--quiet"]) == 0
    assert "layout: timm" in capsys.readouterr().out  # its result


def test_what_a_checkpoint_does_not_state_is_a_warning(saved, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PUBLISHED_HEADS, (CONFIG.width, CONFIG.depth), CONFIG.num_heads)
    file, out = str(tmp_path / "timm.safetensors"), str(tmp_path / "out.csv")
    assert convert_main(["export", saved, "--layout", "timm", "--out", file]) == 0
    command = [file, str(write_pictures(tmp_path / "in", 1)), out]
    assumed = "assumed, since nothing states it: image_size 16, mean 0.5, "
    capsys.readouterr()
    assert predict.main([*command, "--quiet"]) == 0
    assert capsys.readouterr().err.startswith(f"{file}: {assumed}")
    assert predict.main(command) == 0
    line = next(line for line in capsys.readouterr().err.splitlines() if line.startswith(f"{file}: layout timm; "))
    assert assumed in line


@pytest.mark.parametrize("quiet", [True, False])
def test_a_quiet_sweep_prints_its_table_once_at_the_end(tmp_path, monkeypatch, capsys, quiet):
    monkeypatch.setattr(process, "PROGRAM", (sys.executable, FAKE, "experiments.finetune"))
    monkeypatch.setattr(scheduler, "POLL_SECONDS", 0.02)
    models, more = ("Pico_6", "Pico_8"), ["--quiet"] if quiet else []
    command = arguments(tmp_path / "s", models=models, more=more)
    command += [] if quiet else ["--quiet"]  # of the runs
    assert sweep.main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    if quiet:
        assert [line.split()[:2] for line in lines[:3]] == [["run", "state"], ["Pico_6", "done"], ["Pico_8", "done"]]
        assert lines[3].startswith("2 of 2 runs done in ")
        assert len(lines) == 4
    else:
        assert ["Pico_8", "waiting"] in [line.split()[:2] for line in lines]
        assert lines[-1].startswith("report them with: ")
