"""python -m experiments.benchmark caption: the time of a caption, alone, in a batch, and next to CATR in PyTorch.

Both write the same greedy captions of one 299x224 image. Their length is forced: the end token cannot win. The
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
from experiments.benchmark.machine import describe_machine
from experiments.benchmark.results import format_ratios, plot_ratios, write_results
from experiments.benchmark.timing import Timings, time_alternately
from vit_jax import InputError
from vit_jax.checkpoint import fill_model, to_arrays
from vit_jax.cli import positive_int
from weights_convert import export

SIZE = 224, 299  # height, width: a photograph of 4:3 at CATR's scale
BATCH = 16
ONE_IMAGE = "here, one image"
END_LOGIT = -1e4  # so that the end token never wins


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `benchmark caption`."""
    parser.add_argument("--model", default="catr", help="a named captioner, with random weights (catr)")
    parser.add_argument("--against", choices=("torch",), help="measure the original too (needs torch)")
    parser.add_argument(
        "--lengths", type=positive_int, nargs="+", default=[12, 40], help="tokens written, with the start token (12 40)"
    )
    parser.add_argument("--batch", type=positive_int, default=BATCH, help=f"images of the batch ({BATCH})")
    parser.add_argument("--rounds", type=positive_int, default=7)
    parser.add_argument("--out", help="folder for benchmark_caption.json, .md and .png")


def create_endless_model(config: CaptionConfig) -> CaptionTransformer:
    """Create a model with random weights that never ends a caption by itself."""
    model = jax.jit(lambda: CaptionTransformer(config, rngs=nnx.Rngs(0)))()
    last = f"head.layers.{len(model.head.layers) - 1}.bias"
    arrays = to_arrays(model)
    return fill_model(model, arrays | {last: arrays[last].at[END].set(END_LOGIT)})


def build_peer(model: CaptionTransformer, images: np.ndarray) -> Callable[[int], np.ndarray]:
    """Build the original with the model's weights: length -> tokens [T] of the first image.

    Raises InputError when the model is not of CATR's architecture.
    """
    try:
        import torch

        from experiments.benchmark.peers import catr
    except ImportError as error:
        raise InputError("--against torch needs torch; install the test extra") from error
    config, encoder = model.config, model.config.encoder
    usual = ResNetConfig()
    if not isinstance(encoder, ResNetConfig) or config.encoder_layers != config.decoder_layers:
        raise InputError("--against torch: the model is not of CATR's architecture; give --model catr, or mini")
    widths = tuple(encoder.stem_width * width // usual.stem_width for width in usual.stage_widths)
    if encoder.stage_widths != widths or len(encoder.stage_depths) != len(widths):
        raise InputError("--against torch: the model's ResNet is not CATR's; give --model catr, or mini")
    original = catr.Caption(
        depths=encoder.stage_depths,  # type: ignore[arg-type]  # four of them, as checked above
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
    original.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}, strict=True)
    device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
    original = original.to(device).eval()
    image = torch.from_numpy(images[:1].transpose(0, 3, 1, 2).copy()).to(device)
    mask = torch.zeros(image.shape[0], *image.shape[2:], dtype=torch.bool, device=device)

    def caption(length: int) -> np.ndarray:
        # Copying to the host waits for the GPU.
        return catr.greedy(original, image, mask, max_length=length, start=START, end=None)[0, :length].cpu().numpy()

    return caption


def check_tokens(model: CaptionTransformer, images: np.ndarray, peer: Callable[[int], np.ndarray], length: int) -> None:
    """Raise InputError when the two do not write the same tokens: a comparison would mean nothing."""
    ours, theirs = np.asarray(write_captions(model, images[:1], length))[0], peer(length)
    if not np.array_equal(ours, theirs):
        first = int(np.argmax(ours != theirs))
        raise InputError(f"the two captions differ from token {first} on ({ours[first]} and {theirs[first]})")


def write_captions(model: CaptionTransformer, images: np.ndarray, length: int) -> jax.Array:
    """Return greedy tokens [B, length] of images without padding."""
    mask = np.ones(images.shape[:3], bool)
    return generate(model, images, mask, max_length=length, start=START, end=END).tokens


def _find_config(args: argparse.Namespace) -> CaptionConfig:
    if args.model not in CONFIGS or not isinstance(CONFIGS[args.model].encoder, ResNetConfig):
        known = [name for name, config in CONFIGS.items() if isinstance(config.encoder, ResNetConfig)]
        raise InputError(f"no captioner {args.model!r} to measure: one of {', '.join(known)}")
    config = CONFIGS[args.model]
    for length in args.lengths:
        if not 2 <= length <= config.max_positions:
            raise InputError(f"--lengths {length}: between 2 and the model's {config.max_positions} positions")
    return config


def run_benchmark(args: argparse.Namespace) -> None:
    """Measure, and print a table for each length: ratios to one image with this library."""
    config = _find_config(args)
    model = create_endless_model(config)
    images = np.random.default_rng(0).uniform(-1, 1, (args.batch, *SIZE, 3)).astype(np.float32)
    peer = build_peer(model, images) if args.against else None
    if peer is not None:
        check_tokens(model, images, peer, max(args.lengths))
    machine = describe_machine(("torch",) if peer is not None else ())
    height, width = SIZE
    title = f"{args.model}, {width}x{height}, greedy, {args.rounds} rounds"
    text = "; ".join([title, *machine.values()])
    first: dict[str, float] = {}
    seconds: dict[str, np.ndarray] = {}
    ratios: dict[str, np.ndarray] = {}
    for length in dict.fromkeys(args.lengths):
        timings = _time_length(model, images, peer, length, args.rounds)
        text += f"\n\n{length} tokens:\n\n" + format_ratios(timings, "one image here")
        first |= {f"{name}, {length} tokens": value for name, value in timings.first.items()}
        seconds |= {f"{name}, {length} tokens": values for name, values in timings.seconds.items()}
        base = timings.seconds[ONE_IMAGE]
        ratios |= {f"{name}, {length} tokens": values / base for name, values in timings.seconds.items()}
    print(text)
    if args.out:
        measured = {"first": first, "seconds": {name: values.tolist() for name, values in seconds.items()}}
        folder = write_results(args, text, machine, measured)
        times, title = "one image here, of as many tokens", f"{title}\n{machine['device']}"
        plot_ratios(ratios, folder / "benchmark_caption.png", times=times, title=title)


def _time_length(
    model: CaptionTransformer,
    images: np.ndarray,
    peer: Callable[[int], np.ndarray] | None,
    length: int,
    rounds: int,
) -> Timings:
    """Time captions of one length; the batch's seconds are per image."""
    batched = f"here, an image of a batch of {len(images)}"
    programs: dict[str, Callable[[], Any]] = {
        ONE_IMAGE: partial(write_captions, model, images[:1], length),
        batched: partial(write_captions, model, images, length),
    }
    if peer is not None:
        programs["CATR in torch, one image"] = partial(peer, length)
    timings = time_alternately(programs, rounds)
    timings.seconds[batched] /= len(images)
    return timings
