"""The explanation methods by name, all with one signature, for programs that compare them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_jax.config import ViTConfig
from vit_jax.errors import InputError
from vit_jax.explain.attribution import integrated_gradients, rise
from vit_jax.explain.class_maps import attention_gradcam, grad_rollout, relevance
from vit_jax.explain.flow import MAX_TOKENS, attention_flow
from vit_jax.explain.heatmap import to_grid
from vit_jax.explain.lens import read_tokens
from vit_jax.explain.patch_features import patch_similarity, token_norms
from vit_jax.explain.pca import foreground_mask, patch_pca, scale_to_colours
from vit_jax.explain.rollout import NO_READOUT, attention_rollout, readout
from vit_jax.model import VisionTransformer, forward_with_attention, resolve_layers
from vit_jax.prediction import probabilities
from vit_jax.suggest import describe_unknown


@dataclass(frozen=True)
class MethodOptions:
    """Options of the methods.

    layer:     of methods with uses_layer
    head:      of attention; None for the mean over heads
    steps:     of integrated_gradients
    num_masks: of rise
    seed:      of rise's masks
    patches:   of similarity: the patch or region to compare with, as (row, column) each; () for the central patch
    foreground: of pca: leave out the background, by a threshold on the first component; see foreground_mask
    """

    layer: int = -1
    head: int | None = None
    steps: int = 32
    num_masks: int = 1000
    seed: int = 0
    patches: tuple[tuple[int, int], ...] = ()
    foreground: bool = False

    def patches_in(self, grid: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        """Return the patches to compare with in a grid (rows, columns). Raises InputError for one outside it."""
        outside = [patch for patch in self.patches if not all(0 <= i < n for i, n in zip(patch, grid, strict=True))]
        if outside:
            row, column = outside[0]
            raise InputError(f"no patch {row},{column}: the grid has {grid[0]} rows and {grid[1]} columns, from 0,0")
        return self.patches or ((grid[0] // 2, grid[1] // 2),)


@dataclass(frozen=True)
class Method:
    """An explanation method.

    title:             its name in figures
    unit:              of its scores; "" for relative scores, which have none
    run:               (model, images, targets [B, K], options) -> scores [B, K, n], [B, K, h, w] if pixelwise, or
                       [B, K, n, 3] if is_colour
    is_class_specific: whether the map depends on the target; otherwise it is the same for all K
    uses_layer:        whether the map is of the single layer options.layer
    uses_head:         whether the map is of the head options.head
    uses_readout:      whether it starts at the tokens that the classification head reads; see readout
    is_pixelwise:      whether the scores are per pixel instead of per patch
    is_colour:         whether a score is an RGB colour in [0, 1] instead of a number
    uses_patches:      whether the map is of the similarity to options.patches
    is_signed:         whether negative scores speak against the target; colours are then symmetric around 0
    max_tokens:        the most tokens that it takes, None for any number
    """

    title: str
    run: Callable[[VisionTransformer, Any, Any, MethodOptions], Float[Array, "..."]]
    is_class_specific: bool
    uses_layer: bool = False
    uses_head: bool = False
    uses_readout: bool = True
    is_pixelwise: bool = False
    is_colour: bool = False
    uses_patches: bool = False
    is_signed: bool = False
    max_tokens: int | None = None
    unit: str = ""

    @property
    def label(self) -> str:
        """The title with the unit, as the label of its colours."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


def head_attention(model: VisionTransformer, images: Any, layer: int) -> Float[Array, "b h n"]:
    """Return each head's attention to the patches in one layer, from the token that the head reads (see readout)."""
    attention = forward_with_attention(model, images, layers=(layer,)).attention[0]
    rows = jnp.einsum("q,bhqm->bhm", readout(model, attention.shape[-1]), attention)
    return rows[..., model.config.num_prefix :]


def _repeat_over_targets(maps: Float[Array, "b n"], targets: Any) -> Float[Array, "b k n"]:
    return jnp.broadcast_to(maps[:, None], (*targets.shape, maps.shape[-1]))


def _attention(model: VisionTransformer, images: Any, targets: Any, options: MethodOptions) -> Float[Array, "b k n"]:
    rows = head_attention(model, images, options.layer)
    return _repeat_over_targets(rows.mean(axis=1) if options.head is None else rows[:, options.head], targets)


def _rollout(model: VisionTransformer, images: Any, targets: Any, options: MethodOptions) -> Float[Array, "b k n"]:
    attention = forward_with_attention(model, images, head_fusion="mean").attention
    rollout = attention_rollout(attention, query=readout(model, attention.shape[-1]))
    return _repeat_over_targets(rollout[:, model.config.num_prefix :], targets)


def _pca(model: VisionTransformer, images: Any, targets: Any, options: MethodOptions) -> Float[Array, "b k n 3"]:
    """Return the colours of each picture's own components."""
    prefix, grid = model.config.num_prefix, model.config.grid_for(images.shape[1:3])

    def colour(features: Float[Array, "n d"]) -> Float[Array, "m 3"]:
        alone = features[None]
        mask = foreground_mask(alone, num_prefix=prefix, grid=grid) if options.foreground else None
        return scale_to_colours(patch_pca(alone, num_prefix=prefix, mask=mask), mask)[0]

    colours = jax.vmap(colour)(model.features(images))
    return jnp.broadcast_to(colours[:, None], (*targets.shape, *colours.shape[1:]))


def _similarity(model: VisionTransformer, images: Any, targets: Any, options: MethodOptions) -> Float[Array, "b k n"]:
    grid = model.config.grid_for(images.shape[1:3])
    region = [row * grid[1] + column for row, column in options.patches_in(grid)]
    maps = patch_similarity(model.features(images), region, num_prefix=model.config.num_prefix)
    return _repeat_over_targets(maps, targets)


def _tokens_after(model: VisionTransformer, images: Any, layer: int) -> Float[Array, "b n d"]:
    """Return the tokens that leave a block, before the final norm."""
    return model.run(images, return_outputs=True).outputs[layer % len(model.blocks) + 1]


def _token_norm(model: VisionTransformer, images: Any, targets: Any, options: MethodOptions) -> Float[Array, "b k n"]:
    tokens = _tokens_after(model, images, options.layer)
    return _repeat_over_targets(token_norms(tokens, num_prefix=model.config.num_prefix), targets)


def _lens(model: VisionTransformer, images: Any, targets: Any, options: MethodOptions) -> Float[Array, "b k n"]:
    """Return the probability of each target in each patch."""
    patches = _tokens_after(model, images, options.layer)[:, model.config.num_prefix :]
    shares = probabilities(model.config, read_tokens(model, patches))
    return jnp.take_along_axis(shares, targets[:, None, :], axis=2).swapaxes(1, 2)


METHODS: dict[str, Method] = {
    "attention": Method(
        "Attention", _attention, is_class_specific=False, uses_layer=True, uses_head=True, unit="weight"
    ),
    "rollout": Method("Attention rollout", _rollout, is_class_specific=False, unit="share"),
    "flow": Method(
        "Attention flow", lambda m, x, t, o: attention_flow(m, x, t), is_class_specific=False, max_tokens=MAX_TOKENS
    ),
    "grad_rollout": Method("Gradient rollout", lambda m, x, t, o: grad_rollout(m, x, t), is_class_specific=True),
    "relevance": Method("Relevance", lambda m, x, t, o: relevance(m, x, t), is_class_specific=True),
    "gradcam": Method(
        "Attention Grad-CAM",
        lambda m, x, t, o: attention_gradcam(m, x, t, layer=o.layer),
        is_class_specific=True,
        uses_layer=True,
    ),
    "integrated_gradients": Method(
        "Integrated gradients",
        lambda m, x, t, o: integrated_gradients(m, x, t, steps=o.steps).maps,
        is_class_specific=True,
        is_signed=True,
        uses_readout=False,
        unit="change of the logit",
    ),
    "rise": Method(
        "RISE",
        lambda m, x, t, o: rise(m, x, t, key=jax.random.key(o.seed), num_masks=o.num_masks),
        is_class_specific=True,
        is_pixelwise=True,
        uses_readout=False,
        unit="mean probability",
    ),
    "pca": Method("PCA of the features", _pca, is_class_specific=False, uses_readout=False, is_colour=True),
    "similarity": Method(
        "Similarity of the features",
        _similarity,
        is_class_specific=False,
        uses_readout=False,
        uses_patches=True,
        unit="cosine",
    ),
    "token_norm": Method(
        "Token norm", _token_norm, is_class_specific=False, uses_readout=False, uses_layer=True, unit="Euclidean"
    ),
    "logit_lens": Method(
        "Logit lens", _lens, is_class_specific=True, uses_readout=False, uses_layer=True, unit="probability"
    ),
}
NUM_COLOURS = 3  # components of pca: red, green, blue
DEFAULT_METHODS = ("attention", "rollout", "relevance")


def why_unavailable(name: str, config: ViTConfig) -> str:
    """Return why a method of METHODS cannot run on a model of this architecture and image size; "" if it can."""
    method, tokens = METHODS[name], config.num_tokens
    if method.is_class_specific and not config.num_classes:
        return "explains a class, and the model has no classification head"
    if method.uses_readout and config.pools_by_attention:
        return f"{NO_READOUT}; use integrated_gradients or rise"
    if method.max_tokens is not None and tokens > method.max_tokens:
        return f"takes at most {method.max_tokens} tokens, and the model has {tokens}"
    if method.is_colour and min(tokens - config.num_prefix - 1, config.width) < NUM_COLOURS:
        return f"needs {NUM_COLOURS + 1} patches of {NUM_COLOURS} features, and the model has fewer"
    return ""


def check_method_options(model: VisionTransformer, options: MethodOptions) -> MethodOptions:
    """Return the options if they fit the model. Raises InputError for an unknown layer, head or patch."""
    resolve_layers([options.layer], len(model.blocks))
    options.patches_in(model.config.grid)
    heads = model.config.num_heads
    if options.head is not None and not -heads <= options.head < heads:
        raise InputError(f"no head {options.head}: the model has {heads}, counted 0 to {heads - 1} or from the end")
    return options


def compile_method(name: str, options: MethodOptions) -> Callable[..., Float[Array, "b k gh gw ..."]]:
    """Return a compiled function (model, images, targets [B, K]) -> maps [B, K, gh, gw].

    They are [B, K, h, w] of a pixelwise method, and [B, K, gh, gw, 3] of one that gives colours.
    Raises InputError for an unknown method.
    """
    if name not in METHODS:
        raise InputError(describe_unknown("method", name, METHODS))
    method = METHODS[name]

    @jax.jit
    def compute_maps(model: VisionTransformer, images: Any, targets: Any) -> Float[Array, "b k gh gw ..."]:
        scores = method.run(model, images, targets, options)
        if method.is_pixelwise:
            return scores
        grid = model.config.grid_for(images.shape[1:3])
        if method.is_colour:
            return jnp.moveaxis(to_grid(jnp.moveaxis(scores, -1, 0), grid), 0, -1)
        return to_grid(scores, grid)

    return compute_maps
