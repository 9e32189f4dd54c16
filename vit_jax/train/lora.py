"""LoRA (https://arxiv.org/abs/2106.09685): a model is frozen, and low-rank deltas of its kernels are trained.

kernel + alpha / rank * down @ up, where `up` is initially zero: training starts at the output of the model itself.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_jax.attention import Key
from vit_jax.checkpoint import parameter_name, to_arrays
from vit_jax.errors import InputError
from vit_jax.model import VisionTransformer

ATTENTION = ("attn.qkv.kernel", "attn.out.kernel")
MLP = ("mlp.up.kernel", "mlp.down.kernel")


class LoRADelta(NamedTuple):
    """The low-rank delta of a kernel. down: random at first; up: zero at first."""

    down: Float[Array, "i r"]
    up: Float[Array, "r o"]


class LoRAModel(NamedTuple):
    """A model, of which only the head is trained, and the deltas of its kernels by their dotted names. A pytree."""

    base: Any
    adapters: dict[str, LoRADelta]


def add_lora(model: VisionTransformer, rank: int, key: Key, targets: Sequence[str] = ATTENTION) -> LoRAModel:
    """Return the model with deltas of rank `rank` for the target kernels of every block.

    targets: some of ATTENTION and MLP; the kernels of an attention pool are not adapted.
    `down` is uniform in +-1 / sqrt(in), as in the authors' code (Kaiming-uniform with a = sqrt(5)).
    Raises InputError for no targets, for unknown ones, and for a rank below 1.
    """
    unknown = sorted(set(targets) - {*ATTENTION, *MLP})
    if rank < 1 or not targets or unknown:
        raise InputError(f"LoRA has a rank of at least 1 and targets among {', '.join((*ATTENTION, *MLP))}")
    arrays = to_arrays(model)
    kernels = {name: arrays[name] for name in arrays if name.startswith("blocks.") and name.endswith(tuple(targets))}
    adapters = {}
    for (name, kernel), kernel_key in zip(kernels.items(), jax.random.split(key, len(kernels)), strict=True):
        bound = kernel.shape[0] ** -0.5
        down = jax.random.uniform(kernel_key, (kernel.shape[0], rank), kernel.dtype, -bound, bound)
        adapters[name] = LoRADelta(down, jnp.zeros((rank, kernel.shape[1]), kernel.dtype))
    return LoRAModel(model, adapters)


def merge_lora(lora: LoRAModel, alpha: float) -> VisionTransformer:
    """Return an ordinary model, each kernel plus its delta. No gradient reaches frozen parameters."""

    def leaf(path: tuple[Any, ...], value: jax.Array) -> jax.Array:
        name = parameter_name(path)
        if name.startswith(("head.", "distillation_head.")):
            return value
        value = jax.lax.stop_gradient(value)
        delta = lora.adapters.get(name)
        if delta is None:
            return value
        return value + alpha / delta.down.shape[1] * (delta.down @ delta.up)

    return jax.tree_util.tree_map_with_path(leaf, lora.base)
