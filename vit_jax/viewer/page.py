"""A page in which a model's attention to pictures is explored by hand: one HTML file that needs no network."""

import html
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from vit_jax.channels import Picture, shown, to_rgb
from vit_jax.classes import find_class, name_class
from vit_jax.config import ViTConfig
from vit_jax.errors import InputError
from vit_jax.explain.methods import MethodOptions
from vit_jax.files import atomic_write, printable_name
from vit_jax.model import VisionTransformer
from vit_jax.outputs import check_apart, check_out_folder
from vit_jax.pipeline import Images, Pipeline, list_images, open_pictures
from vit_jax.viewer.budget import store_layers
from vit_jax.viewer.bundle import assemble
from vit_jax.viewer.coding import encode_arrays
from vit_jax.viewer.layers import factor_layers, measure_errors, read_biases, run_picture
from vit_jax.viewer.maps import MapMaker, compute_maps, make_maps
from vit_jax.viewer.pictures import encode_colours, encode_picture

MAX_BYTES = 3_000_000  # of a page with one picture
COMMON_BYTES = 100_000  # reserved of it for the script, the markup and the names
PAGE_BYTES = 40_000_000  # of a page with several pictures: larger ones open slowly
TOP_CLASSES, MAP_CLASSES = 5, 3  # the most probable classes: listed, and explained by default
FRAME_HEIGHT = 860  # pixels of the page in a notebook


@dataclass(frozen=True, eq=False)
class Page:
    """A page, as text. In a notebook it shows itself, in a frame that is isolated from the notebook.

    html:  the file.
    error: the largest difference of an attention weight in the page from the model's own.
    """

    html: str = field(repr=False)
    error: float

    @property
    def num_bytes(self) -> int:
        """The size of the file."""
        return len(self.html.encode())

    def save(self, path: str | os.PathLike) -> None:
        """Write the page to a file, completely or not at all."""
        Path(path).absolute().parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            Path(temporary).write_text(self.html, encoding="utf-8")

    def _repr_html_(self) -> str:
        """Return the page in a frame of its own."""
        source = html.escape(self.html)
        return (
            f'<iframe title="Attention viewer" sandbox="allow-scripts allow-downloads" srcdoc="{source}" '
            f'style="width: 100%; height: {FRAME_HEIGHT}px; border: 0"></iframe>'
        )


class _Request(NamedTuple):
    """What a page shows of each picture. targets: the classes, None for the most probable ones."""

    pipeline: Pipeline
    maps: MapMaker
    targets: list[int] | None
    max_bytes: int | None


def show(
    model: VisionTransformer | Pipeline,
    images: Images,
    *,
    methods: Sequence[str] | None = None,
    targets: Sequence[str | int] | None = None,
    options: MethodOptions = MethodOptions(),  # noqa: B008  it is frozen
    title: str = "",
    max_bytes: int = MAX_BYTES,
    full: bool = False,
) -> Page:
    """Return the page of pictures; in a notebook it shows itself.

    model:   a Pipeline's class names are those of the page.
    images:  as Pipeline takes them.
    methods: the explanation maps, names in vit_jax.explain.METHODS; None for attention, rollout and relevance as far as
             the model can run them.
    targets: the classes to explain, by name or index; None for each picture's most probable ones.
    options: of the methods.
    title:   of the page; by default what kind of model it is.
    max_bytes: of a page with one picture; each further one takes as much. Precision is reduced first, and then layers
             are left out (vit_jax.viewer.budget).
    full:    store every layer with the least error that show() aims at, whatever the size.

    Raises InputError for an unknown method or class, a method that the model cannot run, an image that cannot be read,
    and for more pictures than one page can hold.
    """
    pipeline = model if isinstance(model, Pipeline) else Pipeline(model)
    config, items = pipeline.model.config, list_images(images)
    maps = make_maps(pipeline.model, pipeline.class_names, methods, options)
    described = _describe_model(pipeline.model)
    left = None if full else max_bytes - COMMON_BYTES - _count_bytes(described)
    request = _Request(pipeline, maps, _find_targets(pipeline, targets), left)
    pictures: list[dict[str, Any]] = []
    for name, picture in open_pictures(items, config):
        pictures.append(_describe_picture(request, name, picture))
        _check_size(pictures, len(items))
    heading = title or f"Vision transformer, {config.depth} layers of {config.num_heads} heads"
    data = described | {"title": heading, "pictures": pictures}
    return Page(assemble(heading, data), max(each["error"] for each in pictures))


def write_page(path: str | os.PathLike, model: VisionTransformer | Pipeline, images: Images, **options: Any) -> Page:
    """Write the page of pictures to an HTML file. Return it; page.num_bytes is its size.

    options: those of show(). Raises InputError as show() does, for a path that would replace one of the images, and for
    a folder.
    """
    target = Path(path)
    check_page_path(target, [item for item in list_images(images) if isinstance(item, Path)])
    page = show(model, images, **options)
    page.save(target)
    return page


def check_page_path(path: Path, inputs: Iterable[str | os.PathLike]) -> None:
    """Raise InputError for a path that is a folder, lies below a file, or would replace an input."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name an .html file")
    check_out_folder(path.absolute().parent)
    check_apart([path], inputs)


def _find_targets(pipeline: Pipeline, targets: Sequence[str | int] | None) -> list[int] | None:
    if targets is None:
        return None
    num_classes = pipeline.model.config.num_classes
    if targets and not num_classes:
        raise InputError("the model has no classification head, and so no classes; leave the targets out")
    return list(dict.fromkeys(find_class(target, pipeline.class_names, num_classes) for target in targets))


def _check_size(pictures: Sequence[dict[str, Any]], count: int) -> None:
    """Raise InputError as soon as the pictures so far let the whole page exceed PAGE_BYTES."""
    size = sum(_count_bytes(picture) for picture in pictures)
    if size * count > PAGE_BYTES * len(pictures) and count > 1:
        most = max(1, PAGE_BYTES * len(pictures) // size)
        raise InputError(
            f"{count} pictures take about {size * count / len(pictures) / 1e6:.0f} MB, too much for one page; "
            f"give at most {most} at a time"
        )


def _count_bytes(value: Any) -> int:
    """Return the number of letters of all texts in nested lists and dictionaries."""
    if isinstance(value, dict):
        return sum(_count_bytes(each) for each in value.values())
    if isinstance(value, list):
        return sum(_count_bytes(each) for each in value)
    return len(value) if isinstance(value, str) else 0


def _describe_model(model: VisionTransformer) -> dict[str, Any]:
    """Return what the page knows of a model; static/types.js describes it."""
    config = model.config
    return {
        "kind": "vision",
        "description": config.describe(),
        "depth": config.depth,
        "heads": config.num_heads,
        "biases": [encode_arrays({"table": table}) for table in read_biases(model)],
        "colours": encode_colours(),
    }


def _name_prefix(config: ViTConfig) -> list[str]:
    """Return the names of the tokens before the patches."""
    names = ["[class]"] * config.class_token + ["[distillation]"] * config.distillation_token
    return names + [f"register {number}" for number in range(1, config.num_registers + 1)]


def _describe_picture(request: _Request, name: str, picture: Picture) -> dict[str, Any]:
    """Run the model on a picture and return what the page stores of it."""
    pipeline, model = request.pipeline, request.pipeline.model
    preprocess = model.config.image_preprocess
    pixels = preprocess.resize(picture)
    run = run_picture(model, pixels)
    order = np.argsort(-run.probabilities, kind="stable")
    targets = order[:MAP_CLASSES].tolist() if request.targets is None else request.targets
    maps = compute_maps(request.maps, pixels, targets, run.probabilities)
    image, (width, height) = encode_picture(preprocess.view(to_rgb(picture)))
    described = {
        "name": f"{printable_name(Path(name).name)}{shown(picture)}",
        "image": image,
        "width": width,
        "height": height,
        "rows": model.config.grid[0],
        "columns": model.config.grid[1],
        "prefix": _name_prefix(model.config),
        "predictions": _list_predictions(pipeline, run.probabilities),
        "maps": maps.described,
        "mapValues": encode_arrays(maps.arrays),
    }
    max_bytes = None if request.max_bytes is None else request.max_bytes - _count_bytes(described)
    stored = store_layers(factor_layers(model, run), max_bytes)
    errors = measure_errors(model, run, [each.layer for each in stored], [each.scores for each in stored])
    layers = [{"layer": each.layer, **each.encoded} for each in stored]
    return described | {"layers": layers, "error": max(errors)}


def _list_predictions(pipeline: Pipeline, values: Float[np.ndarray, " classes"]) -> list[tuple[str, float]]:
    order = np.argsort(-values, kind="stable")[:TOP_CLASSES].tolist()
    return [(name_class(label, pipeline.class_names), float(values[label])) for label in order]
