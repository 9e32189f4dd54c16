"""What a report shows of the best run's model: position similarity, attention maps, confusions or precisions."""

from typing import NamedTuple

import numpy as np
from PIL import Image
from sklearn.metrics import confusion_matrix

from experiments.common.models import open_model
from experiments.common.plots import draw_confusion
from experiments.report.examples import make_examples, select_examples
from experiments.report.figures import render_figure
from experiments.report.page import Block, Heading, Table, Text, Viewer
from experiments.report.runs import FinishedRun
from vit_jax import InputError, Pipeline, VisionTransformer, position_similarity
from vit_jax.channels import shown, to_rgb
from vit_jax.data.loader import CachedImages
from vit_jax.explain.methods import METHODS, MethodOptions, compile_method
from vit_jax.inference import compute_outputs
from vit_jax.plot import format_map_title, plot_methods, plot_position_similarity
from vit_jax.prediction import is_multi_label
from vit_jax.train.bootstrap import precision_interval
from vit_jax.train.objective import average_precisions, mean_average_precision
from vit_jax.train.run_data import reopen_data
from vit_jax.viewer import show

IMAGE_SIDE = 384  # longer side of a shown image, in pixels
BATCH = 32
SHOWN_METHODS = ("attention", "rollout")
VIEWER_BYTES = 1_500_000  # for each of the pictures in the attention viewer
MAX_CONFUSIONS = 8  # pairs of classes listed


class ModelSections(NamedTuple):
    """The sections on a model; num_images: how many it was validated on."""

    num_images: int
    blocks: list[Block]


class ValidationPredictions(NamedTuple):
    """A model, its validation images, and its logits [B, C] for them; class_names: of the C classes."""

    model: VisionTransformer
    images: CachedImages
    logits: np.ndarray
    class_names: tuple[str, ...]


def predict_validation(run: FinishedRun) -> ValidationPredictions:
    """Compute what a run's best model predicts for its validation images.

    Raises InputError when the run's data can no longer be opened, or has changed.
    """
    model, card = open_model(run.folder)
    data, is_checked = reopen_data(run.folder, run.config, remedy="put it back as it was, or report other runs")
    preprocess = model.config.image_preprocess
    images = CachedImages(data.val, preprocess, budget=0)
    if not is_checked:
        images = images.drop_corrupt()
    return ValidationPredictions(model, images, compute_outputs(model, images, BATCH).logits, card.class_names)


def compute_interval(predictions: ValidationPredictions) -> tuple[float, float] | None:
    """Return the 95 % interval of the mAP of a model that predicts sets of labels, None for other models."""
    if not is_multi_label(predictions.model.config):
        return None
    return precision_interval(predictions.images.split.labels, predictions.logits)


def inspect_model(predictions: ValidationPredictions, num_examples: int) -> ModelSections:
    """Build the sections on a run's best model, with `num_examples` correct and as many wrong predictions."""
    model = predictions.model
    sections = [
        *_build_positions(model),
        *_build_attention(predictions, num_examples),
        _build_viewer(predictions),
        *(_build_precisions(predictions) if is_multi_label(model.config) else _build_confusions(predictions)),
    ]
    return ModelSections(len(predictions.images), sections)


def _build_positions(model: VisionTransformer) -> list[Block]:
    if not model.config.position_table:
        return []
    caption = "Cosine similarity of each patch's position embedding to every other: each cell is one patch's map."
    figure = plot_position_similarity(np.asarray(position_similarity(model)))
    return [Heading("Position embeddings"), render_figure("positions", caption, figure)]


def _build_attention(predictions: ValidationPredictions, num_examples: int) -> list[Block]:
    model, images, logits, names = predictions
    preprocess = images.preprocess
    blocks: list[Block] = [Heading("Attention maps")]
    compiled = {
        format_map_title(
            METHODS[name].title, layer=len(model.blocks) - 1 if METHODS[name].uses_layer else None
        ): compile_method(name, MethodOptions())
        for name in SHOWN_METHODS
    }
    examples = make_examples(model.config, logits, images.split.labels)
    for index in select_examples(examples, num_examples):
        example = examples[index]
        batch = preprocess.normalize(images[index][0][None].astype(np.float32) / 255)
        targets = np.array([[example.top]], np.int32)
        try:
            maps = {title: np.asarray(method(model, batch, targets))[0, 0] for title, method in compiled.items()}
        except InputError as error:
            return [*blocks, Text(f"No maps: {error}.")]
        title = example.describe(names)
        picture = images.open(index)
        image = _resize_for_page(preprocess.view(to_rgb(picture)))
        kind = "right" if example.is_right else "wrong"
        caption = f"{kind.capitalize()}: {images.split.names[index]}{shown(picture)}, {title}."
        blocks.append(render_figure(f"attention_{kind}_{index}", caption, plot_methods(image, maps, title=title)))
    if all(example.is_right for example in examples):
        blocks.append(Text("No validation image was classified wrong."))
    return blocks


def _build_viewer(predictions: ValidationPredictions) -> Block:
    """Build the attention viewer of the most confident correct prediction and, if there is one, wrong prediction.

    A sentence says so if the model is too large for it.
    """
    model, images, logits, names = predictions
    examples = make_examples(model.config, logits, images.split.labels)
    indices = select_examples(examples, 1)
    try:
        page = show(Pipeline(model, names), [images.open(index) for index in indices], max_bytes=VIEWER_BYTES)
    except InputError as error:
        return Text(f"No attention viewer: {error}.")
    shown = [
        f"image {place} is {images.split.names[index]}, {examples[index].describe(names)}"
        for place, index in enumerate(indices)
    ]
    return Viewer(f"Attention, to explore by hand: {'; '.join(shown)}.", page.html)


def _build_confusions(predictions: ValidationPredictions) -> list[Block]:
    names = predictions.class_names
    predicted, labels = predictions.logits.argmax(axis=1), predictions.images.split.labels
    counts = confusion_matrix(labels, predicted, labels=np.arange(len(names)))
    title = f"{len(labels):,} validation images, accuracy {(predicted == labels).mean():.4f}"
    caption = "Rows are the true classes, columns the predicted ones."
    figure = render_figure("confusion", caption, draw_confusion(counts, names, title=title))
    blocks: list[Block] = [Heading("Confusion matrix"), figure]
    confusions = rank_confusions(counts)[:MAX_CONFUSIONS]
    if confusions:
        rows = [
            [names[true], names[wrong], f"{counts[true, wrong]} of {counts[true].sum()}"] for true, wrong in confusions
        ]
        blocks += [Text("Most frequent confusions:"), Table(["true", "predicted", "images"], rows, [2])]
    return blocks


def _build_precisions(predictions: ValidationPredictions) -> list[Block]:
    labels, logits = predictions.images.split.labels, predictions.logits
    precisions = average_precisions(labels, logits)
    rows = [
        [name, f"{count:,}", "-" if np.isnan(value) else f"{value:.4f}"]
        for name, count, value in zip(predictions.class_names, labels.sum(axis=0), precisions, strict=True)
    ]
    text = f"{len(labels):,} validation images, mAP {mean_average_precision(labels, logits):.4f}."
    return [Heading("Average precision"), Text(text), Table(["label", "images", "average precision"], rows, [1, 2])]


def rank_confusions(counts: np.ndarray) -> list[tuple[int, int]]:
    """Return the (true, predicted) pairs off the diagonal of a confusion matrix [C, C], the most frequent first."""
    errors = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    order = np.argsort(-errors, axis=None, kind="stable")
    pairs = [divmod(int(flat), len(counts)) for flat in order]
    return [pair for pair in pairs if errors[pair]]


def _resize_for_page(image: Image.Image) -> np.ndarray:
    """Scale an RGB image to IMAGE_SIDE; return RGB floats [h, w, 3] in [0, 1]."""
    scale = IMAGE_SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    kernel = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
    return np.asarray(image.resize(size, kernel), np.float32) / 255
