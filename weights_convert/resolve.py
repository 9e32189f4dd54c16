"""Open a model by one rule everywhere: a run, a saved folder, a foreign file or folder, or the name of a checkpoint.

Names are those of releases (hub/releases.py), hf:owner/name, and the names of timm and Hugging Face (hub/aliases.py).
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vit_jax import InputError
from vit_jax.checkpoint import WEIGHTS, load_card
from vit_jax.download import cache_folder
from vit_jax.saved_folder import find_saved_folder
from weights_convert._convert import convert_with_plan
from weights_convert.formats.folders import CHECKPOINT_SUFFIXES
from weights_convert.hub.aliases import find_alias
from weights_convert.hub.releases import NEVER_RELEASED, RELEASES, Release, fetch_release, find_release, is_offline
from weights_convert.hub.repository import PREFIX, fetch_repository
from weights_convert.model_types import (
    CAPTION_MODEL,
    IMAGE_MODEL,
    Changes,
    ModelType,
    check_model_type,
    saved_model_type,
)
from weights_convert.plan import ConversionPlan

AnyPath = str | os.PathLike


@dataclass(frozen=True)
class ModelSource:
    """Where a model is, before its weights are read.

    name:       as it was given.
    path:       a file or folder on this machine; of a run, its best/.
    saved_type: the type of a model that this library saved; None for a checkpoint of another library.
    release:    of a released checkpoint, else None.
    """

    name: str
    path: Path
    saved_type: ModelType | None = None
    release: Release | None = None

    def __str__(self) -> str:
        return self.name


class OpenedModel(NamedTuple):
    """A model, its class names (() if unknown), and for a checkpoint of another library how it was converted."""

    model: Any
    class_names: tuple[str, ...]
    plan: ConversionPlan | None = None


def locate(name_or_path: AnyPath, *, cache: AnyPath | None = None) -> Path:
    """Return the path of a checkpoint: in the cache for a name, else the path itself, which need not exist.

    What a name stands for is downloaded if necessary. An existing path comes before a name, which is then reported.
    Raises InputError if a download fails.
    """
    name = os.fspath(name_or_path)
    is_release = name in RELEASES or name in NEVER_RELEASED
    repository = name if name.startswith(PREFIX) else find_alias(name)
    if Path(name).exists():
        if is_release or repository:
            print(f"{name}: the path here, not the published checkpoint of that name", file=sys.stderr)
    elif is_release:
        return fetch_release(find_release(name), cache=cache)
    elif repository is not None:
        return fetch_repository(repository, cache_folder() if cache is None else Path(cache), offline=is_offline())
    return Path(name)


def find_source(
    name_or_path: "AnyPath | ModelSource", *, cache: AnyPath | None = None, wanted: ModelType | None = None
) -> ModelSource:
    """Return where a model is, after downloading what a name stands for. A source is returned as it is.

    cache:  the folder of downloads; default: $VIT_JAX_CACHE, else ~/.cache/vit_jax.
    wanted: the type that the model must have; checked here unless only the arrays show it (open_model checks it then).

    Raises InputError for an unknown name, a path that does not exist, a run without best/, a failed download, and a
    model of another type than the one wanted.
    """
    if isinstance(name_or_path, ModelSource):
        return name_or_path
    name = os.fspath(name_or_path)
    if not name:
        raise InputError("no model: the name is empty; give a run, a saved folder, a checkpoint, or a name of one")
    release = RELEASES.get(name) if not Path(name).exists() else None
    if release is not None:
        is_caption = release.architecture in CAPTION_MODEL.named_configs
        check_model_type(CAPTION_MODEL if is_caption else IMAGE_MODEL, wanted, name)
    path = find_saved_folder(locate(name, cache=cache))
    if not path.exists():
        raise InputError(_describe_missing(name))
    if path.name == WEIGHTS and saved_model_type(path.parent) is not None:
        raise InputError(f"{name}: the weights of a saved model; give its folder, {path.parent}")
    saved_type = saved_model_type(path)
    if saved_type is not None:
        check_model_type(saved_type, wanted, name)
    return ModelSource(name, path, saved_type, release)


def open_source(
    source: ModelSource,
    *,
    image_size: Any = None,
    num_classes: int | None = None,
    wanted: ModelType | None = None,
    **options: Any,
) -> OpenedModel:
    """Read the model of a source, its preprocessing and its class names.

    image_size, num_classes: see load_pretrained; a head of another size has no class names.
    wanted:  the type that the model must have. options: those of convert(), for checkpoints of another library.

    Raises InputError naming the source for anything that is wrong.
    """
    if source.saved_type is not None:
        model = source.saved_type.load(source.path, Changes(image_size, num_classes))
        names = load_card(source.path).class_names if source.saved_type is IMAGE_MODEL else ()
        has_names = not names or len(names) == model.config.num_classes
        return OpenedModel(model, names if has_names else ())
    if source.release is not None:
        options = {"name": source.release.architecture, "layout": source.release.layout, **options}
    model, plan = convert_with_plan(
        source.path, image_size=image_size, num_classes=num_classes, model_type=wanted, **options
    )
    return OpenedModel(model, tuple(plan.class_names), plan)


def _describe_missing(name: str) -> str:
    if os.sep in name or name.endswith(CHECKPOINT_SUFFIXES):
        hint = f", or {PREFIX}{name} for the Hugging Face hub" if name.count("/") == 1 else ""
        return f"{name}: no such model; give a run, a saved folder, a checkpoint, or a name of one{hint}"
    try:
        find_release(name)
    except InputError as error:
        return str(error)
    raise AssertionError(name)
