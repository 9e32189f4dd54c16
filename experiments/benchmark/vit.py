"""python -m experiments.benchmark vit: the forward pass, or a step of training, beside the PyTorch originals.

Each is a process of its own, has the same random weights and must give the same numbers. A large matrix product takes
turns with them, so that each round tells what share of the machine's own rate the model reaches.
"""

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.benchmark.children import Child
from experiments.benchmark.timing import Timed, alternating, machine, ratio_table, torch_version, write_report
from experiments.common import runtime
from vit_jax import CONFIGS, InputError, VisionTransformer, ViTConfig, compiler_options
from vit_jax.checkpoint import from_arrays, to_arrays
from vit_jax.cli import image_size, positive_int
from vit_jax.execution import BlockExecution
from vit_jax.train.classify import ClassifierInputs, classification_loss
from vit_jax.train.optim import make_optimizer, make_schedule
from vit_jax.train.recipe import Recipe
from vit_jax.train.state import init_state
from vit_jax.train.step import StepSettings, make_train_step
from weights_convert import export

PRODUCT = 2048  # the side of the matrices
SAME = 1e-3  # of the largest logit, in float32
SAME_HALF = 5e-2  # in bfloat16, which has 8 bits
OURS, MATRICES = "here", "matrix product"
PEERS = ("pytorch_pretrained_vit", "the same, SDPA and torch.compile", "Hugging Face, SDPA")


@dataclass(frozen=True)
class Setting:
    """What is measured: a model of random weights on one batch. train: a step of AdamW, not the forward pass."""

    config: ViTConfig
    batch_size: int
    train: bool
    scan: bool
    dtype: str

    def images(self) -> np.ndarray:
        """The batch, float32 [B, h, w, 3]."""
        shape = (self.batch_size, *self.config.image_size, self.config.in_channels)
        return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)

    def labels(self) -> np.ndarray:
        """A class for each image, int32 [B]."""
        return np.random.default_rng(1).integers(0, self.config.num_classes, self.batch_size).astype(np.int32)

    @property
    def rule(self) -> dict[str, Any]:
        """AdamW's settings on both sides."""
        recipe = Recipe(model=None, epochs=1)
        return dict(learning_rate=recipe.learning_rate, weight_decay=recipe.weight_decay)


def add_setting_flags(parser: argparse.ArgumentParser) -> None:
    """Add what says which model is measured on what."""
    parser.add_argument("--model", default="B_16_imagenet1k", help="a named architecture (B_16_imagenet1k)")
    parser.add_argument("--image-size", type=image_size, metavar="N|HxW", help="default: the model's own")
    parser.add_argument("--batch-size", type=positive_int, default=1)
    parser.add_argument("--train", action="store_true", help="a step of AdamW in place of the forward pass")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="to compute in")
    parser.add_argument("--scan-layers", action="store_true", help="ours compiles one block and loops over it")
    parser.add_argument("--against", choices=("torch",), help="measure the originals beside it (needs the test extra)")
    parser.add_argument("--torch-compile", action=argparse.BooleanOptionalAction, default=True,
                        help="with torch.compile among them, which needs a C++ compiler on a CPU")  # fmt: skip


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add what `benchmark vit` takes."""
    add_setting_flags(parser)
    parser.add_argument("--rounds", type=positive_int, default=7)
    parser.add_argument("--out", help="folder for benchmark_vit.json, .md and .png")


def named(model: str, size: tuple[int, int] | None) -> ViTConfig:
    """A named architecture at an image size, its own for None. Raises InputError for an unknown name."""
    if model not in CONFIGS:
        raise InputError(f"unknown model {model!r}: one of {', '.join(CONFIGS)}")
    config = CONFIGS[model]
    return config.resized(size or config.image_size)


def setting_of(args: argparse.Namespace) -> Setting:
    """What the flags ask for. Raises InputError for an unknown model."""
    config = replace(named(args.model, args.image_size), dropout=0.0, attention_dropout=0.0)
    return Setting(config, args.batch_size, args.train, args.scan_layers, args.dtype)


def told(setting: Setting) -> str:
    """One line on what is measured."""
    height, width = setting.config.image_size
    what = "training step (AdamW)" if setting.train else "forward pass"
    return f"{height}x{width}, batch {setting.batch_size}, {what}, {setting.dtype}"


def made_model(config: ViTConfig) -> VisionTransformer:
    """Random weights, the head's too: a new one is all zeros."""
    model = jax.jit(lambda: VisionTransformer(config, rngs=nnx.Rngs(0)))()
    if not config.num_classes:
        return model
    arrays = to_arrays(model)
    kernel = 0.05 * jax.random.normal(jax.random.key(1), arrays["head.kernel"].shape)
    return from_arrays(config, arrays | {"head.kernel": kernel})


def peer_names(config: ViTConfig, *, compiled: bool) -> list[str]:
    """The originals that there are for a model: Hugging Face's has square images alone."""
    square = config.image_size[0] == config.image_size[1]
    return [name for name in PEERS if (square or name != PEERS[2]) and (compiled or name != PEERS[1])]


def peers_module() -> Any:
    """peers/vit.py. Raises InputError where what it needs is not installed."""
    try:
        from experiments.benchmark.peers import vit
    except ImportError as error:
        raise InputError(f"--against torch needs {error.name}; install the test extra") from error
    return vit


def peer_of(name: str, model: VisionTransformer) -> Any:
    """The original of that name with the model's weights. Raises InputError where what it needs is not installed."""
    vit = peers_module()
    if name == PEERS[2]:
        found = vit.HuggingFace(model.config, export(model, layout="hf_vit"))
    else:
        found = vit.original(model.config, export(model, layout="lukemelas"), fused=name == PEERS[1])
    return found.to("cuda") if jax.default_backend() == "gpu" else found


def own(setting: Setting, model: VisionTransformer) -> Callable[[], Any]:
    """What is timed of ours. A step of training takes the model over: give it one that nobody else uses."""
    return own_step(setting, model) if setting.train else own_forward(setting, model)


def own_forward(setting: Setting, model: VisionTransformer) -> Callable[[], jax.Array]:
    """The logits [B, C]."""
    execution, dtype = BlockExecution(scan=setting.scan), jnp.dtype(setting.dtype)
    model, images = jax.tree.map(lambda leaf: leaf.astype(dtype), (model, jnp.asarray(setting.images())))
    forward = jax.jit(lambda m, x: m(x, execution=execution), compiler_options=compiler_options(forward_only=True))
    return lambda: forward(model, images)


def own_step(setting: Setting, model: VisionTransformer) -> Callable[[], jax.Array]:
    """One step of the engine after another on the same batch; answers the sum of all images' losses so far."""
    execution = BlockExecution(scan=setting.scan)
    recipe = Recipe(model=None, epochs=1, **setting.rule)
    tx = make_optimizer(recipe, make_schedule(recipe, 1), model)
    step = make_train_step(
        lambda batch, key: batch,
        lambda learnt, inputs, key: classification_loss(learnt, inputs, None, execution=execution),
        tx,
        StepSettings(dtype=setting.dtype),
    )
    inputs = ClassifierInputs(
        jnp.asarray(setting.images()), jnp.asarray(setting.labels()), jnp.ones(setting.batch_size)
    )
    held = [init_state(model, tx)]

    def run() -> jax.Array:
        held[0], _ = step(held[0], inputs)
        return held[0].totals.loss

    return run


def peer(setting: Setting, name: str, model: VisionTransformer) -> Callable[[], Any]:
    """What is timed of an original: logits [B, C], or after each step the loss before it."""
    vit, found, compiled = peers_module(), peer_of(name, model), name == PEERS[1]
    if setting.train:
        return vit.training(found, setting.images(), setting.labels(), setting.dtype, compiled, **setting.rule)
    return vit.inference(found, setting.images(), setting.dtype, compiled)


def flops_of(setting: Setting) -> float:
    """Floating-point operations of the products that ours needs for a forward pass, thrice as many for a step.

    Fewer than an original's where the last block works out the [class] token alone.
    """
    config = setting.config
    tokens = config.grid[0] * config.grid[1] + config.num_prefix
    inner = config.heads_width or config.width
    up = config.mlp_dim * (2 if config.activation == "swiglu" else 1)
    weights = 4 * config.width * inner + config.width * (up + config.mlp_dim)
    block = tokens * weights + 2 * tokens * tokens * inner
    if config.num_head_tokens is not None:  # the last block works out so many tokens alone, but all keys and values
        keys_and_values = 2 * config.width * inner
        last = tokens * keys_and_values + config.num_head_tokens * (weights - keys_and_values + 2 * tokens * inner)
    else:
        last = block
    ph, pw = config.patch_size
    patches = config.grid[0] * config.grid[1] * ph * pw * config.in_channels * config.width
    each = (config.depth - 1) * block + last + patches + config.pooled_width * config.num_classes
    return 2.0 * setting.batch_size * each * (3 if setting.train else 1)


def matrices(dtype: str) -> Callable[[], jax.Array]:
    """A product of two large matrices: the rate that the machine can be held to."""
    square = jax.random.normal(jax.random.key(0), (PRODUCT, PRODUCT), jnp.dtype(dtype))
    product = jax.jit(lambda a: a @ a)
    return lambda: product(square)


def rate_told(setting: Setting, timed: Timed) -> str:
    """What share of the machine's matrix rate ours reaches, round by round."""
    flops, rate = flops_of(setting), 2 * PRODUCT**3 / timed.seconds[MATRICES]
    share = flops / timed.seconds[OURS] / rate
    return (
        f"here: {flops / 1e9:,.1f} GFLOP, {np.median(share):.2f} ({share.min():.2f} to {share.max():.2f}) of the "
        f"{np.median(rate) / 1e9:,.0f} GFLOP/s of a {PRODUCT}x{PRODUCT} matrix product"
    )


def made(setting: Setting, name: str) -> Callable[[], np.ndarray]:
    """In a new process: a program by name, answering on the host. Ours is set up as the programs here are."""
    if name in (OURS, MATRICES):
        runtime.configure()
    if name == MATRICES:
        product = matrices(setting.dtype)
        return lambda: np.zeros(len(jax.block_until_ready(product())[:0]))  # its numbers stay where they are
    model = made_model(setting.config)
    found = own(setting, model) if name == OURS else peer(setting, name, model)
    return lambda: np.asarray(jax.block_until_ready(found()), np.float32)


def run(args: argparse.Namespace) -> int:
    """Measure, and print the table: times ours."""
    setting = setting_of(args)
    names = [OURS]
    about = machine()
    if args.against:
        peers_module()
        names += peer_names(setting.config, compiled=args.torch_compile)
        about["torch"] = torch_version()
    with ExitStack() as stack:
        programs: dict[str, Callable[[], Any]] = {}
        programs |= {name: stack.enter_context(Child(made, setting, name)) for name in names + [MATRICES]}
        timed = alternating(programs, args.rounds, partial(check_same, setting))
    title = f"{args.model} at {told(setting)}, {args.rounds} rounds"
    models = Timed(timed.first, {name: values for name, values in timed.seconds.items() if name != MATRICES})
    text = "; ".join([title, *about.values()]) + "\n\n" + ratio_table(models, "ours", images=args.batch_size)
    text += "\n\n" + rate_told(setting, timed)
    print(text)
    if args.out:
        stored = about | {
            "arguments": vars(args),
            "flops": flops_of(setting),
            "matrix": timed.seconds[MATRICES].tolist(),
        }
        name = f"{title}\n{about['device']}"
        write_report(args.out, "benchmark_vit", text, stored, models, times="ours", title=name)
    return 0


def check_same(setting: Setting, answers: dict[str, Any]) -> None:
    """Raise InputError when an original's first answer is another: there would be nothing to compare."""
    ours = np.asarray(answers[OURS], np.float32) / (setting.batch_size if setting.train else 1)
    for name in set(answers) & set(PEERS):
        error = np.abs(answers[name] - ours).max() / np.abs(ours).max()
        if not error < (SAME if setting.dtype == "float32" else SAME_HALF):
            what = "another loss" if setting.train else "other logits"
            raise InputError(f"{name} gives {what} than ours, by {error:.1e} of the largest")
