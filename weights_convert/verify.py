"""Parity check: compare a converted model with the PyTorch original, layer by layer. It and originals.py need torch.

Both models load the same file and run the same random image. Compared are the tokens after the embedding and after
every block, and the output; or the tokens after the final norm, if the original pools nothing.
"""

import importlib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import InputError, VisionTransformer, ViTConfig
from vit_jax.checkpoint import from_arrays, to_arrays
from weights_convert._convert import convert_with_plan, open_arrays
from weights_convert.formats import find_snapshot
from weights_convert.layouts import Layout
from weights_convert.originals import find_original
from weights_convert.selection import Selection, select_arrays

BOUNDS = {"float64": 1e-9, "float32": 2e-5}  # relative errors; float32's is explained in BUILD.md
OUTPUT_FIELDS = ("logits", "image_embeds", "pooler_output")  # of transformers' outputs, in order of preference


class LayerError(NamedTuple):
    """The error after one layer. relative_error: max_abs_error / largest absolute value of the original."""

    layer: str
    max_abs_error: float
    relative_error: float


class ParityReport(NamedTuple):
    """The result of verify_checkpoint.

    errors:     in the order of computation: "embedding", "block 0", ..., "output" or "features".
    num_arrays: number of arrays that the conversion used.
    unused:     the file's arrays that it did not use.
    missing:    the original's parameters that the file does not have.
    """

    errors: list[LayerError]
    num_arrays: int
    unused: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def max_relative_error(self) -> float:
        """The largest relative error; infinite if any is not finite."""
        return max(e.relative_error if np.isfinite(e.relative_error) else np.inf for e in self.errors)


def verify_checkpoint(
    path: str | os.PathLike,
    *,
    against: str,
    dtype: str = "float64",
    layout: str | Layout = "auto",
    num_heads: int | None = None,
    settings: Mapping[str, Any] | None = None,
    preprocess: Mapping[str, Any] | None = None,
    weights_key: str | None = None,
    seed: int = 0,
) -> ParityReport:
    """Convert a checkpoint and compare it with the original on a random image in [-1, 1].

    against: one of ORIGINALS, or FILE.py:FUNCTION, a function without arguments that returns your own torch model.
    layout, num_heads, settings, preprocess, weights_key: as convert() takes them.

    Raises InputError if torch or the original library is not installed, or if it cannot load the file.
    """
    module, build = find_original(against)
    torch = _import("torch")
    _import(module)
    with jax.enable_x64(dtype == "float64"):
        model, plan = convert_with_plan(
            path,
            layout=layout,
            num_heads=num_heads,
            settings=settings or {},
            preprocess=preprocess or {},
            weights_key=weights_key,
        )
        config = plan.config
        arrays = {name: jnp.asarray(array, dtype) for name, array in to_arrays(model).items()}
        image_shape = (1, *config.image_size, config.in_channels)
        image = np.random.default_rng(seed).uniform(-1, 1, image_shape).astype(dtype)
        ours = jax.tree.map(np.asarray, jax.jit(run_layers)(from_arrays(config, arrays), image))
    path = find_snapshot(Path(path))
    original, missing = build(plan, read_state(path, plan.selection), path)
    theirs = _run_original_layers(original.to(getattr(torch, dtype)).eval(), config, image)
    layers = ["embedding", *(f"block {i}" for i in range(config.depth))]
    errors = [_compare(*triple) for triple in zip(layers, ours.tokens, theirs.tokens, strict=True)]
    has_pooler = theirs.output is not None and not any("pooler" in name for name in missing)
    errors.append(
        _compare("output", ours.output, theirs.output)
        if has_pooler
        else _compare("features", ours.features, theirs.features)
    )
    return ParityReport(errors, sum(len(rule.sources) for rule in plan.rules), plan.unused, missing)


def read_state(path: str | os.PathLike, selection: Selection) -> dict[str, np.ndarray]:
    """Return the model's arrays in a file under their own names, in float32 or float64."""
    return {name: _widen(array.read()) for name, array in select_arrays(selection, open_arrays(path).arrays).items()}


class LayerOutputs(NamedTuple):
    """What a model computes on its way.

    tokens:   [B, N, D] after the embedding and after each block.
    features: [B, N, D], the tokens after the final norm.
    output:   [B, C], logits or pooled features; None of an original that pools nothing.
    """

    tokens: list[Any]
    features: Any
    output: Any


def run_layers(model: VisionTransformer, images: jax.Array) -> LayerOutputs:
    """Return what a model of this library computes."""
    last, _, outputs = model.run(images, return_outputs=True)
    features = model.apply_final_norm(last)
    return LayerOutputs(list(outputs), features, model.classify(features))


class TextEmbeddings(NamedTuple):
    """What a dual encoder needs to compare a picture with texts: scale * cosine + bias.

    embeddings: [T, D] of unit length.
    """

    embeddings: np.ndarray
    scale: float
    bias: float


def encode_texts(folder: Path, texts: Sequence[str]) -> TextEmbeddings:
    """Return the embeddings of texts by the CLIP or SigLIP in a Hugging Face folder, computed by transformers.

    Raises InputError if torch or transformers is not installed, or if it cannot load the folder.
    """
    torch, package = _import("torch"), _import("transformers")
    try:
        model = package.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        tokenizer = package.AutoTokenizer.from_pretrained(folder)
        tokens = tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt")
    except (ImportError, OSError, ValueError) as error:
        raise InputError(
            f"{folder}: transformers cannot load its text tower ({' '.join(str(error).split())})"
        ) from error
    vision = model.config.vision_config
    blank = torch.zeros((1, vision.num_channels, vision.image_size, vision.image_size))
    with torch.no_grad():  # the whole model, since only its output has one form in all versions
        embeddings = model(**tokens, pixel_values=blank).text_embeds.double().numpy()
    bias = getattr(model, "logit_bias", None)
    return TextEmbeddings(embeddings, model.logit_scale.exp().item(), 0.0 if bias is None else bias.item())


def _compare(layer: str, output: np.ndarray, expected: np.ndarray) -> LayerError:
    if output.shape != expected.shape:
        raise InputError(f"{layer}: the shape is {output.shape}, the original's is {expected.shape}")
    max_abs_error = float(np.abs(output - expected).max())
    scale = max(float(np.abs(expected).max()), np.finfo(expected.dtype).tiny)
    return LayerError(layer, max_abs_error, max_abs_error / scale)


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"verify needs {name}, which is not installed: pip install 'vit-jax[test]'") from error


def _run_original_layers(original: Any, config: ViTConfig, image: np.ndarray) -> LayerOutputs:
    """Return what run_layers() returns, recorded by hooks on the original's list of blocks."""
    torch = importlib.import_module("torch")
    blocks = next(
        module
        for module in original.modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == config.depth
    )
    tokens: list[Any] = []

    def record_output(_module: Any, _inputs: Any, output: Any) -> None:
        tokens.append(output[0] if isinstance(output, tuple) else output)

    blocks[0].register_forward_pre_hook(lambda _, inputs: tokens.append(inputs[0]))
    for block in blocks:
        block.register_forward_hook(record_output)
    with torch.no_grad():
        output = original(torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2))))
    features = getattr(output, "last_hidden_state", None)
    if not isinstance(output, torch.Tensor):
        pooled = (getattr(output, name, None) for name in OUTPUT_FIELDS)
        output = next((tensor for tensor in pooled if tensor is not None), None)
    arrays = [None if tensor is None else tensor.numpy() for tensor in (*tokens, features, output)]
    return LayerOutputs(arrays[:-2], *arrays[-2:])


def _widen(array: np.ndarray) -> np.ndarray:
    """Return a copy in float64 or float32, which torch.from_numpy accepts."""
    return np.array(array, np.float64 if array.dtype == np.float64 else np.float32)
