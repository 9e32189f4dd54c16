"""LoRA (https://arxiv.org/abs/2106.09685): a trained model stays as it is, and small additions to its kernels learn.

kernel + alpha / rank * down @ up, with `up` zero at first: training starts at the model's own answer.
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
    """down: [in, rank], drawn; up: [rank, out], zero at first."""

    down: Float[Array, "i r"]
    up: Float[Array, "r o"]


class LoRAModel(NamedTuple):
    """A pytree: a model, of which the head alone learns, and the additions to its kernels by their dotted names."""

    base: Any
    adapters: dict[str, LoRADelta]


def add_lora(model: VisionTransformer, rank: int, key: Key, targets: Sequence[str] = ATTENTION) -> LoRAModel:
    """The model with additions of that rank, at least 1, to the target kernels of every block.

    targets: some of ATTENTION and MLP. An attention pool's kernels are not a block's.
    down: uniform in +-1 / sqrt(in), as the authors' code draws it (Kaiming-uniform with a = sqrt(5)).
    Raises InputError for no target, for another one, and for a rank below 1.
    """
    unknown = sorted(set(targets) - {*ATTENTION, *MLP})
    if rank < 1 or not targets or unknown:
        raise InputError(f"LoRA has a rank of at least 1 and targets among {', '.join((*ATTENTION, *MLP))}")
    arrays = to_arrays(model)
    kernels = {name: arrays[name] for name in arrays if name.startswith("blocks.") and name.endswith(tuple(targets))}
    adapters = {}
    for (name, kernel), drawn in zip(kernels.items(), jax.random.split(key, len(kernels)), strict=True):
        reach = kernel.shape[0] ** -0.5
        down = jax.random.uniform(drawn, (kernel.shape[0], rank), kernel.dtype, -reach, reach)
        adapters[name] = LoRADelta(down, jnp.zeros((rank, kernel.shape[1]), kernel.dtype))
    return LoRAModel(model, adapters)


def merge_lora(learnt: LoRAModel, alpha: float) -> VisionTransformer:
    """An ordinary model: each kernel with its addition. No gradient reaches what is frozen."""

    def leaf(path: tuple[Any, ...], value: jax.Array) -> jax.Array:
        name = parameter_name(path)
        if name.startswith(("head.", "distillation_head.")):
            return value
        value = jax.lax.stop_gradient(value)
        addition = learnt.adapters.get(name)
        if addition is None:
            return value
        return value + alpha / addition.down.shape[1] * (addition.down @ addition.up)

    return jax.tree_util.tree_map_with_path(leaf, learnt.base)
