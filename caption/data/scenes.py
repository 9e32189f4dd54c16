"""Synthetic scenes: images of coloured shapes, each with its one correct caption and the pixels of every object.

"A red circle above a blue square." names the larger shape first, so that an image has one correct caption and exact
match is the measure. "A green cross." describes a single shape.
A scene is a function of (seed, index); nothing is stored. The two splits have no caption in common, but every colour,
shape, relation and combination of colour and shape occurs in the training captions.
"""

import functools
import itertools
import zlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw

from vit_jax import InputError

COLOURS = {
    "red": (215, 35, 35),
    "green": (40, 165, 60),
    "blue": (40, 80, 220),
    "yellow": (240, 215, 40),
    "purple": (140, 45, 175),
    "orange": (245, 135, 25),
}
SHAPES = ("circle", "square", "triangle", "cross")
RELATIONS = {  # (right, down): direction from the second shape to the first
    "above": (0, -1),
    "below": (0, 1),
    "left of": (-1, 0),
    "right of": (1, 0),
}
SPLITS = ("train", "val")
SIZE = 64  # pixels a side
SINGLE_RATE = 0.1  # fraction of scenes with one shape
HELD_OUT = 5  # one caption in this many is held out
SUPERSAMPLING = 4  # factor of the resolution that shapes are drawn at, for smooth edges


class SceneObject(NamedTuple):
    """A coloured shape."""

    colour: str
    shape: str


class SceneContent(NamedTuple):
    """The objects of a scene; a single shape has neither relation nor second object."""

    first: SceneObject
    relation: str | None = None
    second: SceneObject | None = None

    @property
    def caption(self) -> str:
        """The correct caption."""
        words = f"{_article(self.first.colour)} {self.first.colour} {self.first.shape}"
        if self.second is not None:
            words += f" {self.relation} {_article(self.second.colour)} {self.second.colour} {self.second.shape}"
        return words[0].upper() + words[1:] + "."

    @property
    def nouns(self) -> tuple[int, ...]:
        """Positions of the shapes' names among the words of the caption, from 0."""
        if self.relation is None:
            return (2,)
        return 2, 5 + len(self.relation.split())


@dataclass(frozen=True)
class Scene:
    """An image with its caption and the region of each object.

    image:    RGB, 8 bits.
    regions:  the visible pixels of each shape, by the position of its noun in `caption.split()`, from 0. These are
              also the positions in Tokenizer.words, which splits off nothing but the full stop.
    """

    image: UInt8[np.ndarray, "h w 3"]
    caption: str
    regions: dict[int, Bool[np.ndarray, "h w"]]


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


@functools.cache
def contents(split: str) -> tuple[tuple[SceneContent, ...], tuple[SceneContent, ...]]:
    """List the possible contents of a split's scenes: (single shapes, pairs of different shapes).

    Raises InputError for an unknown split.
    """
    if split not in SPLITS:
        raise InputError(f"scenes have no split {split!r}: one of {', '.join(SPLITS)}")
    objects = [SceneObject(colour, shape) for colour in COLOURS for shape in SHAPES]
    single = [SceneContent(item) for item in objects]
    pairs = [SceneContent(a, name, b) for a, name, b in itertools.product(objects, RELATIONS, objects) if a != b]
    return tuple(c for c in single if _is_in(c, split)), tuple(c for c in pairs if _is_in(c, split))


def _is_in(content: SceneContent, split: str) -> bool:
    held_out = zlib.crc32(content.caption.encode()) % HELD_OUT == 0  # stable across machines and versions
    return held_out == (split == "val")


def scene_captions(split: str) -> list[str]:
    """List the captions of a split, each once."""
    return [content.caption for kind in contents(split) for content in kind]


def make_scene(seed: int, index: int, *, split: str = "train", size: int = SIZE) -> Scene:
    """Return scene number `index` of the endless sequence of a seed; size: pixels per side, 32 or more.

    Raises InputError for an unknown split, a negative seed or index, and a size below 32.
    """
    if seed < 0 or index < 0:
        raise InputError(f"the seed and index of a scene are 0 or more, not {seed} and {index}")
    if size < 32:
        raise InputError(f"scenes have 32 pixels per side or more, not {size}")
    single, pairs = contents(split)
    rng = np.random.default_rng([seed, index, SPLITS.index(split)])
    choices = single if rng.uniform() < SINGLE_RATE else pairs
    content = choices[rng.integers(len(choices))]
    objects = [item for item in (content.first, content.second) if item is not None]
    image = np.full((size, size, 3), rng.uniform(200, 255)) + rng.normal(0, 4, (size, size, 1))
    regions = {}
    for item, noun, (x, y, radius) in zip(objects, content.nouns, _arrange(content, rng), strict=True):
        cover = coverage(item.shape, x * size, y * size, radius * size, size)[..., None]
        colour = np.array(COLOURS[item.colour]) + rng.uniform(-12, 12, 3)
        image = image * (1 - cover) + colour[None, None] * cover
        regions[noun] = cover[..., 0] >= 0.5
    return Scene(image.round().clip(0, 255).astype(np.uint8), content.caption, regions)


def _arrange(content: SceneContent, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Draw each shape's (x, y, radius) in units of the image side: inside the image, disjoint, roughly aligned."""
    if content.relation is None:
        radius = rng.uniform(0.12, 0.24)
        x, y = rng.uniform(radius + 0.02, 0.98 - radius, 2)
        return [(x, y, radius)]
    large, small = rng.uniform(0.18, 0.22), rng.uniform(0.1, 0.12)
    distance = large + small + rng.uniform(0.03, 0.96 - 2 * (large + small))
    shift = rng.uniform(-0.12, 0.12)
    right, down = RELATIONS[content.relation]
    # From the centre of the second shape to that of the first.
    offset = np.array([distance * right + shift * abs(down), distance * down + shift * abs(right)])
    # The range of the second centre that keeps both shapes inside the image.
    low = np.maximum(0.02 + small, 0.02 + large - offset)
    high = np.minimum(0.98 - small, 0.98 - large - offset)
    x, y = rng.uniform(low, high)
    return [(x + offset[0], y + offset[1], large), (x, y, small)]


def coverage(shape: str, x: float, y: float, radius: float, size: int) -> Float[np.ndarray, "h w"]:
    """Return the fraction of each pixel that a shape covers; centre and radius (half of its box) in pixels."""
    canvas = Image.new("L", (SUPERSAMPLING * size, SUPERSAMPLING * size))
    draw = ImageDraw.Draw(canvas)
    for outline in _outlines(shape):
        draw.polygon(
            [(SUPERSAMPLING * (x + radius * u), SUPERSAMPLING * (y + radius * v)) for u, v in outline], fill=255
        )
    return np.asarray(canvas.reduce(SUPERSAMPLING), np.float64) / 255


@functools.cache
def _outlines(shape: str) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Return a shape as polygons within [-1, 1], y downward; areas from 1.7 to 2.3, so that radii decide the size."""
    if shape == "circle":
        angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        return (tuple((0.82 * float(np.cos(angle)), 0.82 * float(np.sin(angle))) for angle in angles),)
    if shape == "square":
        return (_box(0.75, 0.75),)
    if shape == "triangle":
        return (((0.0, -1.0), (1.0, 0.73), (-1.0, 0.73)),)
    return _box(0.95, 0.36), _box(0.36, 0.95)


def _box(x: float, y: float) -> tuple[tuple[float, float], ...]:
    return (-x, -y), (x, -y), (x, y), (-x, y)
