"""python -m experiments.predict MODEL FOLDER OUT.csv: the predicted class of every picture in a folder."""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.common import runtime
from experiments.common.models import open_model
from vit_jax import InputError
from vit_jax.cli import Parser, positive_int
from vit_jax.data.dataset import Split
from vit_jax.data.decode import CorruptImageError, open_rgb
from vit_jax.data.folder import image_files
from vit_jax.errors import one_line_errors
from vit_jax.files import atomic_write


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m experiments.predict", description="Predict the class of every picture.")
    parser.add_argument("model", help="a saved model, or a run's folder")
    parser.add_argument("folder", help="pictures, at any depth")
    parser.add_argument("out", help="CSV to write: filename,label")
    parser.add_argument("--batch-size", type=positive_int, default=16)
    return parser


def tolerant(files: list[Path], problems: dict[int, str]) -> Split:
    """The files as a split without labels; an unreadable one is noted in `problems` and read as black."""

    def open_or_note(index: int) -> Image.Image:
        try:
            return open_rgb(files[index])
        except CorruptImageError as error:
            problems[index] = str(error)
            return Image.new("RGB", (1, 1))

    return Split([str(path) for path in files], np.zeros(len(files), np.int32), open_or_note)


def write_csv(path: Path, rows: list[tuple[str, str]]) -> None:
    """filename,label and the rows, whole or not at all."""
    with (
        atomic_write(path) as beside,
        open(beside, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("filename", "label"))
        writer.writerows(rows)


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command: 0 done (unreadable pictures are reported), 2 a wrong input."""
    args = _parser().parse_args(argv)
    runtime.configure()
    out, folder = Path(args.out), Path(args.folder)
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise InputError(f"{out}: {'a folder' if out.is_dir() else 'its folder does not exist'}; give a CSV's path")
    files = image_files(folder)
    model, card = open_model(args.model)

    from experiments.common.inference import compute_logits
    from vit_jax.data.loader import CachedImages

    assert model.config.preprocess is not None
    problems: dict[int, str] = {}
    pictures = CachedImages(tolerant(files, problems), model.config.preprocess, budget=0)
    answers = compute_logits(model, pictures, args.batch_size).argmax(axis=1)
    for problem in problems.values():
        print(f"skipped: {problem}", file=sys.stderr)
    if len(problems) == len(files):
        raise InputError(f"{folder}: none of its {len(files)} images can be read")
    names = card.class_names or tuple(map(str, range(model.config.num_classes)))
    rows = [(str(p.relative_to(folder)), names[a]) for i, (p, a) in enumerate(zip(files, answers, strict=True))
            if i not in problems]  # fmt: skip
    write_csv(out, rows)
    print(f"{out}: {len(rows)} predictions{f', {len(problems)} unreadable images skipped' if problems else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
