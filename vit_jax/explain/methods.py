"""The explanation methods by name, all with one signature, for the programs that compare them."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jaxtyping import Array, Float

from vit_jax.errors import InputError
from vit_jax.explain.attribution import integrated_gradients, rise
from vit_jax.explain.class_maps import attention_gradcam, grad_rollout, relevance
from vit_jax.explain.flow import attention_flow
from vit_jax.explain.heatmap import to_grid
from vit_jax.explain.rollout import attention_rollout, readout
from vit_jax.model import VisionTransformer, forward_with_attention, resolve_layers


@dataclass(frozen=True)
class MethodOptions:
    """What the methods can be told. layer and head: of the maps that are one layer's, None for the mean over heads."""

    layer: int = -1
    head: int | None = None
    steps: int = 32
    num_masks: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class Method:
    """run(model, images, targets [B, K], options) -> scores [B, K, n] or, by pixel, [B, K, h, w].

    of_class: whether the target enters; without, all K are the same. one_layer: whether options.layer enters.
    """

    run: Callable[[VisionTransformer, Any, Any, MethodOptions], Float[Array, "..."]]
    of_class: bool
    one_layer: bool = False
    by_pixel: bool = False


def head_attention(model: VisionTransformer, images: Any, layer: int) -> Float[Array, "b h n"]:
    """Each head's attention from what the head reads ([class], or the patches' mean) to the patches, in one layer."""
    attention = forward_with_attention(model, images, layers=(layer,)).attention[0]
    rows = jax.numpy.einsum("q,bhqm->bhm", readout(model, attention.shape[-1]), attention)
    return rows[..., model.config.num_prefix :]


def _repeated(maps: Float[Array, "b n"], targets: Any) -> Float[Array, "b k n"]:
    return jax.numpy.broadcast_to(maps[:, None], (*targets.shape, maps.shape[-1]))


def _attention(model: VisionTransformer, images: Any, targets: Any, options: MethodOptions) -> Float[Array, "b k n"]:
    rows = head_attention(model, images, options.layer)
    return _repeated(rows.mean(axis=1) if options.head is None else rows[:, options.head], targets)


def _rollout(model: VisionTransformer, images: Any, targets: Any, options: MethodOptions) -> Float[Array, "b k n"]:
    attention = forward_with_attention(model, images, head_fusion="mean").attention
    rolled = attention_rollout(attention, query=readout(model, attention.shape[-1]))
    return _repeated(rolled[:, model.config.num_prefix :], targets)


METHODS: dict[str, Method] = {
    "attention": Method(_attention, of_class=False, one_layer=True),
    "rollout": Method(_rollout, of_class=False),
    "flow": Method(lambda m, x, t, o: attention_flow(m, x, t), of_class=False),
    "grad_rollout": Method(lambda m, x, t, o: grad_rollout(m, x, t), of_class=True),
    "relevance": Method(lambda m, x, t, o: relevance(m, x, t), of_class=True),
    "gradcam": Method(lambda m, x, t, o: attention_gradcam(m, x, t, layer=o.layer), of_class=True, one_layer=True),
    "integrated_gradients": Method(lambda m, x, t, o: integrated_gradients(m, x, t, steps=o.steps).maps, of_class=True),
    "rise": Method(
        lambda m, x, t, o: rise(m, x, t, key=jax.random.key(o.seed), num_masks=o.num_masks),
        of_class=True,
        by_pixel=True,
    ),
}
DEFAULT_METHODS = ("attention", "rollout", "relevance")


def parse_methods(given: list[str] | None) -> tuple[str, ...]:
    """Methods from --method flags, each a name, several with commas, or "all". Raises InputError for another one."""
    names = tuple(name for text in given or DEFAULT_METHODS for name in text.split(",") if name)
    if "all" in names:
        return tuple(METHODS)
    unknown = next((name for name in names if name not in METHODS), None)
    if unknown is not None or not names:
        raise InputError(f"unknown method {unknown or ''!r}: one of {', '.join(METHODS)}, or all")
    return tuple(dict.fromkeys(names))


def parse_method_options(args: argparse.Namespace) -> MethodOptions:
    """Options from the flags. Raises InputError for a layer or head that is no number."""

    def number(name: str) -> int:
        try:
            return int(getattr(args, name))
        except ValueError:
            raise InputError(f"--{name} {getattr(args, name)}: not a number") from None

    head = None if args.head is None else number("head")
    return MethodOptions(number("layer"), head, steps=args.steps, num_masks=args.rise_masks, seed=args.seed)


def check_method_options(model: VisionTransformer, options: MethodOptions) -> MethodOptions:
    """Options that fit the model. Raises InputError for a layer or head that there is not."""
    resolve_layers([options.layer], len(model.blocks))
    heads = model.config.num_heads
    if options.head is not None and not -heads <= options.head < heads:
        raise InputError(f"no head {options.head}: the model has {heads}, counted 0 to {heads - 1} or from the end")
    return options


def compile_method(name: str, options: MethodOptions) -> Callable[..., Float[Array, "b k gh gw"]]:
    """A method as one compiled function (model, images, targets [B, K]) -> maps [B, K, gh, gw], or [B, K, h, w]."""
    method = METHODS[name]

    @jax.jit
    def maps(model: VisionTransformer, images: Any, targets: Any) -> Float[Array, "b k gh gw"]:
        scores = method.run(model, images, targets, options)
        return scores if method.by_pixel else to_grid(scores, model.config.grid_for(images.shape[1:3]))

    return maps
