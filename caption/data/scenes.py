"""Made scenes: coloured shapes whose caption follows from the picture, and the pixels of everything it names.

"A red circle above a blue square." The larger of two shapes comes first, and where it lies is told of it, so that
there is one right caption for a picture and exact match is the measure. A shape alone is "A green cross."
A scene is a function of (seed, index); nothing is stored. Captions are held out as wholes: the two splits have no
caption in common, though every colour, shape, relation and pair of colour and shape is in the training captions.
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
RELATIONS = {  # (across, down): where the first shape lies from the second
    "above": (0, -1),
    "below": (0, 1),
    "left of": (-1, 0),
    "right of": (1, 0),
}
SPLITS = ("train", "val")
SIZE = 64  # pixels a side
ALONE = 0.1  # the share of scenes with one shape
HELD_OUT = 5  # one caption of so many is held out
FINER = 4  # shapes are drawn at so many times the size, for smooth edges


class SceneObject(NamedTuple):
    """A coloured shape, as a caption names it."""

    colour: str
    shape: str


class SceneContent(NamedTuple):
    """What a scene shows and its caption says; a shape alone has no relation and no second."""

    first: SceneObject
    relation: str | None = None
    second: SceneObject | None = None

    @property
    def caption(self) -> str:
        """The one right caption."""
        words = f"{_article(self.first.colour)} {self.first.colour} {self.first.shape}"
        if self.second is not None:
            words += f" {self.relation} {_article(self.second.colour)} {self.second.colour} {self.second.shape}"
        return words[0].upper() + words[1:] + "."

    @property
    def nouns(self) -> tuple[int, ...]:
        """Where the shapes' names stand among the caption's words, from 0."""
        if self.relation is None:
            return (2,)
        return 2, 5 + len(self.relation.split())


@dataclass(frozen=True)
class Scene:
    """A picture and what is true of it.

    image:    RGB, 8 bits.
    regions:  the visible pixels of each shape, by its noun's place among `caption.split()`, from 0. Tokenizer.words
              counts the same way: it cuts off nothing but the full stop.
    """

    image: UInt8[np.ndarray, "h w 3"]
    caption: str
    regions: dict[int, Bool[np.ndarray, "h w"]]


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


@functools.cache
def contents(split: str) -> tuple[tuple[SceneContent, ...], tuple[SceneContent, ...]]:
    """Everything that a split's scenes may show: shapes alone, and two shapes. Shapes of a pair are never alike.

    Raises InputError for a split that there is not.
    """
    if split not in SPLITS:
        raise InputError(f"made scenes have no split {split!r}: one of {', '.join(SPLITS)}")
    things = [SceneObject(colour, shape) for colour in COLOURS for shape in SHAPES]
    alone = [SceneContent(thing) for thing in things]
    pairs = [SceneContent(a, relation, b) for a, relation, b in itertools.product(things, RELATIONS, things) if a != b]
    return tuple(c for c in alone if _in(c, split)), tuple(c for c in pairs if _in(c, split))


def _in(content: SceneContent, split: str) -> bool:
    held_out = zlib.crc32(content.caption.encode()) % HELD_OUT == 0  # the same on every machine and in every version
    return held_out == (split == "val")


def scene_captions(split: str) -> list[str]:
    """Every caption of a split, once."""
    return [content.caption for kind in contents(split) for content in kind]


def make_scene(seed: int, index: int, *, split: str = "train", size: int = SIZE) -> Scene:
    """Scene number `index` of the seed's endless row: the same on every call, `size` pixels a side (32 or more).

    Raises InputError for a split that there is not, a negative seed or index, and a size too small to see shapes.
    """
    if seed < 0 or index < 0:
        raise InputError(f"a scene's seed and index are 0 or more, not {seed} and {index}")
    if size < 32:
        raise InputError(f"scenes are 32 pixels a side or more, not {size}")
    alone, pairs = contents(split)
    rng = np.random.default_rng([seed, index, SPLITS.index(split)])
    kind = alone if rng.uniform() < ALONE else pairs
    content = kind[rng.integers(len(kind))]
    things = [thing for thing in (content.first, content.second) if thing is not None]
    image = np.full((size, size, 3), rng.uniform(200, 255)) + rng.normal(0, 4, (size, size, 1))
    regions = {}
    for thing, noun, (x, y, radius) in zip(things, content.nouns, _places(content, rng), strict=True):
        cover = coverage(thing.shape, x * size, y * size, radius * size, size)[..., None]
        colour = np.array(COLOURS[thing.colour]) + rng.uniform(-12, 12, 3)
        image = image * (1 - cover) + colour[None, None] * cover
        regions[noun] = cover[..., 0] >= 0.5
    return Scene(image.round().clip(0, 255).astype(np.uint8), content.caption, regions)


def _places(content: SceneContent, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Each shape's (x, y, radius) in units of the picture's side: whole within it, apart, and on one line but a bit."""
    if content.relation is None:
        radius = rng.uniform(0.12, 0.24)
        x, y = rng.uniform(radius + 0.02, 0.98 - radius, 2)
        return [(x, y, radius)]
    large, small = rng.uniform(0.18, 0.22), rng.uniform(0.1, 0.12)
    apart = large + small + rng.uniform(0.03, 0.96 - 2 * (large + small))
    aside = rng.uniform(-0.12, 0.12)
    across, down = RELATIONS[content.relation]
    away = np.array([apart * across + aside * abs(down), apart * down + aside * abs(across)])  # from second to first
    # Anywhere that leaves both whole: each axis bounds the second's centre by both shapes.
    low = np.maximum(0.02 + small, 0.02 + large - away)
    high = np.minimum(0.98 - small, 0.98 - large - away)
    x, y = rng.uniform(low, high)
    return [(x + away[0], y + away[1], large), (x, y, small)]


def coverage(shape: str, x: float, y: float, radius: float, size: int) -> Float[np.ndarray, "h w"]:
    """The share of each pixel that a shape covers, in [0, 1]; centre and radius (half its box) in pixels."""
    canvas = Image.new("L", (FINER * size, FINER * size))
    draw = ImageDraw.Draw(canvas)
    for outline in _outlines(shape):
        draw.polygon([(FINER * (x + radius * u), FINER * (y + radius * v)) for u, v in outline], fill=255)
    return np.asarray(canvas.reduce(FINER), np.float64) / 255


@functools.cache
def _outlines(shape: str) -> tuple[tuple[tuple[float, float], ...], ...]:
    """A shape as polygons within [-1, 1], y downward; areas from 1.7 to 2.3, so that large and small stay apart."""
    if shape == "circle":
        angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        return (tuple((0.82 * float(np.cos(angle)), 0.82 * float(np.sin(angle))) for angle in angles),)
    if shape == "square":
        return (_box(0.75, 0.75),)
    if shape == "triangle":
        return (((0.0, -1.0), (1.0, 0.73), (-1.0, 0.73)),)
    return _box(0.95, 0.36), _box(0.36, 0.95)


def _box(across: float, down: float) -> tuple[tuple[float, float], ...]:
    return (-across, -down), (across, -down), (across, down), (-across, down)
