"""The explanation maps of a page: methods and classes, as one set of arrays for each picture."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from vit_jax.classes import name_class
from vit_jax.config import ViTConfig
from vit_jax.errors import InputError
from vit_jax.explain.heatmap import uninformative_reason
from vit_jax.explain.methods import (
    DEFAULT_METHODS,
    METHODS,
    MethodOptions,
    check_method_options,
    compile_method,
    why_unavailable,
)
from vit_jax.model import VisionTransformer
from vit_jax.suggest import describe_unknown

LEVELS = 255  # of a pixelwise map, whose values are stored in 8 bits


class MapMaker(NamedTuple):
    """A model's compiled methods, to compute the maps of many pictures."""

    model: VisionTransformer
    class_names: tuple[str, ...]
    methods: dict[str, Callable[..., Any]]


class PictureMaps(NamedTuple):
    """The maps of a picture. described: of each, as static/types.js has it. arrays: "map0", "map1", ..., in order."""

    described: list[dict[str, Any]]
    arrays: dict[str, np.ndarray]


def make_maps(
    model: VisionTransformer, class_names: Sequence[str], methods: Sequence[str] | None, options: MethodOptions
) -> MapMaker:
    """Compile methods for a model: names of METHODS; None for those of DEFAULT_METHODS that the model can run.

    Raises InputError for an unknown method, for one that the model cannot run, and as check_method_options does.
    """
    config = model.config
    if methods is None:
        names = [name for name in DEFAULT_METHODS if not why_unavailable(name, config)]
    else:
        names = list(dict.fromkeys(methods))
    for name in names:
        _check_method(name, config)
    check_method_options(model, options)
    return MapMaker(model, tuple(class_names), {name: compile_method(name, options) for name in names})


def _check_method(name: str, config: ViTConfig) -> None:
    if name not in METHODS:
        raise InputError(describe_unknown("method", name, METHODS))
    if reason := why_unavailable(name, config):
        raise InputError(f"{name}: {reason}")


def compute_maps(
    maker: MapMaker, pixels: UInt8[np.ndarray, "h w c"], targets: Sequence[int], values: Float[np.ndarray, " classes"]
) -> PictureMaps:
    """Compute every method's map of a picture, one for each target if the method is of a class.

    values: the probabilities of the classes.
    """
    model = maker.model
    images = model.config.preprocess.normalize(pixels[None].astype(np.float32) / 255)
    classes = jnp.asarray([targets or [0]], jnp.int32)
    maps = PictureMaps([], {})
    for name, compute in maker.methods.items():
        heats = np.asarray(compute(model, images, classes)[0], np.float32)
        for target, heat in zip(targets if METHODS[name].is_class_specific else [-1], heats, strict=False):
            described, array = _encode_map(name, heat)
            has_class = target >= 0
            described["target"] = name_class(target, maker.class_names) if has_class else ""
            described["probability"] = float(values[target]) if has_class else -1.0
            maps.arrays[f"map{len(maps.described)}"] = array
            maps.described.append(described)
    return maps


def _encode_map(name: str, heat: Float[np.ndarray, "gh gw ..."]) -> tuple[dict[str, Any], np.ndarray]:
    """Return what the page says of a map, and its values: exact for patches, in 8 bits for pixels and colours."""
    method = METHODS[name]
    described = {
        "method": method.title,
        "unit": method.unit or "relative",
        "signed": method.is_signed,
        "colour": method.is_colour,
        "low": 0.0,
        "high": 1.0,
        "note": "" if method.is_colour else uninformative_reason(heat),
    }
    if method.is_colour:
        return described, np.round(LEVELS * heat).astype(np.uint8)
    if not method.is_pixelwise:
        return described, heat
    finite = np.nan_to_num(heat)
    low, high = float(finite.min()), float(finite.max())
    levels = np.round(LEVELS * (finite - low) / max(high - low, np.finfo(np.float32).tiny))
    return described | {"low": low, "high": high}, levels.astype(np.uint8)
