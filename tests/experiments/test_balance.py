"""--balance: a sampler that resumes exactly, and weights in the loss."""

import json
import signal

import numpy as np
import pytest
from PIL import Image

from experiments import finetune
from vit_jax.train import loop

SMALL = ["--model", "Pico_6", "--batch-size", "8", "--epochs", "2", "--learning-rate", "1e-3", "--recipe", "digits",
         "--warmup-epochs", "0"]  # fmt: skip


@pytest.fixture(scope="module")
def unequal(tmp_path_factory):
    """Write a table of 24 images of one class and 6 of another."""
    root = tmp_path_factory.mktemp("unequal")
    lines = ["file,label"]
    for i in range(30):
        label = "rare" if i % 5 == 4 else "common"
        Image.fromarray(np.random.RandomState(i).randint(0, 256, (8, 8), np.uint8)).save(root / f"{i}.png")
        lines.append(f"{i}.png,{label}")
    (root / "labels.csv").write_text("\n".join(lines))
    return root / "labels.csv"


def best(folder):
    return (folder / "best/model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_balanced_run_resumes_to_the_same_end(unequal, tmp_path, monkeypatch):
    flags = ["--data", str(unequal), *SMALL, "--balance", "sampler"]
    assert finetune.main([*flags, "--out", str(tmp_path / "whole")]) == 0
    read_signal = loop._Loop._agreed_signal

    def stop_at_step_two(self):
        if self.step == 2:
            signal.raise_signal(signal.SIGTERM)
        return read_signal(self)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Loop, "_agreed_signal", stop_at_step_two)
        assert finetune.main([*flags, "--out", str(tmp_path / "stopped")]) == 128 + signal.SIGTERM
    assert finetune.main(["--resume", str(tmp_path / "stopped")]) == 0
    assert best(tmp_path / "stopped") == best(tmp_path / "whole")
    assert json.loads((tmp_path / "whole" / "config.json").read_text())["recipe"]["balance"] == "sampler"
    assert finetune.main([*flags[:-1], "none", "--out", str(tmp_path / "plain")]) == 0
    assert best(tmp_path / "plain") != best(tmp_path / "whole")
    assert finetune.main([*flags[:-1], "weights", "--out", str(tmp_path / "weighted")]) == 0
    assert best(tmp_path / "weighted") not in (best(tmp_path / "plain"), best(tmp_path / "whole"))
