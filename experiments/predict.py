"""python -m experiments.predict MODEL FOLDER OUT.csv: the predicted class of every image in a folder."""

import argparse
import csv
import sys
from pathlib import Path

from experiments.common import runtime
from experiments.common.models import open_model
from vit_jax import InputError
from vit_jax.cli import Parser, positive_int
from vit_jax.data.dataset import Split
from vit_jax.data.folder import image_files
from vit_jax.errors import one_line_errors
from vit_jax.files import atomic_write


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m experiments.predict", description="Predict the class of every image.")
    parser.add_argument("model", help="a saved model, or a run's folder")
    parser.add_argument("folder", help="images, at any depth")
    parser.add_argument("out", help="CSV to write: filename,label")
    parser.add_argument("--batch-size", type=positive_int, default=16)
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


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command: 0 for success, unreadable images reported and left out; 2 for a wrong input."""
    args = _parser().parse_args(argv)
    runtime.configure()
    out, folder = Path(args.out), Path(args.folder)
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise InputError(f"{out}: {'a folder' if out.is_dir() else 'its folder does not exist'}; give a CSV's path")
    files = image_files(folder)
    model, card = open_model(args.model)

    from vit_jax.data.loader import CachedImages
    from vit_jax.inference import compute_logits

    images = CachedImages(Split.from_files(files), model.config.image_preprocess, budget=0)
    readable, logits = compute_logits(model, images, args.batch_size, on_corrupt="skip")
    if not len(readable):
        raise InputError(f"{folder}: none of its {len(files)} images can be read")
    names = card.class_names or tuple(map(str, range(model.config.num_classes)))
    predicted = zip(readable, logits.argmax(axis=1), strict=True)
    write_csv(out, [(str(files[index].relative_to(folder)), names[label]) for index, label in predicted])
    skipped = len(files) - len(readable)
    print(f"{out}: {len(readable)} predictions{f', {skipped} unreadable images skipped' if skipped else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
