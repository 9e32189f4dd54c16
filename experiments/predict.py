"""python -m experiments.predict MODEL FOLDER OUT.csv: the predicted class of every image in a folder.

With --shards, every subfolder of FOLDER has a CSV of its own in the folder OUT. Any number of processes, on any number
of hosts that see both folders, share the work: start the same command in each, and again after a crash.
"""

import argparse
import csv
import signal
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.common import runtime
from experiments.common.models import open_model
from experiments.common.precision import add_dtype_flag, cast_model
from experiments.common.shards import Shards, check_settings, subfolders
from vit_jax import InputError, ModelCard, VisionTransformer
from vit_jax.checkpoint import hash_weights
from vit_jax.cli import Parser, positive_int
from vit_jax.data.dataset import Split
from vit_jax.data.folder import image_files
from vit_jax.errors import one_line_errors
from vit_jax.files import atomic_write


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m experiments.predict", description="Predict the class of every image.")
    parser.add_argument("model", help="a saved model, or a run's folder")
    parser.add_argument("folder", help="images, at any depth")
    parser.add_argument("out", help="CSV to write: filename,label; with --shards the folder for one per subfolder")
    parser.add_argument("--batch-size", type=positive_int, default=16)
    parser.add_argument("--shards", action="store_true", help="share the subfolders of FOLDER with other processes")
    add_dtype_flag(parser)
    return parser


def write_csv(path: Path, rows: list[tuple[str, str]]) -> None:
    """Write the header filename,label and the rows."""
    with (
        atomic_write(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("filename", "label"))
        writer.writerows(rows)


def predict_folder(
    model: VisionTransformer, card: ModelCard, folder: Path, out: Path, batch_size: int, *, root: Path
) -> str:
    """Write the predicted class of every image below a folder, by its path below `root`. Return what was done.

    Unreadable images are left out and reported. Raises InputError if no image can be read.
    """
    from vit_jax.data.loader import CachedImages
    from vit_jax.inference import compute_logits

    files = image_files(folder)
    images = CachedImages(Split.from_files(files), model.config.image_preprocess, budget=0)
    readable, logits = compute_logits(model, images, batch_size, on_corrupt="skip")
    if not len(readable):
        raise InputError(f"{folder}: none of its {len(files)} images can be read")
    names = card.class_names or tuple(map(str, range(model.config.num_classes)))
    predicted = zip(readable, logits.argmax(axis=1), strict=True)
    write_csv(out, [(str(files[index].relative_to(root)), names[label]) for index, label in predicted])
    skipped = len(files) - len(readable)
    return f"{out}: {len(readable)} predictions{f', {skipped} unreadable images skipped' if skipped else ''}"


def predict_shards(predict: Callable[[Path, Path], str], folder: Path, out: Path, *, settings: dict[str, Any]) -> str:
    """Predict the subfolders that no other process has, one after another. Return what was done.

    predict:  (subfolder, CSV) -> what was done.
    settings: what the predictions depend on. Raises InputError if `out` has predictions of others.

    SIGTERM raises KeyboardInterrupt, as Ctrl-C does, so that the shard in work is free for others at once.
    """
    shards = Shards(out, subfolders(folder), suffix=".csv")
    out.mkdir(exist_ok=True)
    check_settings(out, settings)
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with closing(shards.claims()) as claims:
            for name in claims:
                print(predict(folder / name, shards.result(name)), flush=True)
    finally:
        signal.signal(signal.SIGTERM, previous)
    done, total = shards.count_done(), len(shards.names)
    rest = f"; other processes have {total - done}: start this again if one of them ends early"
    return f"{out}/: {done} of {total} shards are done{rest if done < total else ''}"


def _settings(model: VisionTransformer, card: ModelCard, folder: Path) -> dict[str, Any]:
    """Return what predictions depend on: the images and the model, whose weights have the type of --dtype."""
    names = list(card.class_names)
    return {"folder": str(folder.resolve()), "weights": hash_weights(model), "config": asdict(model.config),
            "class_names": names}  # fmt: skip


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command: 0 for success, unreadable images reported and left out; 2 for a wrong input."""
    args = _parser().parse_args(argv)
    runtime.configure()
    out, folder = Path(args.out), Path(args.folder)
    if not out.absolute().parent.is_dir() or (out.exists() and out.is_dir() != args.shards):
        needed = "a folder" if args.shards else "a CSV's path"
        raise InputError(f"{out}: {'exists' if out.exists() else 'its folder does not exist'}; give {needed}")
    (subfolders if args.shards else image_files)(folder)  # before the model is read
    model, card = open_model(args.model)
    model = cast_model(model, args.dtype)

    def predict(part: Path, csv_file: Path) -> str:
        return predict_folder(model, card, part, csv_file, args.batch_size, root=folder)

    if args.shards:
        print(predict_shards(predict, folder, out, settings=_settings(model, card, folder)))
    else:
        print(predict(folder, out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
