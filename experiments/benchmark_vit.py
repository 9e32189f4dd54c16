"""python -m experiments.benchmark vit: the forward pass, or a step of training, beside the PyTorch originals.

Each has the same random weights and must give the same numbers before anything is timed. A large matrix product takes
turns with them, so that each round tells what share of the machine's own rate the model reaches.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.recipe import Recipe
from experiments.timing import alternating, machine, ratio_table, write_report
from vit_jax import CONFIGS, InputError, VisionTransformer, ViTConfig
from vit_jax.checkpoint import from_arrays, to_arrays
from vit_jax.cli import image_size, positive_int
from vit_jax.layers import Layers
from weights_convert import export

PRODUCT = 2048  # the side of the matrices
SAME = 1e-3  # of the largest logit, in float32


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add what `benchmark vit` takes."""
    parser.add_argument("--model", default="B_16_imagenet1k", help="a named architecture (B_16_imagenet1k)")
    parser.add_argument("--image-size", type=image_size, metavar="N|HxW", help="default: the model's own")
    parser.add_argument("--batch-size", type=positive_int, default=1)
    parser.add_argument("--train", action="store_true", help="a step of AdamW in place of the forward pass")
    parser.add_argument("--scan-layers", action=argparse.BooleanOptionalAction, help="default: as the programs have it")
    parser.add_argument("--against", choices=("torch",), help="measure the originals beside it (needs the test extra)")
    parser.add_argument("--rounds", type=positive_int, default=7)
    parser.add_argument("--out", help="folder for benchmark_vit.json and .md")


def made_model(config: ViTConfig) -> VisionTransformer:
    """Random weights, the head's too: a new one is all zeros."""
    model = jax.jit(lambda: VisionTransformer(config, rngs=nnx.Rngs(0)))()
    arrays = to_arrays(model)
    kernel = 0.05 * jax.random.normal(jax.random.key(1), arrays["head.kernel"].shape)
    return from_arrays(config, arrays | {"head.kernel": kernel})


def peers_of(model: VisionTransformer) -> dict[str, Any]:
    """The originals by name, with the model's weights. Raises InputError where what they need is not installed."""
    try:
        from experiments.peers import vit
    except ImportError as error:
        raise InputError(f"--against torch needs {error.name}; install the test extra") from error
    found = {"pytorch_pretrained_vit": vit.original(model.config, export(model, layout="lukemelas"))}
    if model.config.image_size[0] == model.config.image_size[1]:
        found["Hugging Face, SDPA"] = vit.HuggingFace(model.config, export(model, layout="hf_vit"))
    if jax.default_backend() == "gpu":
        found = {name: peer.to("cuda") for name, peer in found.items()}
    return found


def own_step(
    model: VisionTransformer, images: np.ndarray, labels: np.ndarray, recipe: Recipe, layers: Layers
) -> Callable[[], jax.Array]:
    """One step of the engine after another on the same batch; answers the sum of all losses so far."""
    from experiments.training.classify import Inputs, loss_of
    from experiments.training.rates import learning_rates, optimizer
    from experiments.training.state import first_state
    from experiments.training.step import StepSettings, make_train_step

    def loss(model: Any, inputs: Inputs, key: Any) -> Any:
        return loss_of(model, inputs, None, layers=layers)

    tx = optimizer(recipe, learning_rates(recipe, 1), model)
    step = make_train_step(lambda batch, key: batch, loss, tx, StepSettings())
    inputs = Inputs(jnp.asarray(images), jnp.asarray(labels), jnp.ones(len(labels)))
    held = [first_state(jax.tree.map(jnp.copy, model), tx)]

    def run() -> jax.Array:
        held[0], _ = step(held[0], inputs)
        return held[0].totals.loss

    return run


def flops_of(model: VisionTransformer, images: jax.Array) -> float:
    """Floating-point operations of a forward pass, as the compiler counts them; a step of training has thrice that."""
    found = jax.jit(lambda m, x: m(x)).lower(model, images).compile().cost_analysis()
    assert found is not None
    return float(found["flops"])


def run(args: argparse.Namespace) -> int:
    """Measure, and print the table: times ours."""
    if args.model not in CONFIGS:
        raise InputError(f"unknown model {args.model!r}: one of {', '.join(CONFIGS)}")
    config = CONFIGS[args.model]
    config = replace(config.resized(args.image_size or config.image_size), dropout=0.0, attention_dropout=0.0)
    model = made_model(config)
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (args.batch_size, *config.image_size, 3)).astype(np.float32)
    labels = rng.integers(0, config.num_classes, args.batch_size).astype(np.int32)
    layers = Layers(scan=args.train if args.scan_layers is None else args.scan_layers)
    peers = peers_of(model) if args.against else {}
    forward = jax.jit(lambda m, x: m(x, layers=layers))
    placed = jnp.asarray(images)
    flops = flops_of(model, placed) * (3 if args.train else 1)
    about = machine()
    if peers:
        import torch

        about["torch"] = f"torch {torch.__version__}, {torch.get_num_threads()} threads"
        check_same(np.asarray(forward(model, placed)), {name: _inference(p, images) for name, p in peers.items()})
    recipe = Recipe(model=args.model, epochs=1)
    programs: dict[str, Callable[[], Any]]
    if args.train:
        rule: dict[str, Any] = dict(lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        programs = {"here": own_step(model, images, labels, recipe, layers)}
        programs |= {name: _training(peer, images, labels, rule) for name, peer in peers.items()}
    else:
        programs = {"here": lambda: forward(model, placed)}
        programs |= {name: _inference(peer, images) for name, peer in peers.items()}
    square = jax.random.normal(jax.random.key(0), (PRODUCT, PRODUCT))
    product = jax.jit(lambda a: a @ a)
    seconds = alternating(programs | {"matrix product": lambda: product(square)}, args.rounds)
    rate = 2 * PRODUCT**3 / seconds.pop("matrix product")
    share = flops / seconds["here"] / rate
    height, width = config.image_size
    what = "training step (AdamW)" if args.train else "forward pass"
    text = f"{args.model} at {height}x{width}, batch {args.batch_size}, {what}, float32, {args.rounds} rounds; "
    text += "; ".join(about.values()) + "\n\n" + ratio_table(seconds, "ours")
    told = f"{np.median(share):.2f} ({share.min():.2f} to {share.max():.2f})"
    text += (
        f"\n\nhere: {args.batch_size / np.median(seconds['here']):.2f} images/s, {flops / 1e9:,.1f} GFLOP, {told} "
        f"of the {np.median(rate) / 1e9:,.0f} GFLOP/s of a {PRODUCT}x{PRODUCT} matrix product"
    )
    print(text)
    if args.out:
        kept = seconds | {"matrix product": 2 * PRODUCT**3 / rate}
        write_report(args.out, "benchmark_vit", text, about | {"arguments": vars(args), "flops": flops}, kept)
    return 0


def _inference(peer: Any, images: np.ndarray) -> Callable[[], np.ndarray]:
    from experiments.peers import vit

    return vit.inference(peer, images)


def _training(peer: Any, images: np.ndarray, labels: np.ndarray, rule: dict[str, Any]) -> Callable[[], float]:
    from experiments.peers import vit

    return vit.training(peer, images, labels, **rule)


def check_same(ours: np.ndarray, peers: dict[str, Callable[[], np.ndarray]]) -> None:
    """Raise InputError when a peer's logits are others: there would be nothing to compare."""
    for name, peer in peers.items():
        error = np.abs(peer() - ours).max() / np.abs(ours).max()
        if not error < SAME:
            raise InputError(f"{name} gives other logits than ours, by {error:.1e} of the largest")
