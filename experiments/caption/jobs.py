"""Caption many pictures: decode ahead in threads, caption in batches, write figures and records."""

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from caption.captioner import Captioner, CaptionResult, PreparedImage
from caption.plot import plot_caption
from caption.word_maps import MapOptions
from experiments.caption.records import Records
from experiments.common.sources import Source, read_source
from vit_jax import InputError
from vit_jax.data.decode import CorruptImageError
from vit_jax.data.reading import OnCorrupt, read_each
from vit_jax.notes import is_quiet
from vit_jax.plot import MapFigureOptions, Panel, format_map_title, plot_panels, save_figure
from vit_jax.progress import open_progress


class CaptionJob(NamedTuple):
    """A picture to caption.

    name:   the path as given on the command line
    figure: path of the figure below the output folder, "" for none
    """

    file: Path
    name: str
    figure: str


class OpenedImage(NamedTuple):
    """A job with its decoded picture, and the state of the file that it was read from."""

    job: CaptionJob
    image: PreparedImage
    source: Source


def caption_images(
    captioner: Captioner,
    jobs: list[CaptionJob],
    records: Records,
    batch_size: int,
    on_corrupt: OnCorrupt,
    figures: MapFigureOptions,
) -> int:
    """Caption the pictures in batches; return how many could be read. Finished pictures stay when an error ends it.

    on_corrupt: "skip" reports unreadable pictures and continues; with "raise" the first one raises CorruptImageError.
    """
    done = 0
    size = min(batch_size, len(jobs))
    config = captioner.model.config
    maps = None if captioner.maps is None else captioner.maps.resolve(config.decoder_layers, config.num_heads)
    try:
        with open_progress(len(jobs), unit="images") as progress:
            for batch in _batch(_open_images(captioner, jobs, size, on_corrupt), size):
                results = captioner([opened.image for opened in batch], size)
                for opened, result in zip(batch, results, strict=True):
                    _write(opened, result, records, maps, figures)
                    done += 1
                    if not is_quiet():
                        progress.write(f"{done}/{len(jobs)} {opened.job.name}: {result.captions[0].caption}")
                    sys.stdout.flush()
                records.save(now=False)
                progress.update(len(batch))
    finally:
        if done:
            records.save()
    return done


def plot_result(shown: np.ndarray, result: CaptionResult, maps: MapOptions, *, scale: str = "own") -> Any:
    """Return the figure: the picture with its caption and a panel per word; the picture alone without words.

    The title names the layer and the head of the maps where they are not the last layer and the mean over heads.
    scale: of the colours; see plot_panels.
    """
    text = result.captions[0].caption
    if not result.words:
        return plot_panels(shown, [[Panel("image", None)]], title=text or "(no words)")
    quantity = "attention weight" if maps.method == "attention" else maps.method
    layer = None if maps.layer == -1 else maps.layer
    if layer is not None or maps.head is not None:
        text += "\n" + format_map_title("Attention", layer=layer, head=maps.head)
    return plot_caption(shown, result.words, text, scale=scale, quantity=quantity)


def _open_images(
    captioner: Captioner, jobs: list[CaptionJob], batch_size: int, on_corrupt: OnCorrupt
) -> Iterator[OpenedImage]:
    """Yield the jobs' pictures, decoded ahead in threads. Raises CorruptImageError naming one, unless skipped."""

    def read(job: CaptionJob) -> tuple[PreparedImage, Source]:
        picture, source = captioner.open(job.file), read_source(job.file)
        try:
            return captioner.prepare(picture), source
        except InputError as error:  # too thin
            raise CorruptImageError(f"{job.file}: {error}") from error

    for job, (image, source) in read_each(jobs, read, ahead=2 * batch_size, on_corrupt=on_corrupt):
        yield OpenedImage(job, image, source)


def _batch(images: Iterator[OpenedImage], size: int) -> Iterator[list[OpenedImage]]:
    batch: list[OpenedImage] = []
    for image in images:
        batch.append(image)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _write(
    opened: OpenedImage, result: CaptionResult, records: Records, maps: MapOptions | None, figures: MapFigureOptions
) -> None:
    """Write a picture's figure, then its record, so that no record lacks its figure."""
    job = opened.job
    if job.figure and maps is not None:
        figure = plot_result(opened.image.shown, result, maps, scale=figures.scale)
        path = records.folder / job.figure
        path.parent.mkdir(parents=True, exist_ok=True)
        save_figure(figure, path, dpi=figures.dpi)
    best = result.captions[0]._asdict()
    n_best = [caption._asdict() for caption in result.captions]
    rest: dict[str, Any] = {"n_best": n_best, "figure": job.figure or None, "source": list(opened.source)}
    rest |= {"drawing": asdict(figures)} if job.figure else {}
    records.add({"file": job.name} | best | rest)
