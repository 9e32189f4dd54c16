"""python -m experiments.benchmark caption: what a caption costs, alone, in a batch, and beside CATR in PyTorch.

Both write the same greedy captions of one 299x224 image, of a length that is forced: the end token can't win. The
original runs its whole model, backbone included, for every word (see peers/catr.py); here the image is encoded once.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx

from caption import CONFIGS, CaptionConfig, CaptionTransformer, ResNetConfig, generate
from caption._generate import END, START
from experiments.benchmark.timing import alternating, machine, plot_ratios, ratio_table, torch_version, write_measured
from vit_jax import InputError
from vit_jax.checkpoint import fill_model, to_arrays
from vit_jax.cli import positive_int
from weights_convert import export

SIZE = 224, 299  # height, width: a photograph of 4:3 at CATR's scale
BATCH = 16
NEVER = -1e4  # the end token's logit


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add what `benchmark caption` takes."""
    parser.add_argument("--model", default="catr", help="a named captioner, with random weights (catr)")
    parser.add_argument("--against", choices=("torch",), help="measure the original beside it (needs torch)")
    parser.add_argument(
        "--lengths", type=positive_int, nargs="+", default=[12, 40], help="tokens written, the start too (12 40)"
    )
    parser.add_argument("--batch", type=positive_int, default=BATCH, help=f"images of the batch ({BATCH})")
    parser.add_argument("--rounds", type=positive_int, default=7)
    parser.add_argument("--out", help="folder for benchmark_caption.json, .md and .png")


def endless(config: CaptionConfig) -> CaptionTransformer:
    """A model with random weights that never ends a caption by itself."""
    model = jax.jit(lambda: CaptionTransformer(config, rngs=nnx.Rngs(0)))()
    last = f"head.layers.{len(model.head.layers) - 1}.bias"
    arrays = to_arrays(model)
    return fill_model(model, arrays | {last: arrays[last].at[END].set(NEVER)})


def peer_of(model: CaptionTransformer, images: np.ndarray) -> Callable[[int], np.ndarray]:
    """The original with the model's weights: length -> tokens [T] of the first image. Raises InputError for others."""
    try:
        import torch

        from experiments.benchmark.peers import catr
    except ImportError as error:
        raise InputError("--against torch needs torch; install the test extra") from error
    config, encoder = model.config, model.config.encoder
    usual = ResNetConfig()
    if not isinstance(encoder, ResNetConfig) or config.encoder_layers != config.decoder_layers:
        raise InputError("--against torch: the model is none of CATR's shape; give --model catr, or mini")
    widths = tuple(encoder.stem_width * width // usual.stem_width for width in usual.stage_widths)
    if encoder.stage_widths != widths or len(encoder.stage_depths) != len(widths):
        raise InputError("--against torch: the model's ResNet is none of CATR's shape; give --model catr, or mini")
    made = catr.Caption(
        depths=encoder.stage_depths,  # type: ignore[arg-type]  # four of them, as just checked
        backbone_width=encoder.stem_width,
        width=config.width,
        heads=config.num_heads,
        layers=config.decoder_layers,
        hidden=config.mlp_dim,
        head_hidden=config.head_width,
        vocabulary=config.vocab_size,
        positions=config.max_positions,
        dropout=0.0,
    )
    arrays = export(model, layout="catr")
    made.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}, strict=True)
    device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
    made = made.to(device).eval()
    image = torch.from_numpy(images[:1].transpose(0, 3, 1, 2).copy()).to(device)
    mask = torch.zeros(image.shape[0], *image.shape[2:], dtype=torch.bool, device=device)

    def caption(length: int) -> np.ndarray:
        # To the host: work on a GPU is done when its answer is there.
        return catr.greedy(made, image, mask, max_length=length, start=START, end=None)[0, :length].cpu().numpy()

    return caption


def check_same(model: CaptionTransformer, images: np.ndarray, peer: Callable[[int], np.ndarray], length: int) -> None:
    """Raise InputError when the two do not write the same tokens: there would be nothing to compare."""
    ours, theirs = np.asarray(written(model, images[:1], length))[0], peer(length)
    if not np.array_equal(ours, theirs):
        place = int(np.argmax(ours != theirs))
        raise InputError(f"the two captions differ from token {place} on ({ours[place]} and {theirs[place]})")


def written(model: CaptionTransformer, images: np.ndarray, length: int) -> jax.Array:
    """Greedy tokens [B, length] of images that fill their arrays."""
    mask = np.ones(images.shape[:3], bool)
    return generate(model, images, mask, max_length=length, start=START, end=END).tokens


def _check(args: argparse.Namespace) -> CaptionConfig:
    if args.model not in CONFIGS or not isinstance(CONFIGS[args.model].encoder, ResNetConfig):
        known = [name for name, config in CONFIGS.items() if isinstance(config.encoder, ResNetConfig)]
        raise InputError(f"no captioner {args.model!r} to measure: one of {', '.join(known)}")
    config = CONFIGS[args.model]
    for length in args.lengths:
        if not 2 <= length <= config.max_positions:
            raise InputError(f"--lengths {length}: between 2 and the model's {config.max_positions} positions")
    return config


def run(args: argparse.Namespace) -> int:
    """Measure, and print a table for every length: times ours for one image."""
    config = _check(args)
    model = endless(config)
    images = np.random.default_rng(0).uniform(-1, 1, (args.batch, *SIZE, 3)).astype(np.float32)
    peer = peer_of(model, images) if args.against else None
    about = machine()
    first: dict[str, float] = {}
    seconds: dict[str, np.ndarray] = {}
    ratios: dict[str, np.ndarray] = {}
    height, width = SIZE
    title = f"{args.model}, {width}x{height}, greedy, {args.rounds} rounds"
    if peer is not None:
        check_same(model, images, peer, max(args.lengths))
        about["torch"] = torch_version()
    text = "; ".join([title, *about.values()])
    for length in dict.fromkeys(args.lengths):
        batched = f"here, an image of a batch of {args.batch}"
        programs: dict[str, Callable[[], Any]] = {
            "here, one image": partial(written, model, images[:1], length),
            batched: partial(written, model, images, length),
        }
        if peer is not None:
            programs["CATR in torch, one image"] = partial(peer, length)
        timed = alternating(programs, args.rounds)
        timed.seconds[batched] = timed.seconds[batched] / args.batch
        text += f"\n\n{length} tokens:\n\n" + ratio_table(timed, "one image here")
        first |= {f"{name}, {length} tokens": value for name, value in timed.first.items()}
        seconds |= {f"{name}, {length} tokens": values for name, values in timed.seconds.items()}
        alone = timed.seconds["here, one image"]
        ratios |= {f"{name}, {length} tokens": values / alone for name, values in timed.seconds.items()}
    print(text)
    if args.out:
        listed = {name: values.tolist() for name, values in seconds.items()}
        stored = about | {"arguments": vars(args), "first": first, "seconds": listed}
        place = write_measured(args.out, "benchmark_caption", text, stored)
        times, name = "one image here, of as many tokens", f"{title}\n{about['device']}"
        plot_ratios(ratios, place / "benchmark_caption.png", times=times, title=name)
    return 0
