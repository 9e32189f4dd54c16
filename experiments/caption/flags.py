"""The flags of `experiments.caption`, and the captioner they describe."""

import argparse

from caption.captioner import Captioner, SearchOptions
from caption.word_maps import WORD_MAP_METHODS, MapOptions
from experiments.caption.records import CAPTIONS, TABLE
from experiments.common.captioners import open_captioner
from experiments.common.flags import add_batch_size_flag, add_flags
from experiments.common.precision import add_dtype_flag, cast_model
from vit_jax import InputError
from vit_jax.cli import Parser, integer, non_negative, non_negative_int, positive_int, program_name
from vit_jax.plot import MapFigureOptions
from vit_jax.train.distributed import ProcessOptions

DEFAULT_WEIGHTS = "catr_v1"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = Parser(prog=program_name("experiments.caption"), description="Caption pictures, with a heat map per word.")
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="pictures, or folders of pictures")
    parser.add_argument("--out", help=f"output folder: {CAPTIONS}, {TABLE} and a figure per picture")
    parser.add_argument("--html", metavar="FILE", help="one HTML file to explore the captions' attention in, offline")
    parser.add_argument(
        "--weights",
        default=DEFAULT_WEIGHTS,
        help=f"saved captioner, run, CATR file or release (default: {DEFAULT_WEIGHTS})",
    )
    parser.add_argument(
        "--vocabulary", metavar="FILE", help="one WordPiece per line (default: the model's own, else BERT's)"
    )
    parser.add_argument("--cache", help="download folder (default: $VIT_JAX_CACHE or ~/.cache/vit_jax)")
    add_batch_size_flag(parser, 8)
    add_dtype_flag(parser)
    parser.add_argument("--skip-corrupt", action="store_true", help="report unreadable pictures and continue")
    parser.add_argument(
        "--check-released", action="store_true", help="download CATR's own pictures and compare their captions"
    )
    add_flags(parser, ProcessOptions, "several processes (detected under SLURM, Open MPI and Kubernetes)")
    search = parser.add_argument_group("search")
    search.add_argument("--beams", type=positive_int, default=1, help="1 is greedy search")
    search.add_argument("--n-best", type=positive_int, default=1, help=f"captions per picture in {CAPTIONS}")
    search.add_argument(
        "--length-penalty", type=non_negative, default=0.0, help="values above 0 favour longer captions"
    )
    search.add_argument(
        "--no-repeat", type=non_negative_int, default=0, metavar="N", help="no N-gram of tokens occurs twice"
    )
    search.add_argument(
        "--max-length", type=positive_int, help="tokens, start and end included (default: the model's maximum)"
    )
    figures = parser.add_argument_group("figures")
    figures.add_argument(
        "--method", choices=WORD_MAP_METHODS, default="attention", help="method of the maps (default: attention)"
    )
    figures.add_argument("--layer", type=integer, help="decoder layer of the attention (default: the last, -1)")
    figures.add_argument("--head", type=integer, help="decoder head of the attention (default: the mean)")
    add_flags(figures, MapFigureOptions)
    figures.add_argument("--no-figures", action="store_true", help="write captions only")
    return parser


def parse_map_options(args: argparse.Namespace) -> MapOptions:
    """Return the options of the word maps. Raises InputError for flags that exclude one another."""
    if args.method != "attention" and (args.layer, args.head) != (None, None):
        raise InputError("--layer and --head are options of --method attention; leave them out")
    return MapOptions(args.method, -1 if args.layer is None else args.layer, args.head)


def build_captioner(args: argparse.Namespace) -> Captioner:
    """Open the captioner that the flags describe. Raises InputError for flags that do not fit the model."""
    maps = parse_map_options(args)
    if args.n_best > args.beams:
        raise InputError(f"--n-best {args.n_best}: at most --beams, {args.beams}; raise that")
    model, tokenizer = open_captioner(args.weights, vocabulary=args.vocabulary, cache=args.cache)
    max_positions = model.config.max_positions
    max_length = max_positions if args.max_length is None else args.max_length
    if not 2 <= max_length <= max_positions:
        raise InputError(f"--max-length {max_length}: between 2 and the model's {max_positions} positions")
    search = SearchOptions(max_length, args.beams, args.n_best, args.length_penalty, args.no_repeat)
    return Captioner(cast_model(model, args.dtype), tokenizer, search, None if args.no_figures else maps)
