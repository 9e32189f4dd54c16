"""Make the pictures of gallery.md: python docs/make_gallery.py RUN BACKBONE.

RUN is the folder of the digits run (`python -m experiments.finetune`), BACKBONE a checkpoint without a head, in any
layout that weights_convert reads. The photograph is china.jpg of scikit-learn. The viewer's picture needs Chromium.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

import vit_jax
import weights_convert
from vit_jax.data import open_rgb
from vit_jax.explain import METHODS, MethodOptions, compile_method, head_attention, to_grid
from vit_jax.plot import (
    Panel,
    plot_classes,
    plot_heads,
    plot_layers,
    plot_methods,
    plot_panels,
    plot_position_similarity,
    save_figure,
)
from vit_jax.viewer import write_page

DOCS = Path(__file__).parent
GALLERY = DOCS / "gallery"
DIGIT, CLASSES = DOCS / "digits/8.png", (3, 8)
TOWER, SKY = (20, 11), (3, 22)  # patches of the photograph, (row, column)
PAGE_SIZE, PAGE_BYTES = (140, 210), 1_000_000  # pixels (height, width) of the model's input; of the viewer's page
VIEW = "token=70&pinned=1"  # a patch of the sky, as the address of the page says it


def draw_photograph(backbone: vit_jax.VisionTransformer) -> Any:
    """Draw where each head of the last layer attends in a photograph, at twice the backbone's image size."""
    model = vit_jax.with_image_size(backbone, tuple(2 * side for side in backbone.config.image_size))
    picture = Image.fromarray(load_sample_image("china.jpg"))
    images = model.config.image_preprocess(picture)[None]
    maps = to_grid(head_attention(model, images, -1)[0], model.config.grid)
    # A few patches collect attention whatever they show; without a bound, the rest of the map would be dark.
    bounds = np.quantile(np.asarray(maps), 0.995, axis=(1, 2), keepdims=True)
    return plot_heads(model.config.image_preprocess.view(picture), np.minimum(maps, bounds))


def draw_features(backbone: vit_jax.VisionTransformer) -> Any:
    """Draw what the features say of the photograph's patches, at twice the backbone's image size."""
    model = vit_jax.with_image_size(backbone, tuple(2 * side for side in backbone.config.image_size))
    picture = Image.fromarray(load_sample_image("china.jpg"))
    images, targets = model.config.image_preprocess(picture)[None], jnp.zeros((1, 1), int)
    panels = [Panel("image", None)]
    for title, name, patches in (
        ("PCA", "pca", ()),
        ("similarity to the tower", "similarity", (TOWER,)),
        ("similarity to the sky", "similarity", (SKY,)),
        ("token norm", "token_norm", ()),
    ):
        heat = np.asarray(compile_method(name, MethodOptions(patches=patches))(model, images, targets)[0, 0])
        panels.append(Panel(title, heat, METHODS[name].label, marks=patches))
    return plot_panels(model.config.image_preprocess.view(picture), [panels])


def write_viewer(backbone: vit_jax.VisionTransformer) -> None:
    """Write the viewer's page of the photograph, and a picture of it."""
    model, page = vit_jax.with_image_size(backbone, PAGE_SIZE), GALLERY / "attention.html"
    photograph = load_sample_image("china.jpg")
    methods = ("pca", "rollout", "attention", "token_norm")
    write_page(page, model, photograph, methods=methods, title="DINOv2-small", max_bytes=PAGE_BYTES)
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder, "shot.png")
        flags = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={folder}"]
        command = ["chromium", *flags, "--window-size=1280,900", "--virtual-time-budget=5000", f"--screenshot={shot}"]
        subprocess.run([*command, f"{page.as_uri()}#{VIEW}"], check=True, capture_output=True)
        picture = Image.open(shot).convert("RGB")
        few_colours = picture.quantize(palette=picture.quantize(256), dither=Image.Dither.FLOYDSTEINBERG)
        few_colours.save(GALLERY / "viewer.png", optimize=True)


def compute_maps(model: vit_jax.VisionTransformer, method: str, images: Any) -> np.ndarray:
    """Return a method's maps [K, gh, gw] of the digit for CLASSES."""
    return np.asarray(compile_method(method, MethodOptions())(model, images, jnp.array([CLASSES]))[0])


def draw_digit(model: vit_jax.VisionTransformer) -> dict[str, Any]:
    """Draw an 8: the methods of class 8 and of attention, relevance for both classes, every layer's attention."""
    picture = open_rgb(DIGIT)
    images = model.config.image_preprocess(picture)[None]
    shown = model.config.image_preprocess.view(picture)
    names = [name for name, method in METHODS.items() if method.is_class_specific or method.uses_readout]
    methods = {METHODS[name].title: compute_maps(model, name, images)[1] for name in names}
    signed = tuple(method.title for method in METHODS.values() if method.is_signed)
    classes = dict(zip(map(str, CLASSES), compute_maps(model, "relevance", images), strict=True))
    layers = [head_attention(model, images, layer)[0].mean(0) for layer in range(model.config.depth)]
    return {
        "methods": plot_methods(shown, methods, signed=signed),
        "classes": plot_classes(shown, {f"relevance for {name}": heat for name, heat in classes.items()}),
        "layers": plot_layers(shown, to_grid(jnp.stack(layers), model.config.grid)),
    }


def main() -> int:
    """Write every picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("backbone")
    args = parser.parse_args()
    GALLERY.mkdir(exist_ok=True)
    backbone = weights_convert.convert(args.backbone)
    write_viewer(backbone)
    save_figure(draw_photograph(backbone), GALLERY / "photograph.png", dpi=110)
    save_figure(draw_features(backbone), GALLERY / "features.png", dpi=110)
    positions = plot_position_similarity(vit_jax.position_similarity(backbone))
    save_figure(positions, GALLERY / "positions.png", dpi=110)
    for name, figure in draw_digit(vit_jax.load(Path(args.run) / "best")).items():
        save_figure(figure, GALLERY / f"{name}.png", dpi=110)
    return 0


if __name__ == "__main__":
    sys.exit(main())
