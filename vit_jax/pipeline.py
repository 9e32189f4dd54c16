"""From pictures to predictions, features and heat maps in one call each.

    pipeline = Pipeline(vit_jax.load(folder), class_names)
    pipeline.predict("cat.jpg")          # [[("Bengal", 0.28), ("Egyptian Mau", 0.21), ...]]
    pipeline.heatmap("cat.jpg").save("relevance.png")

Letters: B pictures, D width of the features, gh x gw grid of patches.
"""

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from vit_jax.channels import Picture, shown, to_channels, to_rgb
from vit_jax.classes import find_class, name_class
from vit_jax.config import ViTConfig
from vit_jax.data.dataset import Split
from vit_jax.data.decode import as_upright, open_picture
from vit_jax.data.folder import image_files
from vit_jax.data.loader import CachedImages
from vit_jax.errors import InputError
from vit_jax.explain.methods import METHODS, MethodOptions, check_method_options, compile_method, why_unavailable
from vit_jax.heat_map import HeatMap
from vit_jax.inference import Outputs, compute_outputs
from vit_jax.model import VisionTransformer
from vit_jax.prediction import predicted_labels, probabilities

BATCH_SIZE = 16
AnyImage = str | os.PathLike | Image.Image | np.ndarray | jax.Array
Images = AnyImage | Sequence[AnyImage]


class Prediction(NamedTuple):
    """A class and its probability, in [0, 1]."""

    name: str
    probability: float


class Pipeline:
    """A model together with its preprocessing and class names.

    Images are a path, a PIL image or a uint8 array [h, w] or [h, w, c], or a list of these, or an array [B, h, w, c];
    a folder stands for the image files in it, sorted. Files are read as experiments.predict reads them: upright, those
    of 16 bits and transparent ones included. predict and features return one result per image, also for a single one.

    class_names: one per class, in the order of the outputs; without them classes are "class 0", "class 1", ...
    batch_size:  images that the model takes at once.

    Raises InputError if there is not one name per class, and for a batch_size below 1.
    """

    def __init__(self, model: VisionTransformer, class_names: Iterable[str] = (), *, batch_size: int = BATCH_SIZE):
        count, names = model.config.num_classes, tuple(map(str, class_names))
        if names and len(names) != count:
            raise InputError(f"{len(names)} class names for {count} classes; give one for each")
        if batch_size < 1:
            raise InputError(f"batch_size is at least 1, not {batch_size}")
        self.model, self.class_names, self.batch_size = model, names, batch_size

    def __repr__(self) -> str:
        return f"Pipeline({self.model!r})"

    def predict(self, images: Images, top_k: int = 5) -> list[list[Prediction]]:
        """Return the most probable classes of each image, at most top_k, the most probable first.

        The probabilities of all classes sum to 1; those of a multi-label model are independent of one another.
        Raises InputError for a model without a head, and for an image that cannot be read.
        """
        if not self.model.config.num_classes:
            raise InputError("the model has no classification head, so it predicts no class; features() needs none")
        if top_k < 1:
            raise InputError(f"top_k is at least 1, not {top_k}")
        values = np.asarray(probabilities(self.model.config, self._compute(images).logits))
        order = np.argsort(-values, axis=1, kind="stable")[:, :top_k]
        return [
            [self._named(label, row) for label in labels] for row, labels in zip(values, order.tolist(), strict=True)
        ]

    def _named(self, label: int, values: Float[np.ndarray, " classes"]) -> Prediction:
        return Prediction(name_class(label, self.class_names), float(values[label]))

    def features(self, images: Images) -> Float[np.ndarray, "b d"]:
        """Return the features of each image that the head reads, float32. Raises InputError as predict does."""
        return self._compute(images).features

    def heatmap(
        self,
        image: Images,
        method: str = "relevance",
        target: str | int | np.integer | None = None,
        *,
        options: MethodOptions = MethodOptions(),  # noqa: B008  it is frozen
    ) -> HeatMap:
        """Return where in an image the evidence for a class lies, or what its features say of each patch.

        method:  a name in vit_jax.explain.METHODS.
        target:  the class, by name or index; None for the most probable one.
        options: the layer, the head, the patches to compare with and the like; see MethodOptions.

        Raises InputError for an unknown method or class, a method that this model cannot run, an image that cannot be
        read, and several images.
        """
        compute_maps = _compile(method, options)
        if reason := why_unavailable(method, self.model.config):
            raise InputError(f"{method}: {reason}")
        check_method_options(self.model, options)
        config = self.model.config
        if target is not None and not config.num_classes:
            raise InputError(f"no class {target!r}: the model has no classification head, and so no classes")
        label = None if target is None else find_class(target, self.class_names, config.num_classes)
        picture = self._open_one(image)
        pixels = config.image_preprocess.resize(picture)[None]
        values, label = self._predict_one(pixels, label)
        heat = compute_maps(self.model, pixels, jnp.full((1, 1), label or 0, jnp.int32))
        return self._label(np.asarray(heat[0, 0], np.float32), picture, method, options, values, label)

    def _predict_one(self, pixels: Any, label: int | None) -> tuple[Float[np.ndarray, " classes"], int | None]:
        """Return the probability of each class, and the class to explain; none of either without a head."""
        config = self.model.config
        if not config.num_classes:
            return np.zeros(0, np.float32), None
        values = np.asarray(_predict(self.model, pixels)[0])
        return values, int(values.argmax()) if label is None else label

    def _label(
        self,
        heat: Float[np.ndarray, "gh gw ..."],
        picture: Picture,
        method: str,
        options: MethodOptions,
        values: Float[np.ndarray, " classes"],
        label: int | None,
    ) -> HeatMap:
        """Return a map with the names of what it shows."""
        kind, config = METHODS[method], self.model.config
        labels = predicted_labels(config, values) if values.size else []
        is_of_class = kind.is_class_specific and label is not None
        return HeatMap(
            heat,
            config.image_preprocess.view(to_rgb(picture)),
            kind.title,
            target=name_class(label, self.class_names) if is_of_class and label is not None else "",
            probability=float(values[label]) if is_of_class else None,
            prediction=tuple(self._named(i, values) for i in labels) if values.size else None,
            layer=options.layer % len(self.model.blocks) if kind.uses_layer else None,
            head=options.head % config.num_heads if kind.uses_head and options.head is not None else None,
            patches=options.patches_in(config.grid) if kind.uses_patches else (),
            is_signed=kind.is_signed,
            quantity=kind.label,
            image_title=f"image{shown(picture)}",
        )

    def _compute(self, images: Images) -> Outputs:
        """Return the outputs of the model for every image."""
        items = list_images(images)
        split = Split([_name(item, i) for i, item in enumerate(items)], np.zeros(len(items), np.int32), _opener(items))
        cached = CachedImages(split, self.model.config.image_preprocess, budget=0)
        return compute_outputs(self.model, cached, min(self.batch_size, len(items)))

    def _open_one(self, image: Images) -> Picture:
        items = list_images(image)
        if len(items) != 1:
            raise InputError(f"a heat map is of one image, not of {len(items)}; call heatmap for each")
        _, picture = next(open_pictures(items, self.model.config))
        return picture


def open_pictures(images: Images, config: ViTConfig) -> Iterator[tuple[str, Picture]]:
    """Yield the name of each image and the image itself with the channels that a model takes.

    The name is a file's path, or "image 0" of the first image in memory. Raises InputError as list_images does, and for
    an image that cannot be read.
    """
    items, settings = list_images(images), config.preprocess
    open_item = _opener(items)
    for index, item in enumerate(items):
        name, picture = _name(item, index), open_item(index, max_value=settings.max_value)
        yield name, to_channels(picture, config.in_channels, name=name, background=settings.background)


def list_images(images: Images) -> list[Path | Picture]:
    """Return images as files and pictures: one or a list of paths, PIL images and uint8 arrays; a folder as its files.

    Raises InputError for an empty list, a missing file, a folder without images, and anything that is no image, such
    as an array of floats, whose range is unknown.
    """
    if isinstance(images, Sequence) and not isinstance(images, str):
        items = [item for image in images for item in list_images(image)]
        if not items:
            raise InputError("no images: the list is empty")
        return items
    if not isinstance(images, (str, os.PathLike)):
        batch = images if isinstance(images, (np.ndarray, jax.Array)) and images.ndim == 4 else [images]
        if not len(batch):
            raise InputError("no images: the array is empty")
        return [as_upright(image, name=f"image {index}") for index, image in enumerate(batch)]
    if not os.fspath(images):
        raise InputError("no image: the path is empty")
    path = Path(images)
    if path.is_dir():
        return list(image_files(path))
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return [path]


def _name(item: Path | Picture, index: int) -> str:
    return str(item) if isinstance(item, Path) else f"image {index}"


def _opener(items: Sequence[Path | Picture]) -> Callable[..., Picture]:
    def open_item(index: int, *, max_value: float | None = None) -> Picture:
        item = items[index]
        return open_picture(item, max_value=max_value) if isinstance(item, Path) else item

    return open_item


@jax.jit
def _predict(model: VisionTransformer, pixels: UInt8[Any, "b h w channels"]) -> Float[Array, "b classes"]:
    """Return the probabilities of the classes for images of the model's size."""
    normalized = model.config.preprocess.normalize(pixels.astype(jnp.float32) / 255)
    return probabilities(model.config, model(normalized).astype(jnp.float32))


@functools.cache  # so that each is compiled once
def _compile(method: str, options: MethodOptions) -> Callable[..., Float[Array, "b k gh gw ..."]]:
    """Return a compiled (model, 8-bit images, targets [B, K]) -> maps; see compile_method."""
    compute_maps = compile_method(method, options)

    @jax.jit
    def explain(model: VisionTransformer, pixels: Any, targets: Any) -> Float[Array, "b k gh gw ..."]:
        return compute_maps(model, model.config.preprocess.normalize(pixels.astype(jnp.float32) / 255), targets)

    return explain
