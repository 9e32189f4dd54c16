"""The flags of python -m experiments.explain, and their values."""

import argparse
import sys
from collections.abc import Sequence

from experiments.common.flags import add_batch_size_flag, add_flags
from experiments.common.precision import add_dtype_flag
from vit_jax import InputError, ViTConfig
from vit_jax.cli import Parser, image_size, positive_int, program_name, seed
from vit_jax.explain import (
    BASELINES,
    DEFAULT_METHODS,
    HEAD_METHODS,
    METHODS,
    MethodOptions,
    why_unavailable,
    why_unavailable_per_head,
)
from vit_jax.numerals import parse_int
from vit_jax.plot import MapFigureOptions
from vit_jax.suggest import describe_unknown
from vit_jax.train.distributed import ProcessOptions


def make_parser() -> argparse.ArgumentParser:
    """Return the argument parser of the command."""
    parser = Parser(prog=program_name("experiments.explain"), description="Explain a model's predictions for images.")
    parser.add_argument("model", help="a saved model, or a run's folder")
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="images, or folders of them")
    parser.add_argument("--out", help="folder to write to: a figure and a .npz for each image")
    parser.add_argument("--html", metavar="FILE", help="one HTML file to explore the images' attention in, offline")
    parser.add_argument(
        "--html-mb", type=positive_int, default=3, metavar="MB", help="its size for one image, at most (default: 3)"
    )
    parser.add_argument(
        "--html-full", action="store_true", help="all layers in it, as exactly as a small page, whatever its size"
    )
    parser.add_argument(
        "--method",
        action="append",
        help=f"{', '.join((*METHODS, *HEAD_METHODS))}, or all; several separated by commas "
        f"(default: {','.join(DEFAULT_METHODS)})",
    )
    parser.add_argument(
        "--target",
        action="append",
        help="a class by name, or else by number; several separated by commas, or by repeating the flag; a name with "
        "commas may be quoted (default: the predicted class)",
    )
    parser.add_argument(
        "--layer",
        default="-1",
        help="layer of attention, gradcam, token_norm, logit_lens (default: the last); 'all' draws all for attention",
    )
    parser.add_argument("--head", help="head of attention (default: the mean over heads); 'all' draws all of them")
    parser.add_argument(
        "--patch",
        action="append",
        metavar="ROW,COLUMN",
        help="patch that similarity compares with, from 0,0; repeated for a region (default: the central one)",
    )
    parser.add_argument("--foreground", action="store_true", help="of pca: leave out the background")
    parser.add_argument("--image-size", type=image_size, metavar="N|HxW", help="default: the model's own")
    parser.add_argument("--position", action="store_true", help="draw the similarity of the position embeddings")
    parser.add_argument("--steps", type=positive_int, default=32, help="of integrated_gradients (default: 32)")
    parser.add_argument("--rise-masks", type=positive_int, default=1000, help="number of rise's masks (default: 1000)")
    parser.add_argument("--seed", type=seed, default=0, help="of rise's masks and the random control (default: 0)")
    add_batch_size_flag(parser, 8, "images per batch (default: 8)")
    add_dtype_flag(parser)
    add_flags(parser, MapFigureOptions, "figures")
    add_flags(parser, ProcessOptions, "several processes (detected under SLURM, Open MPI and Kubernetes)")
    group = parser.add_argument_group("faithfulness")
    group.add_argument("--evaluate", action="store_true", help="score the methods on images with masks")
    group.add_argument(
        "--masks", help="folder of masks with the images' relative paths: 1 is object, 2 background, 3 is not scored"
    )
    group.add_argument(
        "--baseline", action="append", choices=BASELINES, help="pixels that replace a removed patch (default: mean)"
    )
    return parser


def _split_names(flags: Sequence[str]) -> list[str]:
    return [name for text in flags for name in text.split(",") if name]


def list_head_methods(flags: list[str] | None) -> list[str]:
    """Return the names of HEAD_METHODS that --method flags can stand for."""
    names = _split_names(flags or [])
    return [name for name in HEAD_METHODS if name in names or "all" in names]


def _explain_unavailable(name: str, config: ViTConfig, scored: bool) -> str:
    if name in HEAD_METHODS:
        return "is a table of heads, not a map to score" if scored else why_unavailable_per_head(name, config)
    if scored and METHODS[name].is_colour:
        return "gives colours, which have no order to score"
    return why_unavailable(name, config)


def select_methods(
    flags: list[str] | None,
    config: ViTConfig,
    default: Sequence[str] = DEFAULT_METHODS,
    *,
    scored: bool = False,
) -> list[str]:
    """Return the methods of --method flags: names separated by commas, or all.

    scored: of a table of scores, which takes maps alone: "all" stands for those.
    Of "all", and of the default, those that cannot run on the model are left out, with one line on stderr.
    Raises InputError for an unknown method, and for a named one that cannot run, saying why.
    """
    known = [*METHODS, *HEAD_METHODS]
    names = _split_names(flags or default)
    unknown = next((name for name in names if name not in (*known, "all")), None)
    if unknown is not None or not names:
        raise InputError(describe_unknown("method", unknown or "", known, more=", or all"))
    everything = [name for name, method in METHODS.items() if not method.is_colour] if scored else known
    methods = everything if "all" in names else list(dict.fromkeys(names))
    reasons = {name: reason for name in methods if (reason := _explain_unavailable(name, config, scored))}
    if reasons and (len(reasons) == len(methods) or (flags and "all" not in names)):
        raise InputError("; ".join(f"--method {name}: {reason}" for name, reason in reasons.items()))
    if reasons:
        left_out = "; ".join(f"{name} ({reason})" for name, reason in reasons.items())
        print(f"left out: {left_out}", file=sys.stderr)
    return [name for name in methods if name not in reasons]


def check_method_flags(args: argparse.Namespace, methods: Sequence[str]) -> None:
    """Raise InputError for a flag that none of the methods to run reads."""
    given = {
        "--head and --layer all": (args.head is not None or args.layer == "all", "attention"),
        "--patch": (bool(args.patch), "similarity"),
        "--foreground": (args.foreground, "pca"),
    }
    for flag, (is_given, method) in given.items():
        if is_given and method not in methods:
            verb = "need" if " and " in flag else "needs"
            raise InputError(f"{flag} {verb} the method {method}; add it to --method")


def _parse_int(flag: str, text: str) -> int:
    value = parse_int(text)
    if value is None:
        raise InputError(f"{flag} {text}: not a number")
    return value


def _parse_patch(text: str) -> tuple[int, int]:
    parts = [parse_int(part) for part in text.split(",")]
    if len(parts) != 2 or parts[0] is None or parts[1] is None:
        raise InputError(f"--patch {text}: a patch is ROW,COLUMN, as 3,5")
    return parts[0], parts[1]


def parse_method_options(args: argparse.Namespace, *, allow_all: bool = False) -> MethodOptions:
    """Return the options of the methods. Raises InputError for a value that is not a number.

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
        patches=tuple(_parse_patch(text) for text in args.patch or ()),
        foreground=args.foreground,
    )
