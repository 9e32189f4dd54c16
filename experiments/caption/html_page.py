"""The page of --html: one file in which the pictures' captions are explored by hand."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from caption.page import write_page
from experiments.caption.flags import build_captioner
from experiments.common.models import model_files
from vit_jax.viewer import check_page_path


def check_page(args: argparse.Namespace, files: Sequence[Path]) -> None:
    """Raise InputError if the page cannot be written, or would replace a picture, the model or the vocabulary."""
    vocabulary = [args.vocabulary] if args.vocabulary else []
    check_page_path(Path(args.html), [*files, *model_files(args.weights), *vocabulary])


def write_caption_page(args: argparse.Namespace, files: Sequence[Path]) -> None:
    """Caption the pictures, write the page, and print its size."""
    page = write_page(
        args.html, build_captioner(args), list(files), title=f"Captions of {Path(args.weights.name).name}"
    )
    count = "1 picture" if len(files) == 1 else f"{len(files)} pictures"
    print(f"{args.html}: {count}, {page.num_bytes / 1e6:.2f} MB")
