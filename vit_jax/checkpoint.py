"""A model as a flat {name: array}, and as a folder: model.safetensors + config.json, written atomically."""

import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open

from vit_jax.config import ViTConfig, as_pair
from vit_jax.errors import InputError
from vit_jax.files import atomic_write_folder
from vit_jax.json_files import describe_malformed, read_json_object
from vit_jax.model import VisionTransformer
from vit_jax.position import resize_position_embedding, resize_relative_bias
from vit_jax.safetensors_writer import write_safetensors
from vit_jax.saved_folder import CONFIG, find_saved_folder
from vit_jax.settings import read_settings

FORMAT = "vit_jax/1"
HEAD_PREFIXES = ("head.", "distillation_head.")
WEIGHTS = "model.safetensors"
LOADERS = {FORMAT: "an image model; vit_jax.load reads it", "caption/1": "a captioner; caption.load reads it"}
OTHERS = "; weights_convert.load_pretrained loads files and folders of other libraries, and names"
Model = TypeVar("Model", bound=nnx.Module)
Card = TypeVar("Card")


@dataclass(frozen=True)
class ModelCard:
    """The contents of a saved model's config.json: the architecture, the labels and their origin.

    class_names: one per class, in the head's order; empty if unknown.
    provenance:  free-form, JSON-able: source file, layout, training command, ...
    """

    config: ViTConfig
    class_names: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)


def parameter_name(path: tuple[Any, ...]) -> str:
    """Return a leaf's path in a model as a dotted name: blocks.0.attn.qkv.kernel."""
    parts = [str(getattr(entry, "name", getattr(entry, "idx", getattr(entry, "key", entry)))) for entry in path]
    return ".".join(parts[:-1] if parts[-1] == "value" else parts)


def to_arrays(model: nnx.Module) -> dict[str, Any]:
    """Return every parameter by its dotted name, of a model or of its shapes (jax.eval_shape)."""
    return {parameter_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(model)[0]}


def hash_weights(model: nnx.Module) -> str:
    """Return the SHA-256 of the parameters, names and values, as 64 hexadecimal digits."""
    weights = hashlib.sha256()
    for name, array in to_arrays(model).items():
        weights.update(name.encode())
        weights.update(np.ascontiguousarray(array).tobytes())
    return weights.hexdigest()


@functools.cache
def abstract_model(config: ViTConfig) -> VisionTransformer:
    """Return the model's shapes, with nothing allocated. All blocks have the same shapes, so only one is traced."""
    model = jax.eval_shape(lambda: VisionTransformer(replace(config, depth=1), rngs=nnx.Rngs(0)))
    model.config = config
    model.blocks = nnx.List([model.blocks[0]] * config.depth)
    return model


def from_arrays(config: ViTConfig, arrays: Mapping[str, Any]) -> VisionTransformer:
    """Return a model of this architecture with these arrays as parameters.

    Raises InputError listing every name that is missing, left over, or of another shape.
    """
    return fill_model(abstract_model(config), arrays)


def fill_model(abstract: Model, arrays: Mapping[str, Any]) -> Model:
    """Return a model of these shapes with these arrays as parameters. Raises InputError as from_arrays does."""
    leaves, treedef = jax.tree_util.tree_flatten_with_path(abstract)
    expected = {parameter_name(path): leaf.shape for path, leaf in leaves}
    check_names(expected, {name: np.shape(array) for name, array in arrays.items()})
    return jax.tree.unflatten(treedef, [jnp.asarray(arrays[name]) for name in expected])


def check_names(expected: Mapping[str, tuple[int, ...]], actual: Mapping[str, tuple[int, ...]]) -> None:
    """Raise InputError, listing the differences, unless both have the same names with the same shapes."""
    missing = [name for name in expected if name not in actual]
    left_over = [name for name in actual if name not in expected]
    misshapen = [
        f"{name} is {tuple(actual[name])}, not {tuple(shape)}"
        for name, shape in expected.items()
        if name in actual and tuple(actual[name]) != tuple(shape)
    ]
    problems = [
        f"{len(names)} {kind}: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}"
        for kind, names in (("missing", missing), ("left over", left_over), ("of another shape", misshapen))
        if names
    ]
    if problems:
        raise InputError("the arrays do not fit the architecture: " + "; ".join(problems))


def with_image_size(model: VisionTransformer, image_size: Any) -> VisionTransformer:
    """Return the model at another image size, its position tables resized in the checkpoint's own convention."""
    config, old = model.config.resized(image_size), model.config.grid

    def resize(name: str, array: Any) -> Any:
        if name == "position_embedding":
            prefix, method = config.prefix_positions, config.posemb_resize
            return resize_position_embedding(array, old, config.grid, num_prefix=prefix, method=method)
        if name.endswith("relative_bias"):
            return resize_relative_bias(array, old, config.grid, method=config.posemb_resize)
        return array

    return from_arrays(config, {name: resize(name, array) for name, array in to_arrays(model).items()})


def with_in_channels(model: VisionTransformer, in_channels: int) -> VisionTransformer:
    """Return an RGB model for images of another number of channels, its patch kernel adapted as timm does.

    1: the sum of the R, G and B kernels, which gives a grey image the tokens of its RGB copy, if all channels have one
    mean and std. More: the kernels R, G, B, R, ... times 3 / in_channels. Every channel gets the average of the means
    and of the stds. The same model if the count agrees. Source: adapt_input_conv of timm/models/_manipulate.py.
    Raises InputError for a model of another number of channels than 3, and for one with norms of the patches' pixels.
    """
    config = model.config
    if in_channels == config.in_channels:
        return model
    if config.in_channels != 3 or config.patch_norms:
        kind = "norms its patches' pixels" if config.patch_norms else f"takes {config.in_channels} channels"
        raise InputError(f"the model {kind}, so it cannot be adapted to {in_channels}; only RGB kernels can")
    preprocess = config.preprocess.average_channels(in_channels)
    adapted = replace(config, in_channels=in_channels, preprocess=preprocess)
    arrays = to_arrays(model)
    kernel = arrays["patch_embed.kernel"]
    exact = kernel.astype(jnp.promote_types(kernel.dtype, jnp.float32))
    if in_channels == 1:
        exact = exact.sum(axis=2, keepdims=True)
    else:
        exact = exact[:, :, jnp.arange(in_channels) % 3] * (3 / in_channels)
    return from_arrays(adapted, arrays | {"patch_embed.kernel": exact.astype(kernel.dtype)})


def with_num_classes(model: VisionTransformer, num_classes: int) -> VisionTransformer:
    """Return the model with a new head of zeros, as the reference starts one; the same model if the count agrees."""
    return model if num_classes == model.config.num_classes else with_new_head(model, num_classes)


def with_new_head(model: VisionTransformer, num_classes: int) -> VisionTransformer:
    """Return the model with a new head of zeros, also if it has one for as many classes."""
    config = replace(model.config, num_classes=num_classes, head_bias=True)
    arrays = {name: array for name, array in to_arrays(model).items() if not name.startswith(HEAD_PREFIXES)}
    dtype = arrays["patch_embed.kernel"].dtype
    new = {name: leaf for name, leaf in to_arrays(abstract_model(config)).items() if name.startswith(HEAD_PREFIXES)}
    return from_arrays(config, arrays | {name: jnp.zeros(leaf.shape, dtype) for name, leaf in new.items()})


def save(
    model: VisionTransformer,
    folder: str | os.PathLike,
    *,
    class_names: tuple[str, ...] | list[str] = (),
    provenance: dict[str, Any] | None = None,
) -> None:
    """Write a model to a folder as model.safetensors and config.json, atomically.

    Replaces a saved model. Raises InputError if class_names does not have one name per class or if the folder holds
    anything else, OSError if it cannot be written.
    """
    if class_names and len(class_names) != model.config.num_classes:
        raise InputError(f"{len(class_names)} class names for {model.config.num_classes} classes")
    card = {
        "format": FORMAT,
        "config": asdict(model.config),
        "class_names": list(class_names),
        "provenance": provenance or {},
    }
    write_model(folder, card, model)


def write_model(
    folder: str | os.PathLike,
    card: dict[str, Any],
    model: nnx.Module,
    *,
    extra_files: Mapping[str, Callable[[Path], Any]] | None = None,
) -> None:
    """Write the weights of any model and its card, as config.json, to a folder, atomically. Raises as save does.

    extra_files: by name, a function that writes the file to a path.
    """
    target = Path(folder)
    if target.exists() and not (target.is_dir() and ((target / CONFIG).is_file() or not any(target.iterdir()))):
        raise InputError(f"{folder}: exists and is not a saved model; choose another folder")
    text = json.dumps(card, indent=1) + "\n"
    with atomic_write_folder(folder) as temporary:
        write_safetensors(temporary / WEIGHTS, to_arrays(model))
        (temporary / CONFIG).write_text(text)
        for name, write in (extra_files or {}).items():
            write(temporary / name)


def load_card(folder: str | os.PathLike) -> ModelCard:
    """Read the config.json of a saved model. Raises InputError naming the file if it is missing or invalid."""
    return read_card(folder, FORMAT, _parse_card)


def _parse_card(stored: dict[str, Any]) -> ModelCard:
    config = read_settings(ViTConfig, stored["config"])
    names = stored.get("class_names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"class_names is a list of texts, not {names!r:.60}")
    if names and len(names) != config.num_classes:
        raise InputError(f"{len(names)} class_names for {config.num_classes} classes")
    return ModelCard(config, tuple(names), stored.get("provenance", {}))


def read_card(folder: str | os.PathLike, file_format: str, parse: Callable[[dict[str, Any]], Card]) -> Card:
    """Return parse(contents) of a saved model's config.json of this "format". Raises as load_card does."""
    path = find_saved_folder(folder) / CONFIG
    if not path.is_file():
        raise InputError(f"{folder}: not a saved model (no {CONFIG}); give a folder written by vit_jax.save{OTHERS}")
    stored = read_json_object(path)
    if stored.get("format") != file_format:
        raise InputError(f"{path}: {_describe_format(stored, file_format)}")
    try:
        return parse(stored)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a config of this library: {describe_malformed(error)}") from error


def _describe_format(stored: dict[str, Any], file_format: str) -> str:
    """Return why a config.json is not one of `file_format`."""
    if "format" not in stored:
        return f"not a config of this library: its format is not there, not {file_format!r}{OTHERS}"
    other = LOADERS.get(str(stored["format"]), "not a config of this library")
    return f"{other}: its format is {stored['format']!r}, not {file_format!r}"


def read_weights(folder: str | os.PathLike, abstract: Model) -> Model:
    """Return the model of these shapes with a saved model's weights. Raises InputError as load does."""
    path = find_saved_folder(folder) / WEIGHTS
    try:
        with safe_open(path, framework="numpy") as file:
            return fill_model(abstract, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except FileNotFoundError as error:
        raise InputError(f"{path}: missing; the folder is incomplete") from error
    except (SafetensorError, ValueError) as error:
        raise InputError(f"{path}: {error}") from error


def load(
    folder: str | os.PathLike, *, image_size: Any = None, num_classes: int | None = None, in_channels: int | None = None
) -> VisionTransformer:
    """Load a model that `save` wrote, or the best one of a run.

    image_size:  int or (height, width); the position table is resized in the checkpoint's own convention.
    num_classes: a different count replaces the head by zeros, for fine-tuning.
    in_channels: a different count adapts an RGB model; see with_in_channels.

    Raises InputError, naming the file, if the folder is not a saved model, is damaged or does not match its config.
    """
    config = load_card(folder).config
    model = read_weights(folder, abstract_model(config))
    if num_classes is not None:
        model = with_num_classes(model, num_classes)
    if in_channels is not None:
        model = with_in_channels(model, in_channels)
    if image_size is not None and as_pair(image_size) != config.image_size:
        model = with_image_size(model, image_size)
    return model
