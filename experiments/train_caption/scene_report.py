"""What a captioner makes of made scenes, whose objects' places are known: figures, and how often maps find words."""

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


class Pointing(NamedTuple):
    """How often a noun's map peaks inside its object, and how often a pixel drawn at random would. Shares of nouns."""

    hits: float
    chance: float
    nouns: int


def held_out(seed: int, count: int, size: int) -> list[Scene]:
    """Scenes with captions that training never shows."""
    return [make_scene(seed, index, split="val", size=size) for index in range(count)]


def word_maps(
    model: CaptionTransformer, tokenizer: Tokenizer, scenes: list[Scene], length: int, *, layer: int = -1
) -> list[list[tuple[str, np.ndarray]]]:
    """Each scene's words with their maps, of a pass over its own caption, in batches of 32."""
    images = np.stack([model.config.image_preprocess.normalize(made.image) for made in scenes])
    texts = tokenizer.encode_batch([made.caption for made in scenes], length)
    forward = jax.jit(forward_with_attention)
    found = []
    for start in range(0, len(scenes), 32):
        rows = np.arange(start, start + 32) % len(scenes)  # the last batch is filled up, so that one shape is compiled
        mask = np.ones(images[rows].shape[:3], bool)
        output = forward(model, jnp.asarray(images[rows]), mask, texts.tokens[rows], texts.mask[rows])
        output = jax.tree.map(np.asarray, output)
        for item in range(min(32, len(scenes) - start)):
            found.append(word_attention(output, texts.tokens[start + item], tokenizer, layer=layer, item=item))
    return found


def pointing(scenes: list[Scene], maps: list[list[tuple[str, np.ndarray]]]) -> Pointing:
    """Where the maps of nouns peak, enlarged to the picture, against the pixels of what they name."""
    hits, chances = [], []
    for made, words in zip(scenes, maps, strict=True):
        for place, region in made.regions.items():
            heat = np.asarray(upsample(words[place][1].astype(np.float32), region.shape))
            hits.append(bool(region.flat[heat.argmax()]))
            chances.append(region.mean())
    return Pointing(float(np.mean(hits)), float(np.mean(chances)), len(hits))


def report(model: CaptionTransformer, tokenizer: Tokenizer, folder: Path, *, seed: int, length: int) -> dict[str, Any]:
    """Say how well nouns' maps point, by decoder layer, and write figures of a few held-out scenes by the best one."""
    scenes = held_out(seed, 256, model.config.image_preprocess.size[0])
    layers = range(model.config.decoder_layers)
    maps = [word_maps(model, tokenizer, scenes, length, layer=layer) for layer in layers]
    found = [pointing(scenes, words) for words in maps]
    answers = {f"layer {layer}": found[layer]._asdict() for layer in layers}
    best = maps[max(layers, key=lambda layer: found[layer].hits)]
    folder.mkdir(exist_ok=True)
    for index in range(FIGURES):
        figure = plot_caption(scenes[index].image, best[index], scenes[index].caption)
        save_figure(figure, folder / f"scene_{index}.png")
    return answers
