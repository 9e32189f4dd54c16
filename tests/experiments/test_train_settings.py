"""All settings of training at once, adapters and the head alone, by command."""

import jax
import numpy as np
import pytest

from experiments import finetune
from vit_jax import load
from vit_jax.checkpoint import to_arrays

SMALL = ["--model", "Nano_6", "--batch-size", "8", "--epochs", "2", "--warmup-epochs", "0"]
ALL = ["--drop-path", "0.1", "--label-smoothing", "0.1", "--mixup", "0.8", "--cutmix", "1", "--layer-decay", "0.9",
       "--clip-norm", "1", "--ema", "0.9", "--accumulate", "2", "--dtype", "bfloat16", "--remat", "full",
       "--scan-layers"]  # fmt: skip


@pytest.mark.slow
def test_everything_at_once_by_command(shapes, tmp_path, capsys):
    data = ["--data", str(shapes)]
    out = tmp_path / "all"
    assert finetune.main([*data, *SMALL, *ALL, "--out", str(out)]) == 0
    assert finetune.main(["--resume", str(out), "--mixup", "0.7"]) == 2
    assert "leave out --mixup" in capsys.readouterr().err
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(load(out / "best")))

    lora, both, head = tmp_path / "lora", tmp_path / "both", tmp_path / "head"
    kinds = {lora: ["lora", "--lora-rank", "4"], both: ["lora", "--lora-targets", "all"], head: ["head"]}
    for folder, kind in kinds.items():
        options = ["--weights", str(out), "--train", *kind, "--recipe", "digits", "--batch-size", "8"]
        assert finetune.main([*data, *options, "--epochs", "2", "--out", str(folder)]) == 0
    for folder in (out, lora):  # averages and adapters are restored too
        assert finetune.main(["--resume", str(folder)]) == 0
        assert "resuming at step 8 of 8" in capsys.readouterr().out
    first, added, more, same = (to_arrays(load(folder / "best")) for folder in (out, lora, both, head))
    assert set(first) == set(added)
    name = "blocks.1.attn.qkv.kernel"
    assert np.linalg.matrix_rank(np.asarray(added[name] - first[name]), tol=1e-6) == 4
    np.testing.assert_array_equal(same[name], first[name])
    np.testing.assert_array_equal(added["blocks.1.mlp.up.kernel"], first["blocks.1.mlp.up.kernel"])
    assert np.abs(more["blocks.1.mlp.up.kernel"] - first["blocks.1.mlp.up.kernel"]).max() > 0
    assert np.abs(same["head.kernel"] - first["head.kernel"]).max() > 0
