"""Transparent images on a background colour, which is a part of a model's preprocessing."""

from PIL import Image, ImageColor

from vit_jax.errors import InputError

WHITE = "#ffffff"


def parse_colour(colour: str) -> str:
    """Return a colour, given by a name or in a notation of CSS, as #rrggbb. Raises InputError for any other text."""
    try:
        channels = list(ImageColor.getrgb(colour))
    except ValueError:
        channels = []
    if len(channels) != 3:  # no colour, or one with alpha
        raise InputError(f"background {colour!r}: not a colour; give a name, such as white, or #rrggbb")
    return "#" + bytes(channels).hex()


def compose(image: Image.Image, background: str = WHITE) -> Image.Image:
    """Return an image without transparency: itself if it has none, else RGB, composed on a background colour."""
    if not image.has_transparency_data:
        return image
    canvas = Image.new("RGBA", image.size, background)
    return Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")
