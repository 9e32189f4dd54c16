"""python -m experiments.predict MODEL FOLDER OUT.csv: the predicted class of every image in a folder.

Started again after it was killed, it goes on where it stopped. With --coordinator, --processes and --process, or under
a cluster, several processes divide the images. With --shards, every subfolder of FOLDER has a CSV of its own in the
folder OUT; any number of processes share the subfolders: start the same command in each, and again after a crash.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.common import runtime
from experiments.common.flags import add_batch_size_flag, add_flags, read_flags
from experiments.common.models import find_image_model, model_files, open_model
from experiments.common.parts import Parts, hash_files, hash_listing
from experiments.common.precision import add_dtype_flag, cast_model
from experiments.common.predictions import PredictionOutputs, merge_parts, predict_parts
from experiments.common.shards import Shards, check_settings, subfolders
from experiments.common.team import Team, TeamStates, clear_states, join_team
from vit_jax import InputError, ModelCard, VisionTransformer
from vit_jax.checkpoint import hash_weights
from vit_jax.cli import Parser, positive_int, program_name
from vit_jax.data.folder import image_files
from vit_jax.errors import one_line_errors
from vit_jax.locks import lock_folder
from vit_jax.notes import note
from vit_jax.outputs import check_apart, check_outside
from vit_jax.train.distributed import ProcessOptions


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog=program_name("experiments.predict"), description="Predict the class of every image.")
    parser.add_argument("model", help="a saved model, or a run's folder")
    parser.add_argument("folder", help="images, at any depth")
    parser.add_argument(
        "out", nargs="?", help="CSV to write: filename,label; with --shards the folder for one per subfolder"
    )
    parser.add_argument(
        "--top-k", type=positive_int, metavar="N",
        help="write the N most probable labels, with their probabilities (each of its own for sets of labels)",
    )  # fmt: skip
    parser.add_argument(
        "--features", metavar="FILE", help=".npz to write: features [N, D], which the head reads, and paths [N]"
    )
    add_batch_size_flag(parser, 16)
    parser.add_argument("--shards", action="store_true", help="share the subfolders of FOLDER with other processes")
    add_dtype_flag(parser)
    add_flags(parser, ProcessOptions, "several processes (detected under SLURM, Open MPI and Kubernetes)")
    return parser


def predict_folder(
    model: VisionTransformer,
    card: ModelCard,
    folder: Path,
    out: Path,
    batch_size: int,
    *,
    root: Path,
    top_k: int | None,
) -> str:
    """Write the predicted class of every image below a folder, by its path below `root`. Return what was done.

    Unreadable images are left out and reported. Raises InputError if no image can be read.
    """
    files, outputs = image_files(folder), PredictionOutputs(out, top_k=top_k)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        parts = Parts.of(Path(temporary), len(files), batch_size)
        predict_parts(model, files, parts, parts.numbers, outputs, batch_size)
        return merge_parts(parts, files, card, outputs, root=root)


def predict_shards(predict: Callable[[Path, Path], str], folder: Path, out: Path, *, settings: dict[str, Any]) -> str:
    """Predict the subfolders that no other process has, one after another. Return what was done.

    predict:  (subfolder, CSV) -> what was done.
    settings: what the predictions depend on. Raises InputError if `out` has predictions of others.
    """
    shards = Shards(out, subfolders(folder), suffix=".csv")
    out.mkdir(exist_ok=True)
    check_settings(out, settings)
    with closing(shards.claims()) as claims:
        for name in claims:
            print(predict(folder / name, shards.result(name)), flush=True)
    done, total = shards.count_done(), len(shards.names)
    rest = f"; other processes have {total - done}: start this again if one of them ends early"
    return f"{out}/: {done} of {total} shards are done{rest if done < total else ''}"


def _shard_settings(model: VisionTransformer, card: ModelCard, folder: Path, top_k: int | None) -> dict[str, Any]:
    """Return what predictions depend on: the images and the model, whose weights have the type of --dtype."""
    settings = {"folder": str(folder.resolve()), "weights": hash_weights(model), "config": asdict(model.config),
                "class_names": list(card.class_names)}  # fmt: skip
    return settings | ({} if top_k is None else {"top_k": top_k})


def _run_shards(args: argparse.Namespace) -> None:
    folder, out = Path(args.folder), Path(args.out)
    check_outside(out, [folder])
    subfolders(folder)
    args.model = find_image_model(args.model)
    model, card = _open_model(args)

    def predict(part: Path, csv_file: Path) -> str:
        return predict_folder(model, card, part, csv_file, args.batch_size, root=folder, top_k=args.top_k)

    print(predict_shards(predict, folder, out, settings=_shard_settings(model, card, folder, args.top_k)))


def _run_parts(args: argparse.Namespace, stack: ExitStack) -> None:
    """Predict this process's share of the folder; the first process merges the parts of all.

    stack: keeps the lock of the parts' folder, which the first process holds.
    """
    args.model = find_image_model(args.model)
    folder, files = Path(args.folder), image_files(Path(args.folder))
    outputs = PredictionOutputs(_as_path(args.out), _as_path(args.features), args.top_k)
    targets = [path for path in (outputs.table, outputs.features) if path is not None]
    check_apart(targets, [*files, *model_files(args.model)])
    parts = Parts.of(targets[0].with_name(f".{targets[0].name}.parts"), len(files), args.batch_size)
    settings = {"model": hash_files(model_files(args.model)), "images": hash_listing(files), "dtype": args.dtype,
                "size": parts.size, "top_k": args.top_k, "written": list(map(str, targets))}  # fmt: skip

    def prepare() -> None:
        stack.enter_context(lock_folder(parts.folder, f"writes {targets[0]}"))
        parts.prepare(settings)
        clear_states(parts.folder)

    team = join_team(read_flags(args, ProcessOptions), prepare)
    states = TeamStates(parts.folder, team)
    with states.report({}), _removed_unless_started(parts, team):
        if not parts.is_prepared(settings):
            raise InputError(f"{parts.folder}: not of this model and these images; do all processes have the same?")
        model, card = _open_model(args)
        _predict_pending(model, files, parts, team, outputs, args.batch_size)
    if team.is_first:
        states.wait_for_all()
        print(merge_parts(parts, files, card, outputs, root=folder))
        parts.remove()


@contextmanager
def _removed_unless_started(parts: Parts, team: Team) -> Iterator[None]:
    """Remove the parts' folder after an error before the first part, unless other processes use it."""
    try:
        yield
    except BaseException:
        if team.count == 1 and not parts.is_started:
            parts.remove()
        raise


def _predict_pending(
    model: VisionTransformer, files: Sequence[Path], parts: Parts, team: Team, outputs: PredictionOutputs, size: int
) -> None:
    """Predict the parts of this process that do not exist yet."""
    share = team.share(parts.numbers)
    pending = parts.select_pending(share)
    counts = [sum(len(parts.items(number)) for number in numbers) for numbers in (pending, share)]
    if counts[0] < counts[1]:
        note(f"{counts[1] - counts[0]} of {counts[1]} images are done already", file=sys.stderr)
    predict_parts(model, files, parts, pending, outputs, size)


def _open_model(args: argparse.Namespace) -> tuple[VisionTransformer, ModelCard]:
    """Open the model. Raises InputError if it cannot give what the flags ask for."""
    model, card = open_model(args.model)
    count = model.config.num_classes
    if args.out is not None and not count:
        remedy = "leave out OUT and give --features FILE.npz, or fine-tune it first"
        raise InputError(f"{args.model}: has no classification head, so it predicts no labels; {remedy}")
    if args.top_k is not None and args.top_k > count:
        raise InputError(f"--top-k {args.top_k}: the model has {count} classes")
    return cast_model(model, args.dtype), card


def _as_path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _check_flags(args: argparse.Namespace) -> None:
    """Raise InputError for flags that exclude one another, and for outputs that cannot be written; before any work."""
    if args.out is None and args.features is None:
        raise InputError("no output; give OUT.csv, --features FILE.npz, or both")
    if args.out is None and (args.shards or args.top_k is not None):
        raise InputError(f"{'--shards' if args.shards else '--top-k'} needs OUT")
    processes = read_flags(args, ProcessOptions)
    if args.shards and (args.features is not None or processes.processes is not None):
        flag = "--processes" if args.features is None else "--features"
        raise InputError(f"--shards and {flag} exclude each other; leave one out")
    for path in filter(None, (_as_path(args.out), _as_path(args.features))):
        is_folder = args.shards and args.features is None
        is_taken = path.exists() and not (path.is_dir() if is_folder else path.is_file())
        if not path.absolute().parent.is_dir() or is_taken:
            needed = "a folder" if is_folder else "a CSV's path" if str(path) == args.out else "the path of a .npz"
            raise InputError(f"{path}: {'exists' if path.exists() else 'its folder does not exist'}; give {needed}")
    if args.features is not None and Path(args.features).suffix != ".npz":
        raise InputError(f"{args.features}: features are written to a .npz; name it so")
    if args.out is not None and args.features is not None and Path(args.out).resolve() == Path(args.features).resolve():
        raise InputError(f"{args.out}: OUT and --features are one file; give two")


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command: 0 for success, unreadable images reported and left out; 2 for a wrong input."""
    args = _parser().parse_args(argv)
    runtime.configure()
    _check_flags(args)
    if args.shards:
        _run_shards(args)
    else:
        with ExitStack() as stack:
            _run_parts(args, stack)
    return 0


if __name__ == "__main__":
    sys.exit(main())
