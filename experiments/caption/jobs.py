"""Caption many pictures: decode ahead in threads, caption in batches, write figures and records."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from caption.captioner import Captioner, CaptionResult, PreparedImage
from caption.plot import plot_caption
from experiments.caption.records import Records
from vit_jax import InputError
from vit_jax.data.decode import CorruptImageError, open_rgb
from vit_jax.data.reading import OnCorrupt, read_each
from vit_jax.plot import Panel, plot_panels, save_figure
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
    """A job with its decoded picture."""

    job: CaptionJob
    image: PreparedImage


def caption_images(
    captioner: Captioner, jobs: list[CaptionJob], records: Records, batch_size: int, on_corrupt: OnCorrupt
) -> int:
    """Caption the pictures in batches; return how many could be read. Finished pictures stay when an error ends it.

    on_corrupt: "skip" reports unreadable pictures and continues; with "raise" the first one raises CorruptImageError.
    """
    done = 0
    size = min(batch_size, len(jobs))
    try:
        with open_progress(len(jobs), unit="images") as progress:
            for batch in _batch(_open_images(captioner, jobs, size, on_corrupt), size):
                results = captioner([opened.image for opened in batch], size)
                for opened, result in zip(batch, results, strict=True):
                    _write(opened, result, records)
                    done += 1
                    progress.write(f"{done}/{len(jobs)} {opened.job.name}: {result.captions[0].caption}")
                    sys.stdout.flush()
                records.save(now=False)
                progress.update(len(batch))
    finally:
        if done:
            records.save()
    return done


def plot_result(shown: np.ndarray, result: CaptionResult) -> Any:
    """Return the figure: the picture with its caption and a panel per word; the picture alone without words."""
    text = result.captions[0].caption
    if result.words:
        return plot_caption(shown, result.words, text)
    return plot_panels(shown.astype(np.float32) / 255, [[Panel("image", None)]], title=text or "(no words)")


def _open_images(
    captioner: Captioner, jobs: list[CaptionJob], batch_size: int, on_corrupt: OnCorrupt
) -> Iterator[OpenedImage]:
    """Yield the jobs' pictures, decoded ahead in threads. Raises CorruptImageError naming one, unless skipped."""

    def read(job: CaptionJob) -> PreparedImage:
        picture = open_rgb(job.file)
        try:
            return captioner.prepare(picture)
        except InputError as error:  # too thin
            raise CorruptImageError(f"{job.file}: {error}") from error

    for job, image in read_each(jobs, read, ahead=2 * batch_size, on_corrupt=on_corrupt):
        yield OpenedImage(job, image)


def _batch(images: Iterator[OpenedImage], size: int) -> Iterator[list[OpenedImage]]:
    batch: list[OpenedImage] = []
    for image in images:
        batch.append(image)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _write(opened: OpenedImage, result: CaptionResult, records: Records) -> None:
    """Write a picture's figure, then its record, so that no record lacks its figure."""
    job = opened.job
    if job.figure:
        path = records.folder / job.figure
        path.parent.mkdir(parents=True, exist_ok=True)
        save_figure(plot_result(opened.image.shown, result), path)
    best = result.captions[0]._asdict()
    n_best = [caption._asdict() for caption in result.captions]
    records.add({"file": job.name} | best | {"n_best": n_best, "figure": job.figure or None})
