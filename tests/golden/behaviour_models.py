"""Behaviour of classifiers: conversion, forward pass, attention, maps, gradients, other sizes and heads."""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from safetensors.numpy import load_file, save_file

import vit_jax
import weights_convert
from tests.golden.behaviour_record import Results
from tests.reference import golden_array

SHAPES = json.loads(Path(__file__).with_name("behaviour_shapes.json").read_text())


def parameter_name(path: tuple[Any, ...]) -> str:
    """Return the dotted name of a leaf, as saved models spell it: blocks.0.attn.qkv.kernel."""
    parts = [str(getattr(entry, "name", getattr(entry, "idx", getattr(entry, "key", entry)))) for entry in path]
    return ".".join(parts[:-1] if parts[-1] == "value" else parts)


def by_name(prefix: str, tree: Any) -> Results:
    """Return every leaf of a model under its dotted name."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {f"{prefix}/{parameter_name(path)}": np.asarray(leaf) for path, leaf in leaves}


def flat_config(prefix: str, config: Mapping[str, Any]) -> Results:
    """Return every field of a config as text, nested ones under a dotted name."""
    flat: Results = {}
    for name, value in config.items():
        flat |= flat_config(f"{prefix}{name}.", value) if isinstance(value, dict) else {prefix + name: repr(value)}
    return flat


def images(seed: int, *shape: int) -> np.ndarray:
    """Return uniform values in [-1, 1]."""
    return np.random.RandomState(seed).uniform(-1, 1, shape)


def fill_model(model: Any, package: Any) -> Any:
    """Return the model with every parameter set by the golden rule, through the package's save and load."""
    with tempfile.TemporaryDirectory() as folder:
        package.save(model, Path(folder, "model"))
        file = Path(folder, "model", "model.safetensors")
        arrays = {name: golden_array(_torch_like(name), array.shape) for name, array in load_file(file).items()}
        save_file(arrays, file)
        return package.load(Path(folder, "model"))


def _torch_like(name: str) -> str:
    """Spell norm scales and variances as the golden rule expects them."""
    return name.replace(".scale", ".weight").replace(".var", ".running_var")


def write_checkpoint(folder: Path, family: Mapping[str, Any]) -> Path:
    """Write a family's rule-filled checkpoint and its sidecar config; return the checkpoint's path."""
    arrays = {name: golden_array(name, tuple(shape)) for name, shape in family["shapes"].items()}
    path = folder / family["file"]
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    for name, content in family["sidecar"].items():
        (folder / name).write_text(json.dumps(content))
    return path


def attempt(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the compiled function's result, or "refused" where it raises InputError."""
    try:
        return jax.tree.map(np.asarray, jax.jit(function)(*arguments))
    except vit_jax.InputError:
        return "refused"


@cache
def converted_model(name: str) -> tuple[Any, Results]:
    """Return a family's model in float64, with the arrays that conversion and export produce."""
    family = SHAPES[name]
    arguments = {key: tuple(v) if isinstance(v, list) else v for key, v in family["arguments"].items()}
    with tempfile.TemporaryDirectory() as folder:
        model = weights_convert.convert(write_checkpoint(Path(folder), family), **arguments)
    results: Results = flat_config("config/", asdict(model.config)) | by_name("converted", model)
    # The record is of a time when the preprocessing had a size of its own.
    results |= flat_config("config/preprocess.", {"size": model.config.image_preprocess.size})
    exported = weights_convert.export(model, layout=family["layout"])
    return model, results | {f"exported/{key}": array for key, array in exported.items()}


def record_family(name: str) -> Results:
    """Compute a classifier family: conversion, forward pass, attention, explanation maps and gradients."""
    model, results = converted_model(name)
    x, labels = images(5, 2, *model.config.image_size, 3), jnp.array([1, 3])
    many = jnp.array([[0, 3, 5], [2, 1, 6]])
    output = attempt(vit_jax.forward_with_attention, model, x)
    results = results | dict(output._asdict())
    results["call"] = attempt(lambda m, x: m(x), model, x)
    results["call_other_size"] = attempt(lambda m, x: m(x), model, images(6, 1, 48, 40, 3))
    results["call_dropout"] = attempt(lambda m, x: m(x, key=jax.random.key(7)), model, x)
    for fusion in ("mean", "max", "min"):
        options: dict[str, Any] = dict(head_fusion=fusion, layers=(-1, 0) if fusion == "max" else None)
        fused = attempt(partial(vit_jax.forward_with_attention, **options), model, x)
        results[f"attention_{fusion}"] = fused.attention
    maps = explanation_maps(model, x, output.attention, labels, many, every_shape=name in ("lukemelas", "timm_gap"))
    results |= {f"maps/{key}": value for key, value in maps.items()}

    def loss(model: Any) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(model(x), labels).mean()

    results["loss"], gradient = jax.tree.map(np.asarray, jax.jit(jax.value_and_grad(loss))(model))
    return results | by_name("gradient", gradient)


def explanation_maps(
    model: Any, x: np.ndarray, attention: np.ndarray, labels: jax.Array, many: jax.Array, *, every_shape: bool
) -> Results:
    """Compute every explanation map of a classifier; a map that the family does not support is "refused"."""
    prefix, tokens, v = model.config.num_prefix, attention.shape[-1], vit_jax
    rollout = partial(v.attention_rollout, class_token=model.config.class_token)
    maps: dict[str, tuple[Any, ...]] = {
        "readout": (lambda m: v.readout(m, tokens), model),
        "rollout": (rollout, attention),
        "rollout_readout": (lambda m, a: rollout(a, query=v.readout(m, tokens)), model, attention),
        "rollout_discard": (partial(rollout, head_fusion="max", discard_ratio=0.3, start_layer=-1, query=0), attention),
        "rollout_images": (partial(v.rollout_from_images, discard_ratio=0.2), model, x),
        "cls_attention": (partial(v.cls_attention, num_prefix=prefix), attention),
        "flow": (v.attention_flow, model, x[:1]),
        "position_similarity": (v.position_similarity, model),
    }
    per_class = {
        "grad_rollout": v.grad_rollout,
        "relevance": v.relevance,
        "relevance_start": partial(v.relevance, start_layer=1),
        "gradcam": v.attention_gradcam,
        "integrated_gradients": partial(v.integrated_gradients, steps=4),
        "rise": partial(v.rise, num_masks=10, batch_size=8),
    }
    for name, function in per_class.items():
        maps[f"{name}_per_class"] = (function, model, x, many)
        if name == "relevance" or every_shape:  # the other functions share the handling of targets [B]
            maps[name] = (function, model, x, labels)
    results: Results = {}
    for name, call in maps.items():
        value = attempt(*call)
        parts = value._asdict() if hasattr(value, "_asdict") else {"": value}
        results |= {f"{name}.{key}" if key else name: part for key, part in parts.items()}
    return results


def record_surgery() -> Results:
    """Compute other image sizes and heads, and the scores of a map."""
    model, _ = converted_model("timm_deit3")
    x, labels = images(5, 2, 32, 32, 3), jnp.array([1, 3])
    results = by_name("larger/parameters", vit_jax.with_image_size(model, (48, 40)))
    results |= by_name("head/parameters", vit_jax.with_num_classes(model, 3))
    maps = vit_jax.relevance(model, x, labels)
    heat = vit_jax.upsample(vit_jax.to_grid(maps, (4, 4)), (32, 32))
    results |= {"heat": heat, "overlay": vit_jax.overlay(np.clip((x + 1) / 2, 0, 1), heat)}
    mask = np.zeros((2, 32, 32), bool)
    mask[:, 8:20, 10:28] = True
    scores = {
        "insertion_deletion": vit_jax.insertion_deletion(model, x, maps, labels, steps=4),
        "perturbation_auc": vit_jax.perturbation_auc(model, x, maps, labels, steps=4),
        "pointing_game": vit_jax.pointing_game(heat, mask),
        "segmentation_scores": vit_jax.segmentation_scores(heat, mask),
    }
    for name, value in scores.items():
        results |= {f"{name}/{i}": part for i, part in enumerate(jax.tree.leaves(value))}
    return results
