"""Open images for a model, together with what the model sees of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from experiments.common.pictures import ImagePath
from experiments.common.sources import Source, read_source
from vit_jax import VisionTransformer
from vit_jax.channels import shown, to_rgb
from vit_jax.data.decode import CorruptImageError, open_model_picture
from vit_jax.data.reading import handle_corrupt

MIN_SIDE, MAX_SIDE = 240, 480  # pixels of a figure's image, longer side; a panel has about 300


class OpenedImage(NamedTuple):
    """An image ready for the model.

    result: name of its results below --out
    name:   of its file, for titles
    pixels: the model's input before normalisation, uint8 [h, w, c]
    view:   the region that the model sees, RGB in [0, 1], with the image's aspect ratio
    title:  of the view in a figure; says which bands it shows if not all
    source: the state of the file
    """

    result: Path
    name: str
    pixels: np.ndarray
    view: np.ndarray
    title: str
    source: Source


def open_images(paths: list[ImagePath], model: VisionTransformer) -> Iterator[OpenedImage]:
    """Yield the images. Raises CorruptImageError for a corrupt named file; skips and reports one in a folder.

    Raises InputError for one whose channels do not fit the model.
    """
    preprocess = model.config.image_preprocess
    for path in paths:
        try:
            picture = open_model_picture(path.file, model.config.preprocess)
            source = read_source(path.file)
        except CorruptImageError as error:
            handle_corrupt(error, "raise" if path.is_named else "skip")
            continue
        view = np.asarray(_resize_for_figure(preprocess.view(to_rgb(picture))), np.float32) / 255
        pixels, title = preprocess.resize(picture), f"image{shown(picture)}"
        yield OpenedImage(path.result, path.file.name, pixels, view, title, source)


def _resize_for_figure(image: Image.Image) -> Image.Image:
    """Resize the longer side to at least MIN_SIDE and at most MAX_SIDE pixels."""
    longer = max(image.size)
    scale = min(max(longer, MIN_SIDE), MAX_SIDE) / longer
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)
