"""The tokenizer, the model and the examples of a captioner's run."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from caption import CaptionTransformer
from caption.data.captions import CaptionDataset, open_captions
from caption.data.loader import CaptionedImages, ExampleSource, SceneExamples
from caption.data.scenes import scene_captions
from caption.tokenizer import VOCABULARY_FILE, Tokenizer, build_vocabulary, load_tokenizer
from experiments.train_caption.run import BUILD, FORMAT, SCENES, CaptionRun
from experiments.train_caption.start import starting_captioner
from vit_jax.train.run_folder import create_run_folder
from weights_convert.hub.vocabulary import find_tokenizer

SCENES_PER_EPOCH, SCENES_HELD_OUT = 6400, 320


class PreparedRun(NamedTuple):
    """The initial model of a run, its tokenizer and its examples."""

    model: CaptionTransformer
    tokenizer: Tokenizer
    train: ExampleSource
    val: ExampleSource


def prepare_run(config: CaptionRun, folder: Path, *, resume: bool, cache_gb: float) -> PreparedRun:
    """Open the data, create the folder of a new run with its vocabulary, and create or load the model."""
    prepare = _prepare_scenes if config.data == SCENES else _prepare_captions
    return prepare(config, folder, resume=resume, cache_gb=cache_gb)


def _prepare_scenes(config: CaptionRun, folder: Path, *, resume: bool, cache_gb: float) -> PreparedRun:
    model, tokenizer = _create_run(config, folder, lambda: iter(scene_captions("train")), resume=resume)
    recipe = config.recipe
    options: dict[str, Any] = dict(
        seed=recipe.seed, tokenizer=tokenizer, preprocess=model.config.image_preprocess, length=recipe.max_length
    )
    train = SceneExamples(split="train", count=SCENES_PER_EPOCH, **options)
    return PreparedRun(model, tokenizer, train, SceneExamples(split="val", count=SCENES_HELD_OUT, **options))


def _prepare_captions(config: CaptionRun, folder: Path, *, resume: bool, cache_gb: float) -> PreparedRun:
    recipe = config.recipe
    options: dict[str, Any] = dict(images=config.images, val_fraction=config.val_fraction, seed=recipe.seed)
    train, val = (
        _first_captions(open_captions(config.data, split, **options), config.captions_per_image)
        for split in ("train", "val")
    )
    print(f"data: {len(train):,} training and {len(val):,} validation images, {len(train.pairs()):,} training captions")

    def texts() -> Iterator[str]:
        return (text for captions in train.captions for text in captions)

    model, tokenizer = _create_run(config, folder, texts, resume=resume)
    examples = functools.partial(
        CaptionedImages, tokenizer=tokenizer, preprocess=model.config.image_preprocess, augment=recipe.augment,
        length=recipe.max_length, seed=recipe.seed,
    )  # fmt: skip
    return PreparedRun(model, tokenizer, examples(train, budget=0), examples(val, budget=int(cache_gb * 1e9)))


def _first_captions(captions: CaptionDataset, count: int | None) -> CaptionDataset:
    return (
        captions if count is None else replace(captions, captions=tuple(texts[:count] for texts in captions.captions))
    )


def _create_run(
    config: CaptionRun, folder: Path, texts: Callable[[], Iterator[str]], *, resume: bool
) -> tuple[CaptionTransformer, Tokenizer]:
    """Create the folder of a new run. Return the initial model and the tokenizer."""
    if not resume:
        create_run_folder(folder, config, format=FORMAT)
    tokenizer = _open_tokenizer(config, folder, texts)
    return starting_captioner(config, tokenizer.vocab_size), tokenizer


def _open_tokenizer(config: CaptionRun, folder: Path, texts: Callable[[], Iterator[str]]) -> Tokenizer:
    """Load the vocabulary of the run's folder, or create it there. texts: the training captions."""
    if (folder / VOCABULARY_FILE).is_file():
        return load_tokenizer(folder)
    if config.vocabulary == BUILD or config.data == SCENES:
        return build_vocabulary(texts(), folder / VOCABULARY_FILE)
    tokenizer = find_tokenizer(config.vocabulary)
    tokenizer.save(folder / VOCABULARY_FILE)
    return tokenizer
