"""load_pretrained: a model from a release's name, a repository of the Hugging Face hub, a file or a folder."""

import os
from pathlib import Path
from typing import Unpack, overload

from caption import CaptionTransformer
from vit_jax import VisionTransformer
from vit_jax.download import cache_folder
from weights_convert._convert import ConvertOptions, convert
from weights_convert.hub.releases import (
    NEVER_RELEASED,
    RELEASES,
    CaptionReleaseName,
    ImageReleaseName,
    fetch_release,
    find_release,
    is_offline,
)
from weights_convert.hub.repository import PREFIX, fetch_repository
from weights_convert.model_types import Changes, saved_model_type
from weights_convert.plan import ImageSize


def locate(name_or_path: str | os.PathLike, *, cache: str | os.PathLike | None = None) -> Path:
    """Return the path of a checkpoint: a file of a release or a folder of hf:owner/name in the cache, else the path.

    Releases and repositories are downloaded if necessary; InputError says why one cannot be. A path need not exist.
    """
    name = str(name_or_path)
    if Path(name).exists():
        return Path(name)
    if name.startswith(PREFIX):
        return fetch_repository(name, cache_folder() if cache is None else Path(cache), offline=is_offline())
    if name in (*RELEASES, *NEVER_RELEASED):
        return fetch_release(find_release(name), cache=cache)
    return Path(name)


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

    name_or_path: a release's name, "hf:owner/name", a checkpoint file or folder of any layout, or a saved model.
    image_size:   int or (height, width); positions are resized by the checkpoint's own convention.
    num_classes:  if it differs from the checkpoint's, a new head of zeros replaces the head.
    cache:        default: $VIT_JAX_CACHE, else ~/.cache/vit_jax.
    options:      for foreign checkpoints, as convert() takes them.

    Raises InputError with a one-line message for anything that is wrong.
    """
    path = locate(name_or_path, cache=cache)
    if (model_type := saved_model_type(path)) is not None:
        return model_type.load(path, Changes(image_size, num_classes))
    if str(name_or_path) != str(path) and str(name_or_path) in RELEASES:
        release = RELEASES[str(name_or_path)]
        options = {"name": release.architecture, **options}
        return convert(path, layout=release.layout, image_size=image_size, num_classes=num_classes, **options)
    if not path.exists():
        find_release(str(name_or_path))  # raises InputError: the name is unknown
    return convert(path, image_size=image_size, num_classes=num_classes, **options)
