"""python -m experiments.caption IMAGE... --out DIR: captions of pictures, with a heat map for every word.

Called again with the same settings it goes on with the pictures that are not done yet.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from caption.captioner import WORD_MAP_METHODS, Captioner, CaptionResult, MapOptions, PreparedImage, SearchOptions
from caption.plot import plot_caption
from experiments.caption import check as caption_check
from experiments.caption.records import CAPTIONS, TABLE, Records
from experiments.common import runtime
from experiments.common.captioners import open_captioner
from experiments.common.pictures import check_no_overwrite, list_images
from vit_jax import InputError
from vit_jax.cli import Parser, non_negative, positive_int
from vit_jax.data.decode import CorruptImageError, open_rgb
from vit_jax.data.reading import OnCorrupt, read_each
from vit_jax.errors import one_line_errors
from vit_jax.plot import Panel, plot_panels, save_figure

DEFAULT = "catr_v1"
EVERY = 10.0  # seconds between two lines of progress


def _whole(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m experiments.caption", description="Caption pictures, and show why.")
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="pictures, or folders of them")
    parser.add_argument("--out", help=f"folder to write to: {CAPTIONS}, {TABLE} and a .png for each picture")
    parser.add_argument("--weights", default=DEFAULT, help=f"saved captioner, run, CATR file, release ({DEFAULT})")
    parser.add_argument("--vocabulary", metavar="FILE", help="one WordPiece a line (default: the model's, else BERT's)")
    parser.add_argument("--cache", help="where downloads are kept (default: $VIT_JAX_CACHE or ~/.cache/vit_jax)")
    parser.add_argument("--batch-size", type=positive_int, default=8)
    parser.add_argument("--skip-corrupt", action="store_true", help="tell of unreadable pictures, and go on")
    parser.add_argument("--check-released", action="store_true", help="fetch CATR's pictures, compare their captions")
    search = parser.add_argument_group("search")
    search.add_argument("--beams", type=positive_int, default=1, help="1 is greedy search")
    search.add_argument("--n-best", type=positive_int, default=1, help="captions of each picture in captions.json")
    search.add_argument("--length-penalty", type=non_negative, default=0.0, help="above 0, longer captions gain")
    search.add_argument("--no-repeat", type=_whole, default=0, metavar="N", help="no N tokens in a row come twice")
    search.add_argument("--max-length", type=positive_int, help="tokens, start and end too (default: the model's most)")
    figures = parser.add_argument_group("figures")
    figures.add_argument("--method", choices=WORD_MAP_METHODS, default="attention", help="of the maps (attention)")
    figures.add_argument("--layer", type=int, help="of the decoder's attention (default: the last, -1)")
    figures.add_argument("--head", type=int, help="of the decoder's attention (default: their mean)")
    figures.add_argument("--no-figures", action="store_true", help="captions only")
    return parser


def look_of(args: argparse.Namespace) -> MapOptions:
    """The maps that the flags ask for. Raises InputError for flags that exclude one another."""
    if args.method != "attention" and (args.layer, args.head) != (None, None):
        raise InputError("--layer and --head are of the method attention; leave them out")
    return MapOptions(args.method, -1 if args.layer is None else args.layer, args.head)


def captioner_of(args: argparse.Namespace) -> Captioner:
    """The captioner that the flags ask for. Raises InputError for what does not fit the model."""
    look = look_of(args)
    if args.n_best > args.beams:
        raise InputError(f"--n-best {args.n_best}: at most --beams, {args.beams}; raise that")
    model, tokenizer = open_captioner(args.weights, vocabulary=args.vocabulary, cache=args.cache)
    longest = model.config.max_positions
    length = longest if args.max_length is None else args.max_length
    if not 2 <= length <= longest:
        raise InputError(f"--max-length {length}: between 2 and the model's {longest} positions")
    search = SearchOptions(length, args.beams, args.n_best, args.length_penalty, args.no_repeat)
    return Captioner(model, tokenizer, search, None if args.no_figures else look)


class CaptionJob(NamedTuple):
    """A picture to caption. name: as it was given; figure: below the output folder, "" for none."""

    file: Path
    name: str
    figure: str


class OpenedImage(NamedTuple):
    """A task with its picture."""

    task: CaptionJob
    ready: PreparedImage


def _opened(
    captioner: Captioner, tasks: list[CaptionJob], batch_size: int, on_corrupt: OnCorrupt
) -> Iterator[OpenedImage]:
    """Yield the tasks' images, decoded ahead in threads. Raises CorruptImageError naming one, unless skipped."""

    def read(task: CaptionJob) -> PreparedImage:
        picture = open_rgb(task.file)
        try:
            return captioner.prepare(picture)
        except InputError as error:  # too thin
            raise CorruptImageError(f"{task.file}: {error}") from error

    for task, ready in read_each(tasks, read, ahead=2 * batch_size, on_corrupt=on_corrupt):
        yield OpenedImage(task, ready)


def figure_of(shown: np.ndarray, answer: CaptionResult) -> Any:
    """The picture with its caption and a panel for every word; alone where the caption has none."""
    text = answer.captions[0].caption
    if answer.words:
        return plot_caption(shown, answer.words, text)
    return plot_panels(shown.astype(np.float32) / 255, [[Panel("image", None)]], title=text or "(no words)")


def _write(opened: OpenedImage, answer: CaptionResult, records: Records) -> None:
    """A picture's figure, then its record, so that there is no record without its figure."""
    task = opened.task
    if task.figure:
        path = records.folder / task.figure
        path.parent.mkdir(parents=True, exist_ok=True)
        save_figure(figure_of(opened.ready.shown, answer), path)
    best = answer.captions[0]._asdict()
    n_best = [told._asdict() for told in answer.captions]
    records.add({"file": task.name} | best | {"n_best": n_best, "figure": task.figure or None})


def _batches(opened: Iterator[OpenedImage], size: int) -> Iterator[list[OpenedImage]]:
    batch: list[OpenedImage] = []
    for one in opened:
        batch.append(one)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def caption_all(
    captioner: Captioner, tasks: list[CaptionJob], records: Records, batch_size: int, on_corrupt: OnCorrupt
) -> int:
    """Caption pictures a batch at a time; answers how many there were. What is done stays when an error ends it."""
    began = shown = time.monotonic()
    done = 0
    size = min(batch_size, len(tasks))
    try:
        for batch in _batches(_opened(captioner, tasks, size, on_corrupt), size):
            for opened, answer in zip(batch, captioner([one.ready for one in batch], size), strict=True):
                _write(opened, answer, records)
                done += 1
                print(f"{done}/{len(tasks)} {opened.task.name}: {answer.captions[0].caption}", flush=True)
            records.save(now=False)
            if (now := time.monotonic()) - shown > EVERY and done < len(tasks):
                shown, rate = now, done / (now - began)
                left = (len(tasks) - done) / rate
                print(f"{done}/{len(tasks)} images, {rate:.2f}/s, {left:.0f} s left", file=sys.stderr, flush=True)
    finally:
        if done:
            records.save()
    return done


def _tasks(args: argparse.Namespace) -> list[CaptionJob]:
    found = [
        CaptionJob(file, str(file), "" if args.no_figures else f"{result}.png")
        for file, result, _ in list_images(args.images)
    ]
    check_no_overwrite(args.images, [(task.file, Path(task.figure or CAPTIONS)) for task in found], Path(args.out))
    return found


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command: 0 done, 1 where --check-released found another caption, 2 a wrong input."""
    args = _parser().parse_args(argv)
    runtime.configure()
    if args.check_released:
        if args.images or args.out:
            raise InputError("--check-released has pictures of its own; leave out the images and --out")
        args.no_figures = True
        return caption_check.check_released(captioner_of(args), cache=args.cache)
    if not args.images:
        raise InputError("no image given; give pictures or a folder")
    if args.out is None:
        raise InputError("no --out: give a folder to write to")
    tasks = _tasks(args)
    captioner = captioner_of(args)
    records = Records(Path(args.out), captioner.settings() | asdict(look_of(args)))
    left = [task for task in tasks if not records.done(task.name, figure=bool(task.figure))]
    for task in left:
        if task.figure:
            records.check_free(task.name, task.figure)
    if len(left) < len(tasks):
        print(f"{len(tasks) - len(left)} of {len(tasks)} are done already", file=sys.stderr)
    on_corrupt: OnCorrupt = "skip" if args.skip_corrupt else "raise"
    if left and not caption_all(captioner, left, records, args.batch_size, on_corrupt) and left == tasks:
        raise InputError("none of the images can be read")
    figures = "" if args.no_figures else " and a .png for each image"
    print(f"written to {args.out}/: {len(records.by_file)} captions in {CAPTIONS} and {TABLE}{figures}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
