"""A page in which captions are explored by hand: where each word attends to in the picture, by layer and head.

It is the viewer of vit_jax, with words in place of patches as the tokens that attend. Cross-attention is small, so the
weights themselves are stored.
"""

import os
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from caption.attention import content_size, group_word_maps
from caption.captioner import Captioner
from caption.model import CaptionTransformer, forward_with_attention
from caption.outputs import CaptionOutput
from vit_jax.channels import as_rgb
from vit_jax.files import printable_name
from vit_jax.pipeline import Images, list_images
from vit_jax.viewer import Page, check_page_path
from vit_jax.viewer.bundle import assemble
from vit_jax.viewer.coding import encode_arrays
from vit_jax.viewer.pictures import encode_colours, encode_picture

WEIGHT_STEPS = 65_535  # a weight of 1
ROUNDING = 0.5 / WEIGHT_STEPS


def show(captioner: Captioner, images: Images, *, title: str = "Captions") -> Page:
    """Return the page of pictures with their captions; in a notebook it shows itself.

    It has the words of each picture's best caption with their cross-attention in every layer and head, and all captions
    that the search returns with their log-probabilities.
    images: as vit_jax.Pipeline takes them. Raises InputError for an image that cannot be read.
    """
    config = captioner.model.config
    data = {
        "kind": "caption",
        "title": title,
        "description": f"decoder of {config.decoder_layers} layers, {config.num_heads} heads",
        "depth": config.decoder_layers,
        "heads": config.num_heads,
        "biases": [],
        "colours": encode_colours(),
        "pictures": [_describe_picture(captioner, item, index) for index, item in enumerate(list_images(images))],
    }
    return Page(assemble(title, data), ROUNDING)


def write_page(path: str | os.PathLike, captioner: Captioner, images: Images, *, title: str = "Captions") -> Page:
    """Write the page of show() to an HTML file, and return it.

    Raises InputError as show() does, for a path that would replace one of the images, and for a folder.
    """
    check_page_path(Path(path), [item for item in list_images(images) if isinstance(item, Path)])
    page = show(captioner, images, title=title)
    page.save(path)
    return page


def _describe_picture(captioner: Captioner, item: Any, index: int) -> dict[str, Any]:
    """Caption a picture and return what the page stores of it; vit_jax/viewer/static/types.js describes it."""
    is_file = isinstance(item, Path)
    background = captioner.model.config.image_preprocess.background
    prepared = captioner.prepare(captioner.open(item) if is_file else as_rgb(item, background=background))
    batch, generated = captioner.generate([prepared], 1)
    tokens, log_probs, lengths = (np.asarray(field)[0] for field in generated)
    words, weights = _attend(captioner, batch.images, batch.mask, tokens[0], int(lengths[0]))
    layers = [
        {"layer": layer, "weights": encode_arrays({"weights": np.round(WEIGHT_STEPS * rows).astype(np.uint16)})}
        for layer, rows in enumerate(weights.reshape(*weights.shape[:3], -1))
    ]
    image, (width, height) = encode_picture(Image.fromarray(prepared.shown))
    return {
        "name": printable_name(item.name) if is_file else f"image {index}",
        "image": image,
        "width": width,
        "height": height,
        "rows": weights.shape[-2],
        "columns": weights.shape[-1],
        "prefix": words,
        "predictions": [list(scored) for scored in captioner.decode(tokens, log_probs, lengths)],
        "layers": layers,
        "maps": [],
        "mapValues": encode_arrays({}),
        "error": ROUNDING,
    }


def _attend(
    captioner: Captioner, images: Any, mask: Any, tokens: Int[np.ndarray, " t"], length: int
) -> tuple[list[str], Float[np.ndarray, "layers heads words gh gw"]]:
    """Return the words of a caption, and their cross-attention."""
    is_text = np.arange(len(tokens))[None] < length
    output = _cross_attention(captioner.model, images, mask, tokens[None], is_text)
    rows = np.asarray(output.cross_attention[:, 0], np.float32)
    group = partial(
        group_word_maps,
        tokens=tokens[:length].tolist(),
        tokenizer=captioner.tokenizer,
        grid=output.grid,
        content=content_size(mask[0], output.grid),
    )
    maps = [[group(head) for head in layer] for layer in rows]
    return [word for word, _ in maps[0][0]], np.array(
        [[[heat for _, heat in head] for head in layer] for layer in maps]
    )


@jax.jit
def _cross_attention(model: CaptionTransformer, images: Any, mask: Any, tokens: Any, is_text: Any) -> CaptionOutput:
    """Run forward_with_attention, and keep the cross-attention alone."""
    output = forward_with_attention(model, images, mask, tokens, is_text)
    return output._replace(
        logits=output.logits[..., :0],
        decoder_attention=output.decoder_attention[:0],
        encoder_attention=output.encoder_attention[:0],
    )
