"""python -m experiments.explain MODEL IMAGE...: explanation maps of a model's predictions, as figures and arrays."""

import argparse
import sys
from pathlib import Path

from experiments.common import runtime
from experiments.common.models import open_model
from experiments.common.pictures import list_images
from experiments.common.precision import cast_model
from experiments.explain.evaluation import evaluate_faithfulness
from experiments.explain.explainer import Explainer
from experiments.explain.flags import make_parser, parse_method_options, parse_methods, parse_targets
from experiments.explain.results import write_explanations
from vit_jax import InputError, ModelCard, VisionTransformer, position_similarity
from vit_jax.errors import one_line_errors
from vit_jax.plot import plot_position_similarity, save_figure


def _check_flags(args: argparse.Namespace) -> None:
    if not args.images and (args.evaluate or not args.position):
        raise InputError("no image given; give images or a folder, or --position")
    if args.out is None and not args.evaluate:
        raise InputError("no --out: give a folder to write to")
    if args.evaluate and args.masks is None:
        raise InputError("--evaluate needs --masks, a folder of masks with the images' names")


def _make_explainer(model: VisionTransformer, card: ModelCard, args: argparse.Namespace) -> Explainer:
    methods = parse_methods(args.method)
    if (args.head is not None or args.layer == "all") and "attention" not in methods:
        raise InputError("--head and --layer all need the method attention; add it to --method")
    return Explainer(
        model,
        card,
        methods,
        parse_method_options(args, allow_all=True),
        targets=parse_targets(args.target, card),
        all_heads=args.head == "all",
        all_layers=args.layer == "all",
    )


def _write_position_similarity(model: VisionTransformer, out: Path) -> None:
    rows, columns = model.config.grid
    title = f"position embeddings, {rows}x{columns} patches"
    save_figure(plot_position_similarity(position_similarity(model), title=title), out / "position_similarity.png")
    print(f"{out}/position_similarity.png")


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command. Return 0 on success, also when corrupt images of a folder were skipped; 2 on wrong input."""
    args = make_parser().parse_args(argv)
    runtime.configure()
    _check_flags(args)
    paths = list_images(args.images)
    model, card = open_model(args.model, image_size=args.image_size)
    model = cast_model(model, args.dtype)
    if args.evaluate:
        return evaluate_faithfulness(model, [path.file for path in paths], args)
    out = Path(args.out)
    explainer = _make_explainer(model, card, args) if paths else None
    out.mkdir(parents=True, exist_ok=True)
    if args.position:
        _write_position_similarity(model, out)
    if explainer is not None:
        count = write_explanations(explainer, paths, out, args.batch_size)
        print(f"written to {out}/: a .png and a .npz for each of {count} images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
