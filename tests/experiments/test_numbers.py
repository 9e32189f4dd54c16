"""A flag with a number that is none, or out of range: one line that names the flag, before any work."""

import pytest

from experiments import finetune, predict
from experiments.caption import __main__ as caption
from experiments.explain import __main__ as explain
from experiments.sweep import __main__ as sweep
from experiments.train_caption import __main__ as train_caption
from weights_convert import __main__ as weights_convert

CASES = [
    (finetune, ["--seed", "-1"]),
    (finetune, ["--seed", "4294967296"]),
    (finetune, ["--epochs", "²"]),
    (finetune, ["--batch-size", "1_6"]),
    (finetune, ["--learning-rate", "٣"]),
    (finetune, ["--crop-scale", "0.5", "1_0"]),
    (finetune, ["--image-size", "²"]),
    (finetune, ["--cache-gb", "1_0"]),
    (finetune, ["--processes", "²"]),
    (train_caption, ["--seed", "9" * 30]),
    (train_caption, ["--angles", "٣"]),
    (sweep, ["--seeds", "0", "-1"]),
    (sweep, ["--gpus", "²"]),
    (predict, ["--batch-size", "²"]),
    (explain, ["--rise-masks", "²"]),
    (caption, ["--no-repeat", "²"]),
    (caption, ["--layer", "1_0"]),
    (weights_convert, ["--mean", "٣"]),
    (weights_convert, ["--crop", "٣"]),
]


@pytest.mark.parametrize(("program", "flags"), CASES, ids=[" ".join(flags)[:30] for _, flags in CASES])
def test_the_flag_is_named(program, flags, capsys):
    argv = ["inspect", "FILE", *flags] if program is weights_convert else flags
    with pytest.raises(SystemExit, match="2"):
        program.main(argv)
    error = capsys.readouterr().err
    assert f"argument {flags[0]}" in error
    assert repr(flags[-1]) in error
    assert len(error.splitlines()) == 1
