"""fit: train a captioner with the whole engine, in a folder or in memory."""

import functools
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from caption.checkpoint import load, save
from caption.data.captions import CaptionDataset
from caption.data.in_memory import InMemoryCaptions
from caption.data.loader import CaptionedImages, ExampleSource
from caption.data.stored_captions import (
    CaptionSplits,
    describe_changes,
    read_captions,
    record_captions,
    write_captions,
)
from caption.model import CaptionTransformer
from caption.tokenizer import VOCABULARY_FILE, Tokenizer, load_tokenizer
from caption.train.adapt import adapt_captioner
from caption.train.recipe import RECIPES, CaptionRecipe
from caption.train.run_config import FORMAT, CaptionRun
from vit_jax.data.cache import check_cache
from vit_jax.data.inputs import UNNAMED
from vit_jax.errors import InputError
from vit_jax.notes import note
from vit_jax.train.distributed import is_first_process
from vit_jax.train.options import RunOptions
from vit_jax.train.recipe import resolve_recipe
from vit_jax.train.result import BestModel, FitResult, OnEpoch, copy_arrays, run_fit
from vit_jax.train.run_folder import check_unused, create_run_folder, provenance, read_config
from vit_jax.train.sharding import make_mesh

CAPTIONS = "captions.json.gz"  # in a run's folder; see caption/data/stored_captions.py
CACHE_GB = 2.0
DEFAULT_OPTIONS = RunOptions()


def fit(
    model: CaptionTransformer,
    train: Any,
    val: Any,
    recipe: CaptionRecipe | str,
    *,
    tokenizer: Tokenizer,
    out: str | os.PathLike | None = None,
    resume: bool = False,
    on_epoch: OnEpoch | None = None,
    options: RunOptions = DEFAULT_OPTIONS,
    cache_gb: float = CACHE_GB,
    config: CaptionRun | None = None,
    donate: bool = False,
) -> FitResult:
    """Train a captioner; return the model of the best epoch and the records of all epochs.

    model:      to start from, which stays as it is; its vocabulary is the tokenizer's.
    train, val: a CaptionDataset (caption.data.captions.open_captions), an ExampleSource, or (images, captions): PIL
                images or uint8 arrays, and for each its caption or a list of captions.
    recipe:     a CaptionRecipe, or a name of RECIPES, of which the model and its image size are not used.
    cache_gb:   memory for preprocessed validation images, in 10^9 bytes.
    config:     what the run's config.json records, for programs that can open the data again, with `recipe`.
    The other arguments and TrainingStopped are as in vit_jax.train.fit.

    Raises InputError for what the caller can correct; a run that fails before its first step leaves no folder.
    """
    if not isinstance(model, CaptionTransformer):
        raise InputError(f"model: {type(model).__name__} is no CaptionTransformer; classifiers have vit_jax.train.fit")
    recipe = resolve_recipe(recipe, RECIPES, unset=("model", "longest"))
    check_cache(cache_gb)
    make_mesh(recipe.batch_size)  # raises before the data are opened
    run = None if out is None else Path(out)
    config = CaptionRun(recipe=recipe, data=UNNAMED) if config is None else replace(config, recipe=recipe)
    if resume:
        _check_resumed(run, config, tokenizer)
    elif run is not None and is_first_process():  # which creates it
        check_unused(run)
    if model.config.vocab_size != tokenizer.vocab_size:
        raise InputError(f"tokenizer: has {tokenizer.vocab_size} WordPieces, and the model {model.config.vocab_size}")
    model = adapt_captioner(model, recipe)
    model = model if donate else copy_arrays(model)
    sources = _open_examples(train, val, model, tokenizer, recipe, cache_gb)
    if resume and run is not None:
        _check_captions(run, config.data, sources)
    return _train(model, sources, tokenizer, config, run, options, resume=resume, on_epoch=on_epoch)


def _train(
    model: CaptionTransformer,
    sources: tuple[ExampleSource, ExampleSource],
    tokenizer: Tokenizer,
    config: CaptionRun,
    run: Path | None,
    options: RunOptions,
    *,
    resume: bool,
    on_epoch: OnEpoch | None,
) -> FitResult:
    from caption.train.measures import measure_captions
    from caption.train.task import captioning_task

    def write(model: CaptionTransformer, folder: Path, record: dict[str, Any]) -> None:
        save(model, folder, tokenizer=tokenizer, provenance=provenance(config, record))

    def create() -> None:
        assert run is not None
        create_run_folder(run, config, format=FORMAT, write_data=lambda folder: _store_captions(folder, sources))
        if is_first_process():
            tokenizer.save(run / VOCABULARY_FILE)

    recipe, mesh, best = config.recipe, make_mesh(config.recipe.batch_size), BestModel(run, write, load)
    task = captioning_task(
        model, recipe, *sources, mesh, save_best=best.keep, execution=options.execution,
        measure=functools.partial(measure_captions, tokenizer=tokenizer, val=sources[1], recipe=recipe),
    )  # fmt: skip
    return run_fit(task, mesh, options, best, run=run, create=None if resume else create, on_epoch=on_epoch)


def _check_resumed(run: Path | None, config: CaptionRun, tokenizer: Tokenizer) -> None:
    """Raise InputError unless the run has this recipe and this vocabulary; write a vocabulary that a kill lost."""
    if run is None:
        raise InputError("resume needs the run's folder; give out")
    if read_config(run, CaptionRun, FORMAT).recipe != config.recipe:
        raise InputError(f"{run}: a resumed run keeps its recipe; give that of its config.json, or another out")
    file = run / VOCABULARY_FILE
    if not file.is_file():
        if is_first_process():
            tokenizer.save(file)
    elif load_tokenizer(file).vocabulary != tokenizer.vocabulary:
        raise InputError(f"{file}: another vocabulary than that of tokenizer; give load_tokenizer of this file")


def _store_captions(run: Path, sources: tuple[ExampleSource, ExampleSource]) -> None:
    """Store the splits of a run; nothing for examples that are no captioned images."""
    splits = _record(sources)
    if splits is not None:
        write_captions(run / CAPTIONS, splits)


def _check_captions(run: Path, data: str, sources: tuple[ExampleSource, ExampleSource]) -> None:
    """Raise InputError, with the differences, unless captioned images are those of the run.

    Prints a line for a run of an older version, which stores none.
    """
    splits = _record(sources)
    if splits is None:
        return
    if not (run / CAPTIONS).is_file():
        print(f"{run}: a run of an older version, which stores no captions ({CAPTIONS}): they are not compared")
        return
    changes = describe_changes(read_captions(run / CAPTIONS), splits)
    if changes:
        raise InputError(
            f"{run}: {data} has changed since the run began: {changes}; put it back as it was, or start a new run with "
            f"--weights {run} (in Python, from its best model)"
        )


def _record(sources: tuple[ExampleSource, ExampleSource]) -> CaptionSplits | None:
    train, val = (source.captions if isinstance(source, CaptionedImages) else None for source in sources)
    return None if train is None or val is None else record_captions(train, val)


def _open_examples(
    train: Any, val: Any, model: CaptionTransformer, tokenizer: Tokenizer, recipe: CaptionRecipe, cache_gb: float
) -> tuple[ExampleSource, ExampleSource]:
    """Return the training and the validation data as examples. Raises InputError for data that are none, or empty."""
    sources: list[ExampleSource] = []
    for name, data, budget in (("train", train, 0), ("val", val, int(cache_gb * 1e9))):
        if isinstance(data, tuple) and len(data) == 2:
            data = InMemoryCaptions.from_images(*data, name=name)
        if isinstance(data, CaptionDataset):
            data = CaptionedImages(
                data, tokenizer, model.config.image_preprocess, recipe.augment, length=recipe.max_length,
                seed=recipe.seed, budget=budget,
            )  # fmt: skip
        if not isinstance(data, ExampleSource):
            kinds = "a CaptionDataset, an ExampleSource or (images, captions)"
            raise InputError(f"{name}: {type(data).__name__} is no data; give {kinds}")
        if not len(data):
            raise InputError(f"{name}: no captions; give at least one")
        sources.append(data)
    images = [len(source.captions) for source in sources if isinstance(source, CaptionedImages)]
    if len(images) == 2:
        note(f"data: {images[0]:,} training and {images[1]:,} validation images, {len(sources[0]):,} training captions")
    return sources[0], sources[1]
