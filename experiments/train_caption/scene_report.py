"""Evaluate the heat maps of a captioner on synthetic scenes, where the place of every object is known."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from caption import CaptionTransformer, forward_with_attention, word_attention
from caption.data.scenes import Scene, make_scene
from caption.plot import plot_caption
from caption.tokenizer import Tokenizer
from vit_jax.explain.heatmap import upsample
from vit_jax.plot import save_figure

FIGURES = 4
SCENES = 256
BATCH = 32

WordMaps = list[tuple[str, np.ndarray]]


class Pointing(NamedTuple):
    """Fractions of nouns: whose map peaks inside the object (hits), and expected for a random pixel (chance)."""

    hits: float
    chance: float
    nouns: int


def held_out_scenes(seed: int, count: int, size: int) -> list[Scene]:
    """Return scenes whose captions are never used in training."""
    return [make_scene(seed, index, split="val", size=size) for index in range(count)]


def word_maps(
    model: CaptionTransformer, tokenizer: Tokenizer, scenes: list[Scene], length: int, *, layer: int = -1
) -> list[WordMaps]:
    """Return the words of each scene with their heat maps, from a forward pass over the scene's own caption."""
    images = np.stack([model.config.image_preprocess.normalize(scene.image) for scene in scenes])
    texts = tokenizer.encode_batch([scene.caption for scene in scenes], length)
    forward = jax.jit(forward_with_attention)
    maps = []
    for start in range(0, len(scenes), BATCH):
        rows = np.arange(start, start + BATCH) % len(scenes)  # the last batch is filled: one shape to compile
        mask = np.ones(images[rows].shape[:3], bool)
        output = forward(model, jnp.asarray(images[rows]), mask, texts.tokens[rows], texts.mask[rows])
        output = jax.tree.map(np.asarray, output)
        for item in range(min(BATCH, len(scenes) - start)):
            maps.append(word_attention(output, texts.tokens[start + item], tokenizer, layer=layer, item=item))
    return maps


def pointing(scenes: list[Scene], maps: list[WordMaps]) -> Pointing:
    """Compare where the maps of nouns peak, enlarged to the image, with the pixels of the object they name."""
    hits, chances = [], []
    for scene, words in zip(scenes, maps, strict=True):
        for place, region in scene.regions.items():
            heat = np.asarray(upsample(words[place][1].astype(np.float32), region.shape))
            hits.append(bool(region.flat[heat.argmax()]))
            chances.append(region.mean())
    return Pointing(float(np.mean(hits)), float(np.mean(chances)), len(hits))


def report_scenes(
    model: CaptionTransformer, tokenizer: Tokenizer, folder: Path, *, seed: int, length: int
) -> dict[str, Any]:
    """Return how well the maps of nouns point, by decoder layer; draw figures of a few scenes by the best layer."""
    scenes = held_out_scenes(seed, SCENES, model.config.image_preprocess.size[0])
    maps = [word_maps(model, tokenizer, scenes, length, layer=layer) for layer in range(model.config.decoder_layers)]
    results = [pointing(scenes, words) for words in maps]
    best = max(range(len(maps)), key=lambda layer: results[layer].hits)
    folder.mkdir(exist_ok=True)
    for index in range(FIGURES):
        figure = plot_caption(scenes[index].image, maps[best][index], scenes[index].caption)
        save_figure(figure, folder / f"scene_{index}.png")
    return {f"layer {layer}": result._asdict() for layer, result in enumerate(results)}
