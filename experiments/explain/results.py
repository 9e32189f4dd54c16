"""Write the maps of images as figures and as arrays."""

import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common.pictures import ImagePath
from experiments.explain.explainer import Explainer
from experiments.explain.images import OpenedImage, open_images
from vit_jax import InputError
from vit_jax.data.batches import pad_batch_to
from vit_jax.explain import METHODS
from vit_jax.files import atomic_write
from vit_jax.plot import Panel, arrange_in_rows, plot_heads, plot_layers, plot_panels, save_figure
from vit_jax.progress import open_progress


def plot_results(explainer: Explainer, image: OpenedImage, results: dict[str, np.ndarray], title: str) -> Any:
    """Draw the image and the maps of all methods; class-specific methods get a panel per target."""
    shared = [name for name in explainer.methods if not METHODS[name].is_class_specific]
    specific = [name for name in explainer.methods if METHODS[name].is_class_specific]
    panels = [Panel(image.title, None), *(Panel(name, results[name][0]) for name in shared)]
    targets = results["targets"].tolist()
    if len(targets) == 1 or not specific:
        panels += [Panel(name, results[name][0]) for name in specific]
        return plot_panels(image.view, arrange_in_rows(panels), title=title)
    rows = arrange_in_rows(panels)
    labels = [f"{explainer.class_name(target)} {results['probabilities'][target]:.2f}" for target in targets]
    for name in specific:
        maps = zip(labels, results[name], strict=True)
        rows += arrange_in_rows([Panel(f"{name}\n{label}", heat) for label, heat in maps])
    return plot_panels(image.view, rows, title=title)


def write_results(explainer: Explainer, image: OpenedImage, results: dict[str, np.ndarray], out: Path) -> str:
    """Write an image's .png and .npz, and the .png of its heads and layers if requested. Return the figure's title."""
    predicted = int(results["probabilities"].argmax())
    title = f"{image.result.name}: {explainer.class_name(predicted)} {results['probabilities'][predicted]:.3f}"
    figures = {"": plot_results(explainer, image, results, title)}
    layer, head = explainer.options.layer, explainer.options.head
    if explainer.all_heads:
        label = f"{title}\nattention, layer {layer % len(explainer.model.blocks)}"
        figures["_heads"] = plot_heads(image.view, results["attention_heads"], title=label)
    if explainer.all_layers:
        label = f"{title}\nattention, {'mean over heads' if head is None else f'head {head}'}"
        figures["_layers"] = plot_layers(image.view, results["attention_layers"], title=label)
    base = out / image.result
    base.parent.mkdir(parents=True, exist_ok=True)
    for suffix, figure in figures.items():
        save_figure(figure, Path(f"{base}{suffix}.png"))
    names = np.array([explainer.class_name(label) for label in range(len(results["probabilities"]))])
    arrays: dict[str, Any] = {"predicted": predicted, "class_names": names, **results}
    with atomic_write(Path(f"{base}.npz")) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)
    return title


def _in_batches(images: Iterable[OpenedImage], batch_size: int) -> Iterator[list[OpenedImage]]:
    iterator = iter(images)
    while batch := list(itertools.islice(iterator, batch_size)):
        yield batch


def write_explanations(explainer: Explainer, paths: list[ImagePath], out: Path, batch_size: int) -> int:
    """Explain images in batches and return their number. Raises InputError when none can be read."""
    count = 0
    with open_progress(len(paths), unit="images") as progress:
        for batch in _in_batches(open_images(paths, explainer.model), batch_size):
            pixels = [image.pixels for image in batch]
            padded, _ = pad_batch_to(min(batch_size, len(paths)), pixels, np.zeros_like(pixels[0]))
            results = explainer.explain(np.stack(padded))
            for row, image in enumerate(batch):
                title = write_results(explainer, image, {name: value[row] for name, value in results.items()}, out)
                count += 1
                progress.write(f"{count}/{len(paths)} {title}")
                sys.stdout.flush()
                progress.update()
    if not count:
        raise InputError("none of the images can be read")
    return count
