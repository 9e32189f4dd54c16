"""Record the numerical behaviour of the library, and compare a later version with the record.

    python -m tests.golden.behaviour record  tests/golden/behaviour.npz
    python -m tests.golden.behaviour compare tests/golden/behaviour.npz [--only GROUP ...]

`compare` is strict: it exits 1 unless every recorded array is equal to the bit. Bitwise equality depends on the
processor, so compare on the machine that recorded. tests/test_unchanged.py compares the stored samples within bounds.

Every parameter follows the golden rule (tests/reference.py), so no weights are stored. behaviour_shapes.json holds the
names and shapes of one small checkpoint per family; `record` does not change it. A record keeps the sha256 and up to
64 values of each array, and texts (flags, help) in full.
"""

import os

from tests.golden.behaviour_record import XLA_FLAGS

os.environ.setdefault("XLA_FLAGS", XLA_FLAGS)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np

from caption.train.recipe import RECIPES as CAPTION_RECIPES
from tests.golden.behaviour_captioners import CAPTION, OVER_VIT, captioner, record_captioner, record_catr
from tests.golden.behaviour_data import record_commands, record_data, record_scores
from tests.golden.behaviour_models import SHAPES, record_family, record_surgery
from tests.golden.behaviour_record import Results, compare, read_record, write_record
from tests.golden.behaviour_training import MORE, RECIPE, record_caption_training, record_training
from vit_jax.execution import BlockExecution
from vit_jax.train.recipe import RECIPES

SCAN = BlockExecution(scan=True, remat="dots")
SCENES = replace(CAPTION_RECIPES["scenes"], batch_size=4, epochs=2)
REFERENCE = replace(CAPTION_RECIPES["catr"], batch_size=4, epochs=2, max_length=12, learning_rate=1e-3)
# Group -> (function, whether it runs with 64-bit arithmetic enabled).
GROUPS: dict[str, tuple[Callable[[], Results], bool]] = {
    **{name: (partial(record_family, name), True) for name in SHAPES if name != "catr"},
    "catr": (record_catr, True),
    "captioner_resnet": (lambda: record_captioner(captioner(CAPTION, "float64")), True),
    "captioner_vit": (lambda: record_captioner(captioner(OVER_VIT, "float64"), vit=True), True),
    "surgery": (record_surgery, True),
    "train": (record_training, False),
    "train_float64": (partial(record_training, dtype="float64"), True),
    "train_regularised": (partial(record_training, replace(RECIPE, **MORE)), False),
    "train_digits": (partial(record_training, replace(RECIPES["digits"], epochs=2)), False),
    "train_lora": (partial(record_training, replace(RECIPE, train="lora", lora_targets="all", lora_rank=3)), False),
    "train_head": (partial(record_training, replace(RECIPE, train="head")), False),
    "train_accumulate": (partial(record_training, replace(RECIPE, accumulate=2)), False),
    "train_bfloat16": (partial(record_training, replace(RECIPE, dtype="bfloat16")), False),
    "train_scan": (partial(record_training, execution=SCAN), False),
    "train_remat": (partial(record_training, execution=BlockExecution(remat="full")), False),
    "caption_train": (partial(record_caption_training, SCENES), False),
    "caption_train_float64": (partial(record_caption_training, REFERENCE, dtype="float64"), True),
    "caption_train_scan": (partial(record_caption_training, replace(SCENES, accumulate=2, ema=0.9), SCAN), False),
    "caption_train_bfloat16": (partial(record_caption_training, replace(REFERENCE, dtype="bfloat16")), False),
    "data": (record_data, False),
    "scores": (record_scores, False),
    "commands": (record_commands, False),
}


def compute(group: str) -> Results:
    """Run one group; return its results under "GROUP/", the commands' under their own prefixes."""
    function, double = GROUPS[group]
    with jax.enable_x64(double):
        results = function()
    prefix = "" if group == "commands" else f"{group}/"
    return {prefix + name: v if isinstance(v, str) else np.asarray(v) for name, v in results.items()}


def group_of(name: str) -> str:
    """Return the group that a result's name belongs to."""
    first = name.partition("/")[0]
    return "commands" if first in ("help", "flags") else first


def main(argv: list[str] | None = None) -> int:
    """Record, or compare: exit code 0 where all is equal, 1 where something differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden.behaviour", description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("record", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", nargs="+", choices=GROUPS, metavar="GROUP", help=", ".join(GROUPS))
    args = parser.parse_args(argv)
    groups, results = args.only or list(GROUPS), {}
    for group in groups:
        start = time.monotonic()
        results |= compute(group)
        print(f"{group}: {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
    if args.action == "record":
        write_record(args.file, results)
        print(f"{args.file}: {len(results)} results, {args.file.stat().st_size / 1e6:.2f} MB")
        return 0
    record = {name: value for name, value in read_record(args.file).items() if group_of(name) in groups}
    return int(compare(record, results) > 0)


if __name__ == "__main__":
    sys.exit(main())
