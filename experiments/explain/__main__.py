"""python -m experiments.explain MODEL IMAGE...: explanation maps of a model's predictions, as figures and arrays.

With --html, a page in which the images' attention is explored by hand.
"""

import argparse
import sys
from pathlib import Path

from experiments.common import runtime
from experiments.common.flags import read_flags
from experiments.common.models import find_image_model, model_files, open_model
from experiments.common.pictures import ImagePath, check_results, list_images
from experiments.common.precision import cast_model
from experiments.common.team import SharedFolder, check_alone, has_peers, share_folder
from experiments.explain.evaluation import SCORE_FILES, evaluate_faithfulness
from experiments.explain.explainer import Explainer
from experiments.explain.flags import (
    check_method_flags,
    list_head_methods,
    make_parser,
    parse_method_options,
    select_methods,
)
from experiments.explain.html_page import check_page, write_image_page
from experiments.explain.results import result_ends, write_explanations
from experiments.explain.targets import parse_targets
from vit_jax import InputError, ModelCard, VisionTransformer, position_similarity
from vit_jax.errors import one_line_errors
from vit_jax.outputs import check_apart, check_outside
from vit_jax.plot import FigureFormat, MapFigureOptions, plot_position_similarity, save_figure
from vit_jax.train.distributed import ProcessOptions

POSITIONS = "position_similarity"  # name of the figure


def _check_flags(args: argparse.Namespace) -> None:
    if not args.images and (args.evaluate or not args.position):
        raise InputError("no image given; give images or a folder, or --position")
    if args.out is None and args.html is None and not args.evaluate:
        raise InputError("no --out: give a folder to write to, or --html FILE")
    if args.html_full and args.html is None:
        raise InputError("--html-full needs --html, the file to write")
    if args.html is not None and (args.evaluate or not args.images):
        raise InputError("--html needs images, and writes no scores; leave out --evaluate")
    if args.evaluate and args.masks is None:
        raise InputError("--evaluate needs --masks, a folder of masks with the images' names")


def _check_out(args: argparse.Namespace, paths: list[ImagePath]) -> None:
    """Raise InputError if --out cannot be written, or a result would replace an image, a mask or the model."""
    if args.evaluate:
        results = [Path(name) for name in SCORE_FILES]
    else:
        figures = read_flags(args, FigureFormat)
        ends = result_ends(
            figures,
            maps=True,
            head_methods=list_head_methods(args.method),
            all_heads=args.head == "all",
            all_layers=args.layer == "all",
        )
        results = [Path(f"{path.result}{end}") for path in paths for end in ends]
        results += [Path(f"{POSITIONS}{figures.suffix}")] if args.position else []
    out, masks = Path(args.out), Path(args.masks) if args.masks else None
    check_results(out, args.images, [path.file for path in paths], results)
    check_outside(out, [masks] if masks else [])
    check_apart([out / result for result in results], model_files(args.model))


def _make_explainer(model: VisionTransformer, card: ModelCard, args: argparse.Namespace) -> Explainer:
    methods = select_methods(args.method, model.config)
    check_method_flags(args, methods)
    return Explainer(
        model,
        card,
        methods,
        parse_method_options(args, allow_all=True),
        targets=parse_targets(args.target, card),
        all_heads=args.head == "all",
        all_layers=args.layer == "all",
    )


def _write_position_similarity(model: VisionTransformer, path: Path, *, dpi: int) -> None:
    rows, columns = model.config.grid
    title = f"position embeddings, {rows}x{columns} patches"
    figure = plot_position_similarity(position_similarity(model), title=title)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, path, dpi=dpi)
    print(path)


def _open_model(args: argparse.Namespace) -> tuple[VisionTransformer, ModelCard]:
    model, card = open_model(args.model, image_size=args.image_size)
    return cast_model(model, args.dtype), card


def _explain_share(args: argparse.Namespace, paths: list[ImagePath], shared: SharedFolder) -> None:
    """Explain this process's share of the images; the first process reports when all are done."""
    figures, out, team = read_flags(args, MapFigureOptions), Path(args.out), shared.team
    model, card = _open_model(args)
    explainer = _make_explainer(model, card, args) if paths else None
    if args.position and team.is_first:
        _write_position_similarity(model, out / f"{POSITIONS}{figures.suffix}", dpi=figures.dpi)
    share = team.share(paths)
    if explainer and share:
        shared.summary["count"] = write_explanations(explainer, share, out, args.batch_size, figures)
    if team.is_first and paths:
        count = sum(each.get("count", 0) for each in (shared.summary, *shared.states.wait_for_all()))
        if not count:
            raise InputError("none of the images can be read")
        print(f"written to {out}/: a {figures.suffix} and a .npz for each of {count} images")


def _run(args: argparse.Namespace, paths: list[ImagePath]) -> None:
    """Explain or evaluate the images, with other processes if the flags or a cluster name them."""
    processes = read_flags(args, ProcessOptions)
    if args.html is not None and has_peers(processes):
        raise InputError("--html is written by one process; leave out --coordinator, --processes and --process")
    if args.out is None:
        check_alone(processes)
    if args.html is not None:
        write_image_page(*_open_model(args), paths, args)
    if args.out is not None:
        work = "evaluates into it" if args.evaluate else "explains into it"
        with share_folder(Path(args.out), processes, work) as shared:
            if args.evaluate:
                evaluate_faithfulness(_open_model(args)[0], paths, args, shared)
            else:
                _explain_share(args, paths, shared)
    elif args.evaluate:
        evaluate_faithfulness(_open_model(args)[0], paths, args, None)


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command. Return 0 on success, also when corrupt images of a folder were skipped; 2 on wrong input."""
    args = make_parser().parse_args(argv)
    runtime.configure()
    _check_flags(args)
    args.model = find_image_model(args.model)
    paths = list_images(args.images)
    if args.out is not None:
        _check_out(args, paths)
    if args.html is not None:
        check_page(args, paths)
    _run(args, paths)
    return 0


if __name__ == "__main__":
    sys.exit(main())
