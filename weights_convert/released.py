"""Check released checkpoints: fetch the file and the picture, and compare with the figures that others publish.

    for result in check_figures(select_figures("dinov2")): ...

The figures are in released_figures.py. Everything is computed in float32, at the highest precision of products.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from PIL import Image

from caption.captioner import Captioner, SearchOptions
from vit_jax import InputError, VisionTransformer
from vit_jax.data.decode import open_rgb
from vit_jax.download import cache_folder
from vit_jax.errors import describe_os_error
from vit_jax.preprocess import ImagePreprocess
from vit_jax.suggest import describe_unknown
from weights_convert.hub.releases import RELEASES, fetch_release, is_offline
from weights_convert.hub.repository import CONFIG_FILES, PREFIX, TOKENIZER_FILES, fetch_repository
from weights_convert.hub.vocabulary import find_tokenizer
from weights_convert.released_figures import FIGURES, Figure
from weights_convert.resolve import ModelSource, open_source
from weights_convert.verify import encode_texts

ALL = "all"
PICTURES = "pictures"  # folder within the cache
FLOAT_KERNELS = {"bilinear": "linear", "bicubic": "cubic"}  # of jax.image.resize
NUMERIC: dict[str, Callable[[VisionTransformer, Any], Array]] = {
    "logits": lambda model, images: model(images),
    "probabilities": lambda model, images: jax.nn.softmax(model(images)),
    "tokens": lambda model, images: model.features(images),
    "tokens before the norm": lambda model, images: model.run(images).tokens,
}


class Comparison(NamedTuple):
    """What this library computes, next to the published figure.

    actual:     numbers of the figure's shape, or a caption.
    difference: of the number that is worst in relation to its tolerance; None of a caption.
    tolerance:  of that number.
    """

    actual: Any
    is_equal: bool
    difference: float | None = None
    tolerance: float | None = None


class FigureResult(NamedTuple):
    """A figure and its comparison, or why there is none."""

    figure: Figure
    comparison: Comparison | None
    problem: str = ""


class _Checkpoint(NamedTuple):
    """A converted checkpoint. path: the fetched file or folder."""

    model: Any
    path: Path


def select_figures(name: str) -> list[Figure]:
    """Return the figures of a checkpoint, of a family, or all. Raises InputError for another name."""
    figures = [figure for figure in FIGURES if name in (ALL, figure.model, figure.family)]
    if not figures:
        known = dict.fromkeys([*(f.family for f in FIGURES), *(f.model for f in FIGURES)])
        raise InputError(describe_unknown("released checkpoint", name, known, more=f", or {ALL}"))
    return figures


def check_figures(figures: Iterable[Figure], *, cache: str | os.PathLike | None = None) -> Iterator[FigureResult]:
    """Yield the result of each figure. Each checkpoint is fetched and converted once; a failure ends its own only.

    cache: the folder of downloads; default: $VIT_JAX_CACHE, else ~/.cache/vit_jax.
    """
    folder = cache_folder() if cache is None else Path(cache)
    for name, group in groupby(figures, lambda figure: figure.model):
        of_model = list(group)
        try:
            checkpoint = _fetch(name, folder, needs_texts=any(figure.texts for figure in of_model))
        except (InputError, OSError) as error:
            yield from (FigureResult(figure, None, _describe(error)) for figure in of_model)
            continue
        for figure in of_model:
            try:
                yield FigureResult(figure, _check(figure, checkpoint, folder))
            except (InputError, OSError) as error:
                yield FigureResult(figure, None, _describe(error))


def _describe(error: Exception) -> str:
    text = describe_os_error(error) if isinstance(error, OSError) else str(error)
    return " ".join(text.split())


def _fetch(name: str, cache: Path, *, needs_texts: bool) -> _Checkpoint:
    """Fetch and convert a published checkpoint; never a file of that name in the current folder."""
    if name in RELEASES:
        release = RELEASES[name]
        source = ModelSource(name, fetch_release(release, cache=cache), release=release)
    else:
        files = (*CONFIG_FILES, *TOKENIZER_FILES) if needs_texts else CONFIG_FILES
        path = fetch_repository(f"{PREFIX}{name}", cache, offline=is_offline(), files=files)
        source = ModelSource(name, path)
    return _Checkpoint(open_source(source).model, source.path)


def _check(figure: Figure, checkpoint: _Checkpoint, cache: Path) -> Comparison:
    picture = open_rgb(fetch_release(figure.picture, cache=cache / PICTURES))
    if figure.output == "caption":
        caption = _caption(checkpoint.model, picture, cache)
        return Comparison(caption, caption == figure.expected)
    with jax.default_matmul_precision("highest"):
        actual = OUTPUTS[figure.output](figure, checkpoint, picture)
    return compare_numbers(figure, actual)


def compare_numbers(figure: Figure, actual: np.ndarray) -> Comparison:
    """Compare numbers with a figure's. Raises InputError for another shape: it is then not the figure's model."""
    expected = np.asarray(figure.expected, np.float64)
    if actual.shape != expected.shape:
        raise InputError(f"{figure.model}: {figure.what} has shape {actual.shape}, the published {expected.shape}")
    difference, tolerance = np.abs(actual - expected), figure.atol + figure.rtol * np.abs(expected)
    worst = np.unravel_index(np.argmax(difference / tolerance), difference.shape)  # NaN is the greatest
    is_equal = bool((difference <= tolerance).all())
    return Comparison(actual, is_equal, float(difference[worst]), float(tolerance[worst]))


def _compute_numbers(figure: Figure, checkpoint: _Checkpoint, picture: Image.Image) -> np.ndarray:
    images = prepare_picture(figure, checkpoint.model, picture)
    output = jax.jit(NUMERIC[figure.output])(checkpoint.model, images)[0]
    with contextlib.suppress(IndexError):  # compare_numbers reports the shape
        return np.asarray(output, np.float64)[figure.index]
    return np.asarray(output, np.float64)


def _score_texts(figure: Figure, checkpoint: _Checkpoint, picture: Image.Image) -> np.ndarray:
    """Return the similarities [T] of the picture with the figure's texts, as the original's logits_per_image."""
    texts = encode_texts(checkpoint.path, figure.texts)
    embedding = np.asarray(
        jax.jit(NUMERIC["logits"])(checkpoint.model, prepare_picture(figure, checkpoint.model, picture))[0], np.float64
    )
    return texts.scale * (texts.embeddings @ (embedding / np.linalg.norm(embedding))) + texts.bias


def prepare_picture(figure: Figure, model: VisionTransformer, picture: Image.Image) -> Float[Array, "1 h w c"]:
    """Return the input as the figure's source makes it, cut to whole patches as a strided convolution does."""
    config = model.config
    preprocess = replace(config.preprocess, **figure.preprocess)
    size = config.image_size if figure.size is None else (figure.size, figure.size)
    if figure.is_float_resized:
        pixels = jnp.asarray(np.asarray(picture), jnp.float32) / 255
        method = FLOAT_KERNELS[preprocess.kernel]
        image = preprocess.normalize(jax.image.resize(pixels, (*size, pixels.shape[-1]), method, antialias=True))
    else:
        image = ImagePreprocess(size, preprocess)(picture)
    height, width = (side - side % patch for side, patch in zip(size, config.patch_size, strict=True))
    return image[None, :height, :width]


def _caption(model: Any, picture: Image.Image, cache: Path) -> str:
    """Return the caption of a greedy search."""
    tokenizer = find_tokenizer(vocab_size=model.config.vocab_size, cache=cache)
    captioner = Captioner(model, tokenizer, SearchOptions(model.config.max_positions), None)
    return captioner([captioner.prepare(picture)], 1)[0].captions[0].caption


OUTPUTS: Mapping[str, Callable[[Figure, _Checkpoint, Image.Image], np.ndarray]] = {
    **dict.fromkeys(NUMERIC, _compute_numbers),
    "similarities": _score_texts,
}
