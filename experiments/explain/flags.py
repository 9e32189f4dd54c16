"""The flags of python -m experiments.explain, and their values."""

import argparse

from experiments.common.precision import add_dtype_flag
from vit_jax import InputError, ModelCard
from vit_jax.cli import Parser, image_size, positive_int
from vit_jax.explain import BASELINES, DEFAULT_METHODS, METHODS, MethodOptions


def make_parser() -> argparse.ArgumentParser:
    """Return the argument parser of the command."""
    parser = Parser(prog="python -m experiments.explain", description="Explain a model's predictions for images.")
    parser.add_argument("model", help="a saved model, or a run's folder")
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="images, or folders of them")
    parser.add_argument("--out", help="folder to write to: a .png and a .npz for each image")
    parser.add_argument(
        "--method",
        action="append",
        help=f"{', '.join(METHODS)}, or all; several separated by commas (default: {','.join(DEFAULT_METHODS)})",
    )
    parser.add_argument(
        "--target",
        action="append",
        help="a class by name or number, several separated by commas (default: the predicted class)",
    )
    parser.add_argument(
        "--layer",
        default="-1",
        help="layer of attention and gradcam (default: the last); 'all' draws all for attention",
    )
    parser.add_argument("--head", help="head of attention (default: the mean over heads); 'all' draws all of them")
    parser.add_argument("--image-size", type=image_size, metavar="N|HxW", help="default: the model's own")
    parser.add_argument("--position", action="store_true", help="draw the similarity of the position embeddings")
    parser.add_argument("--steps", type=positive_int, default=32, help="of integrated_gradients (default: 32)")
    parser.add_argument("--rise-masks", type=positive_int, default=1000, help="number of rise's masks (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of rise's masks and the random control (default: 0)")
    parser.add_argument("--batch-size", type=positive_int, default=8, help="images per batch (default: 8)")
    add_dtype_flag(parser)
    group = parser.add_argument_group("faithfulness")
    group.add_argument("--evaluate", action="store_true", help="score the methods on images with masks")
    group.add_argument(
        "--masks", help="folder of masks with the images' names: 1 is object, 2 background, 3 is not scored"
    )
    group.add_argument(
        "--baseline", action="append", choices=BASELINES, help="pixels that replace a removed patch (default: mean)"
    )
    return parser


def parse_methods(flags: list[str] | None) -> tuple[str, ...]:
    """Return the methods of --method flags: names separated by commas, or all. Raises InputError for unknown ones."""
    names = tuple(name for text in flags or DEFAULT_METHODS for name in text.split(",") if name)
    if "all" in names:
        return tuple(METHODS)
    unknown = next((name for name in names if name not in METHODS), None)
    if unknown is not None or not names:
        raise InputError(f"unknown method {unknown or ''!r}: one of {', '.join(METHODS)}, or all")
    return tuple(dict.fromkeys(names))


def _parse_int(flag: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{flag} {text}: not a number") from None


def parse_method_options(args: argparse.Namespace, *, allow_all: bool = False) -> MethodOptions:
    """Return the options of the methods. Raises InputError for a --layer or --head that is not a number.

    allow_all: accept "all", as the last layer and as the mean over heads.
    """
    layer = "-1" if allow_all and args.layer == "all" else args.layer
    head = None if allow_all and args.head == "all" else args.head
    return MethodOptions(
        _parse_int("--layer", layer),
        None if head is None else _parse_int("--head", head),
        steps=args.steps,
        num_masks=args.rise_masks,
        seed=args.seed,
    )


def parse_targets(flags: list[str] | None, card: ModelCard) -> list[int] | None:
    """Return the classes of --target flags, by name or number. Raises InputError for a class the model lacks."""
    if flags is None:
        return None
    numbers = []
    for name in (name for text in flags for name in text.split(",")):
        if name in card.class_names:
            numbers.append(card.class_names.index(name))
        elif name.isdigit() and int(name) < card.config.num_classes:
            numbers.append(int(name))
        else:
            by_name = f", or by name: {', '.join(card.class_names[:8])} ..." if card.class_names else ""
            raise InputError(f"no class {name!r}: classes are 0 to {card.config.num_classes - 1}{by_name}")
    return list(dict.fromkeys(numbers))
