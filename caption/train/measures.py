"""Measures of the captions that a captioner generates for its validation images."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from caption._generate import generate
from caption.data.loader import VALIDATION, CaptionedImages, ExampleSource
from caption.model import CaptionTransformer
from caption.preprocess import pad_batch
from caption.scoring.metrics import score_captions
from caption.tokenizer import Tokenizer
from caption.train.recipe import CaptionRecipe
from vit_jax.data.batches import pad_batch_to


def measure_captions(
    model: CaptionTransformer, tokenizer: Tokenizer, val: ExampleSource, recipe: CaptionRecipe
) -> dict[str, float]:
    """Return the fraction of captions that match a reference word by word, and CIDEr-D if the recipe selects by it.

    Images with captions of people are measured only if the recipe selects by captions, since generation takes time.
    """
    if isinstance(val, CaptionedImages):
        if recipe.best_by == "loss":
            return {}
        images = [val.picture(index) for index in range(len(val.captions))]
        references = [list(captions) for captions in val.captions.captions]
    else:
        examples = [val.at(VALIDATION, index) for index in range(len(val))]
        images = [example.image for example in examples]
        references = [[tokenizer.decode(example.tokens)] for example in examples]
    captions = generate_captions(model, tokenizer, images, recipe)
    is_exact = [
        caption in [text.capitalize() for text in texts] for caption, texts in zip(captions, references, strict=True)
    ]
    measures = {"val_exact": float(np.mean(is_exact))}
    if recipe.best_by == "cider":
        scores = score_captions(dict(enumerate(captions)), dict(enumerate(references)), java=False)
        measures["val_cider"] = scores["CIDEr-D"]
    return measures


def generate_captions(
    model: CaptionTransformer, tokenizer: Tokenizer, images: Sequence[np.ndarray], recipe: CaptionRecipe
) -> list[str]:
    """Return greedy captions of preprocessed images, in batches of the recipe's size."""
    length = min(recipe.max_length, model.config.max_positions)
    options: dict[str, Any] = dict(max_length=length, padding=recipe.padding, start=tokenizer.start, end=tokenizer.end)
    captions = []
    for start in range(0, len(images), recipe.batch_size):
        rows = list(images[start : start + recipe.batch_size])
        padded, _ = pad_batch_to(recipe.batch_size, rows, rows[0])
        batch = pad_batch(padded, model.config.image_preprocess.size)
        generated = generate(model, batch.images, batch.mask, **options)
        captions += [tokenizer.decode(tokens) for tokens in np.asarray(generated.tokens)[: len(rows)]]
    return captions
