"""The tokenizer, the model and the data of a captioner's run."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from caption import CaptionTransformer
from caption.data.captions import CaptionDataset, open_captions
from caption.data.loader import ExampleSource, SceneExamples
from caption.data.scenes import scene_captions
from caption.tokenizer import VOCABULARY_FILE, Tokenizer, build_tokenizer, load_tokenizer
from caption.train.run_config import BUILD, SCENES, CaptionRun
from experiments.train_caption.start import check_sources, starting_captioner
from vit_jax.data.inputs import check_named
from weights_convert.hub.vocabulary import find_tokenizer

SCENES_PER_EPOCH, SCENES_HELD_OUT = 6400, 320


class PreparedRun(NamedTuple):
    """The initial model of a run, its tokenizer and its data, as caption.train.fit takes them."""

    model: CaptionTransformer
    tokenizer: Tokenizer
    train: CaptionDataset | ExampleSource
    val: CaptionDataset | ExampleSource


def prepare_run(config: CaptionRun, folder: Path) -> PreparedRun:
    """Open the data, and create or load the tokenizer and the model. The tokenizer of a run is in its folder."""
    check_named(config.data)
    check_sources(config)
    return _prepare_scenes(config, folder) if config.data == SCENES else _prepare_captions(config, folder)


def _prepare_scenes(config: CaptionRun, folder: Path) -> PreparedRun:
    recipe, tokenizer = config.recipe, _open_tokenizer(config, folder, iter(scene_captions("train")))
    model = starting_captioner(config, tokenizer.vocab_size)
    options: dict[str, Any] = dict(
        seed=recipe.seed, tokenizer=tokenizer, preprocess=model.config.image_preprocess, length=recipe.max_length
    )
    train = SceneExamples(split="train", count=SCENES_PER_EPOCH, **options)
    return PreparedRun(model, tokenizer, train, SceneExamples(split="val", count=SCENES_HELD_OUT, **options))


def _prepare_captions(config: CaptionRun, folder: Path) -> PreparedRun:
    options: dict[str, Any] = dict(images=config.images, val_fraction=config.val_fraction, seed=config.recipe.seed)
    train, val = (
        _first_captions(open_captions(config.data, split, **options), config.captions_per_image)
        for split in ("train", "val")
    )
    tokenizer = _open_tokenizer(config, folder, (text for captions in train.captions for text in captions))
    return PreparedRun(starting_captioner(config, tokenizer.vocab_size), tokenizer, train, val)


def _first_captions(captions: CaptionDataset, count: int | None) -> CaptionDataset:
    return (
        captions if count is None else replace(captions, captions=tuple(texts[:count] for texts in captions.captions))
    )


def _open_tokenizer(config: CaptionRun, folder: Path, texts: Iterator[str]) -> Tokenizer:
    """Load the tokenizer of the run's folder, or create it. texts: the training captions."""
    if (folder / VOCABULARY_FILE).is_file():
        return load_tokenizer(folder)
    if config.vocabulary == BUILD or config.data == SCENES:
        return build_tokenizer(texts, name=config.data)
    return find_tokenizer(config.vocabulary)
