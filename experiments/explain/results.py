"""Write the maps of images as figures and as arrays."""

import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common.pictures import ImagePath
from experiments.explain.explainer import Explainer
from experiments.explain.figures import MAX_LABELS, draw_figures, figure_ends
from experiments.explain.finished import hash_settings, is_finished, stored_state
from experiments.explain.images import OpenedImage, open_images
from vit_jax.data.batches import pad_batch_to
from vit_jax.explain import HEAD_METHODS, METHODS, uninformative_reason
from vit_jax.files import atomic_write
from vit_jax.notes import is_quiet, note
from vit_jax.plot import FigureFormat, MapFigureOptions, save_figure
from vit_jax.prediction import predicted_labels
from vit_jax.progress import open_progress


def result_ends(figures: FigureFormat, **options: Any) -> list[str]:
    """Return the ends of the names of an image's results. options: those of figure_ends."""
    ends = figure_ends(**options)
    return [".npz", *(f"{end}{figures.suffix}" for end in ends)]


def list_uninformative(explainer: Explainer, results: dict[str, np.ndarray]) -> list[str]:
    """Return a line for every map of an image that carries no information, as "gradcam of cat: all zero"."""
    maps: list[tuple[str, np.ndarray]] = []
    for name in explainer.methods:
        if METHODS[name].is_class_specific:
            labels = [explainer.class_name(target) for target in results["targets"].tolist()]
            maps += [(f"{name} of {label}", heat) for label, heat in zip(labels, results[name], strict=True)]
        else:
            maps.append((name, results[name][0]))
    for name in explainer.head_methods:
        maps += [(name, table) for table in results[name][: None if HEAD_METHODS[name].is_class_specific else 1]]
    for kind in ("head", "layer"):
        maps += [(f"attention of {kind} {i}", heat) for i, heat in enumerate(results.get(f"attention_{kind}s", ()))]
    return [f"{name}: {reason}" for name, heat in maps if (reason := uninformative_reason(heat))]


def describe_prediction(explainer: Explainer, results: dict[str, np.ndarray]) -> tuple[str, dict[str, Any]]:
    """Return ": CLASS PROBABILITY" of the predicted class, and arrays to store; nothing for a model without a head.

    Of a multi-label model the text has the labels of the image, at most MAX_LABELS, or else the most probable one.
    """
    if not explainer.has_classes:
        return "", {}
    probabilities = results["probabilities"]
    predicted = int(probabilities.argmax())
    names = np.array([explainer.class_name(label) for label in range(len(probabilities))])
    labels = predicted_labels(explainer.model.config, probabilities) or [predicted]
    shown = [f"{explainer.class_name(label)} {probabilities[label]:.3f}" for label in labels[:MAX_LABELS]]
    title = f": {', '.join(shown)}{', ...' if len(labels) > MAX_LABELS else ''}"
    return title, {"predicted": predicted, "class_names": names}


def write_results(
    explainer: Explainer,
    image: OpenedImage,
    results: dict[str, np.ndarray],
    out: Path,
    settings: str,
    options: MapFigureOptions,
) -> list[str]:
    """Write an image's figures, and then its .npz.

    settings: see hash_settings. Return a line on the prediction, and a warning for each map without information.
    """
    prediction, arrays = describe_prediction(explainer, results)
    figures = draw_figures(explainer, image, results, options.scale)
    base = out / image.result
    base.parent.mkdir(parents=True, exist_ok=True)
    for end, figure in figures.items():
        save_figure(figure, f"{base}{end}{options.suffix}", dpi=options.dpi)
    uninformative = list_uninformative(explainer, results)
    arrays |= results | {"no_information": np.array(uninformative, np.str_)} | stored_state(settings, image.source)
    with atomic_write(Path(f"{base}.npz")) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)
    return [f"{image.result.name}{prediction}", *(f"  no information in {line}" for line in uninformative)]


def _in_batches(images: Iterable[OpenedImage], batch_size: int) -> Iterator[list[OpenedImage]]:
    iterator = iter(images)
    while batch := list(itertools.islice(iterator, batch_size)):
        yield batch


def write_explanations(
    explainer: Explainer, paths: list[ImagePath], out: Path, batch_size: int, options: MapFigureOptions
) -> int:
    """Explain the images without results of these settings, in batches. Return the number of images with results."""
    settings, count = hash_settings(explainer, options), 0
    ends = result_ends(
        options,
        maps=bool(explainer.methods),
        head_methods=explainer.head_methods,
        all_heads=explainer.all_heads,
        all_layers=explainer.all_layers,
    )
    pending = [path for path in paths if not is_finished(path, out, ends, settings)]
    finished = len(paths) - len(pending)
    if finished:
        note(f"{finished} of {len(paths)} are done already", file=sys.stderr)
    with open_progress(len(pending), unit="images") as progress:
        for batch in _in_batches(open_images(pending, explainer.model), batch_size):
            pixels = [image.pixels for image in batch]
            padded, _ = pad_batch_to(min(batch_size, len(pending)), pixels, np.zeros_like(pixels[0]))
            results = explainer.explain(np.stack(padded))
            for row, image in enumerate(batch):
                arrays = {name: value[row] for name, value in results.items()}
                prediction, *warnings = write_results(explainer, image, arrays, out, settings, options)
                count += 1
                if warnings or not is_quiet():
                    progress.write("\n".join([f"{count}/{len(pending)} {prediction}", *warnings]))
                sys.stdout.flush()
                progress.update()
    return finished + count
