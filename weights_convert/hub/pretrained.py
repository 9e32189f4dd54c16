"""load_pretrained and load_pipeline: a model from a name, a file or a folder."""

import os
from typing import Unpack, overload

from caption import CaptionTransformer
from vit_jax import Pipeline, VisionTransformer
from weights_convert._convert import ConvertOptions
from weights_convert.hub.releases import CaptionReleaseName, ImageReleaseName
from weights_convert.model_types import IMAGE_MODEL
from weights_convert.plan import ImageSize
from weights_convert.resolve import find_source, open_source


@overload
def load_pretrained(
    name_or_path: ImageReleaseName,
    *,
    image_size: ImageSize | None = None,
    num_classes: int | None = None,
    cache: str | os.PathLike | None = None,
    **options: Unpack[ConvertOptions],
) -> VisionTransformer: ...


@overload
def load_pretrained(
    name_or_path: CaptionReleaseName,
    *,
    image_size: None = None,
    num_classes: None = None,
    cache: str | os.PathLike | None = None,
    **options: Unpack[ConvertOptions],
) -> CaptionTransformer: ...


@overload
def load_pretrained(
    name_or_path: str | os.PathLike,
    *,
    image_size: ImageSize | None = None,
    num_classes: int,
    cache: str | os.PathLike | None = None,
    **options: Unpack[ConvertOptions],
) -> VisionTransformer: ...


@overload
def load_pretrained(
    name_or_path: str | os.PathLike,
    *,
    image_size: ImageSize,
    num_classes: int | None = None,
    cache: str | os.PathLike | None = None,
    **options: Unpack[ConvertOptions],
) -> VisionTransformer: ...


@overload
def load_pretrained(
    name_or_path: str | os.PathLike,
    *,
    image_size: ImageSize | None = None,
    num_classes: int | None = None,
    cache: str | os.PathLike | None = None,
    **options: Unpack[ConvertOptions],
) -> VisionTransformer | CaptionTransformer: ...


def load_pretrained(
    name_or_path: str | os.PathLike,
    *,
    image_size: ImageSize | None = None,
    num_classes: int | None = None,
    cache: str | os.PathLike | None = None,
    **options: Unpack[ConvertOptions],
) -> VisionTransformer | CaptionTransformer:
    """Load a pretrained model.

    name_or_path: a release's name, "hf:owner/name", a name of timm or Hugging Face ("vit_base_patch16_224",
                  "google/vit-base-patch16-224"), a checkpoint file or folder of any layout, a saved model or a run.
    image_size:   int or (height, width); positions are resized by the checkpoint's own convention.
    num_classes:  if it differs from the checkpoint's, a new head of zeros replaces the head.
    cache:        default: $VIT_JAX_CACHE, else ~/.cache/vit_jax.
    options:      for foreign checkpoints, as convert() takes them.

    Raises InputError with a one-line message for anything that is wrong.
    """
    source = find_source(name_or_path, cache=cache)
    return open_source(source, image_size=image_size, num_classes=num_classes, **options).model


def load_pipeline(
    source: str | os.PathLike,
    *,
    image_size: ImageSize | None = None,
    cache: str | os.PathLike | None = None,
    **options: Unpack[ConvertOptions],
) -> Pipeline:
    """Load an image model with its preprocessing and class names, ready for pictures.

        pipeline = load_pipeline("runs/pets")
        pipeline.predict("cat.jpg")

    source:     as name_or_path of load_pretrained.
    image_size: int or (height, width); positions are resized by the checkpoint's own convention.
    cache:      default: $VIT_JAX_CACHE, else ~/.cache/vit_jax.
    options:    for foreign checkpoints, as convert() takes them.

    Raises InputError with a one-line message for anything that is wrong, also for a captioner.
    """
    found = find_source(source, cache=cache, wanted=IMAGE_MODEL)
    opened = open_source(found, wanted=IMAGE_MODEL, image_size=image_size, **options)
    return Pipeline(opened.model, opened.class_names)
