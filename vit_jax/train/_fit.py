"""fit: train a classifier with the whole engine, in a folder or in memory."""

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.checkpoint import load, save
from vit_jax.config import MULTI_LABEL
from vit_jax.data.augment.transforms import check_channels
from vit_jax.data.cache import check_cache
from vit_jax.data.dataset import Dataset
from vit_jax.data.inputs import as_dataset
from vit_jax.data.loader import CachedImages
from vit_jax.data.stored_split import record_split, write_split
from vit_jax.errors import InputError
from vit_jax.model import VisionTransformer
from vit_jax.notes import note
from vit_jax.train.adapt import adapt_model, task_of
from vit_jax.train.distributed import is_first_process
from vit_jax.train.options import RunOptions
from vit_jax.train.recipe import RECIPES, Recipe, resolve_recipe
from vit_jax.train.result import BestModel, FitResult, OnEpoch, copy_arrays, run_fit
from vit_jax.train.run_data import restore_data
from vit_jax.train.run_folder import (
    SPLIT,
    RunConfig,
    absolute_if_path,
    check_unused,
    create_run_folder,
    provenance,
    read_run_config,
)
from vit_jax.train.sharding import make_mesh

CACHE_GB = 4.0
DEFAULT_OPTIONS = RunOptions()


def fit(
    model: VisionTransformer,
    train: Any,
    val: Any,
    recipe: Recipe | str,
    *,
    out: str | os.PathLike | None = None,
    class_names: Sequence[str] | None = None,
    resume: bool = False,
    on_epoch: OnEpoch | None = None,
    options: RunOptions = DEFAULT_OPTIONS,
    cache_gb: float = CACHE_GB,
    config: RunConfig | None = None,
    donate: bool = False,
) -> FitResult:
    """Train a classifier; return the model of the best epoch and the records of all epochs.

    model:       to start from, which stays as it is. Its head is replaced if the number of classes differs.
    train, val:  a Dataset, (images, labels) or a folder; see vit_jax.data.inputs.as_dataset.
    recipe:      a Recipe, or a name of RECIPES, of which the model and its image size are not used. A Recipe's image
                 size, channels, dropout, drop path, background and max_value change the model where not None.
    out:         the run's folder, for checkpoints, metrics, config and the best model; None writes nothing.
    resume:      go on with the run in `out`, exactly as if it had not been stopped. The recipe must be the same, the
                 images have to be, and `model` only gives the shapes.
    on_epoch:    called with the record of each epoch once it is saved; if it returns True, training ends.
    options:     how the devices are used; see RunOptions.
    cache_gb:    memory for decoded images, in 10^9 bytes.
    config:      what the run's config.json records, for programs that can open the data again, with `recipe`.
    donate:      use the memory of `model`, which cannot be used afterwards, for training: saves a copy of it.

    Ctrl-C and SIGTERM save the state in `out` and raise TrainingStopped, a KeyboardInterrupt.
    Raises InputError for what the caller can correct; a run that fails before its first step leaves no folder.
    """
    if not isinstance(model, VisionTransformer):
        raise InputError(f"model: {type(model).__name__} is no VisionTransformer; captioners have caption.train.fit")
    recipe = resolve_recipe(recipe, RECIPES, unset=("model", "image_size"))
    check_cache(cache_gb)
    make_mesh(recipe.batch_size)  # raises before the data are opened
    run = None if out is None else Path(out)
    if run is not None and not resume and is_first_process():  # which creates it
        check_unused(run)
    data = as_dataset(train, val, class_names=class_names, seed=recipe.seed)
    if config is None:
        config = RunConfig(recipe, absolute_if_path(data.name), multi_label=data.train.is_multi_label)
    config = replace(config, recipe=recipe)
    is_checked = not config.skip_corrupt
    if resume:
        data, is_checked = _restore(run, config, data)
    report_label_sets(data)
    model = adapt_model(model, recipe, len(data.class_names), task=task_of(data.train))
    check_channels(recipe.augment, model.config.in_channels)
    model = model if donate else copy_arrays(model)
    images = open_images(data, model, skip_corrupt=not is_checked, cache_gb=cache_gb)
    return _train(model, data, images, config, run, options, resume=resume, on_epoch=on_epoch)


def _restore(folder: Path | None, config: RunConfig, data: Dataset) -> tuple[Dataset, bool]:
    """Return the data with the split of the run to resume, and whether unreadable images are left out already."""
    if folder is None:
        raise InputError("resume needs the run's folder; give out")
    stored = read_run_config(folder)
    if stored.recipe != config.recipe:
        raise InputError(f"{folder}: a resumed run keeps its recipe; give that of its config.json, or another out")
    remedy = f"put it back as it was, or start a new run with --weights {folder} (in Python, from its best model)"
    return restore_data(folder, config, data, remedy=remedy)


def report_label_sets(data: Dataset) -> None:
    """Print how many images have several labels, if images have sets of labels."""
    if data.train.is_multi_label:
        counts = np.concatenate([split.labels.sum(axis=1) for split in (data.train, data.val)])
        note(
            f"task: {MULTI_LABEL}, {(counts > 1).sum():,} of {len(counts):,} images have several labels, "
            f"{(counts == 0).sum():,} have none; the best epoch is that of the highest validation mAP"
        )


def open_images(
    data: Dataset, model: VisionTransformer, *, skip_corrupt: bool, cache_gb: float
) -> tuple[CachedImages, CachedImages]:
    """Open the training and the validation images at the model's size, with its channels."""
    preprocess = model.config.image_preprocess
    budget = int(cache_gb * 1e9)
    size = math.prod(preprocess.size) * model.config.in_channels
    train_budget = min(budget, size * len(data.train))
    images = [
        CachedImages(data.train, preprocess, budget=train_budget),
        CachedImages(data.val, preprocess, budget=budget - train_budget),
    ]
    cached = min(budget // size, len(data.train) + len(data.val))
    note(
        f"data: {data.name}, {len(data.train):,} training and {len(data.val):,} validation images, "
        f"{len(data.class_names)} classes; {cached:,} of them cached decoded, {cached * size / 1e6:,.0f} MB"
    )
    if skip_corrupt:
        for index, split in enumerate(("training", "validation")):
            readable = images[index].drop_corrupt()
            count = len(images[index]) - len(readable)
            (print if count else note)(f"{count} unreadable {split} images skipped")
            images[index] = readable
    return images[0], images[1]


def _train(
    model: VisionTransformer,
    data: Dataset,
    images: tuple[CachedImages, CachedImages],
    config: RunConfig,
    run: Path | None,
    options: RunOptions,
    *,
    resume: bool,
    on_epoch: OnEpoch | None,
) -> FitResult:
    from vit_jax.train.task import classification_task  # imports optax, which takes a second

    def write(model: VisionTransformer, folder: Path, record: dict[str, Any]) -> None:
        save(model, folder, class_names=data.class_names, provenance=provenance(config, record))

    def create() -> None:
        assert run is not None
        split = record_split(data, train=images[0].split, val=images[1].split)
        create_run_folder(run, config, write_data=lambda folder: write_split(folder / SPLIT, split))

    mesh, best = make_mesh(config.recipe.batch_size), BestModel(run, write, load)
    task = classification_task(model, config.recipe, *images, mesh, save_best=best.keep, execution=options.execution)
    return run_fit(task, mesh, options, best, run=run, create=None if resume else create, on_epoch=on_epoch)
