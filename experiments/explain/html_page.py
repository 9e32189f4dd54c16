"""The page of --html: one file in which the images' attention is explored by hand."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from experiments.common.models import model_files
from experiments.common.pictures import ImagePath
from experiments.explain.flags import parse_method_options, select_methods
from experiments.explain.targets import parse_targets
from vit_jax import ModelCard, Pipeline, VisionTransformer
from vit_jax.explain import METHODS
from vit_jax.viewer import check_page_path, write_page


def check_page(args: argparse.Namespace, paths: Sequence[ImagePath]) -> None:
    """Raise InputError if the page cannot be written, or would replace an image, a mask or the model."""
    check_page_path(Path(args.html), [*(path.file for path in paths), *model_files(args.model)])


def write_image_page(
    model: VisionTransformer, card: ModelCard, paths: Sequence[ImagePath], args: argparse.Namespace
) -> None:
    """Write the page of the images, and print its size and its largest error."""
    methods = select_methods(args.method, model.config) if args.method else None
    page = write_page(
        args.html,
        Pipeline(model, card.class_names),
        [path.file for path in paths],
        methods=None if methods is None else [name for name in methods if name in METHODS],
        targets=parse_targets(args.target, card),
        options=parse_method_options(args, allow_all=True),
        title=Path(args.model.name).name,
        max_bytes=1_000_000 * args.html_mb,
        full=args.html_full,
    )
    count = "1 image" if len(paths) == 1 else f"{len(paths)} images"
    size = f"{page.num_bytes / 1e6:.2f} MB"
    print(f"{args.html}: {count}, {size}; attention weights are exact to {page.error:.2g}")
