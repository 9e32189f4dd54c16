"""What a report shows of the best run's model: position similarity, attention maps, and the confusion matrix."""

from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.special import softmax
from sklearn.metrics import confusion_matrix

from experiments.common.models import open_model
from experiments.common.plots import draw_confusion
from experiments.report.figures import render_figure
from experiments.report.page import Block, Heading, Table, Text
from experiments.report.runs import FinishedRun
from vit_jax import InputError, VisionTransformer, position_similarity
from vit_jax.channels import shown, to_rgb
from vit_jax.data.datasets import open_dataset
from vit_jax.data.loader import CachedImages
from vit_jax.explain.methods import MethodOptions, compile_method
from vit_jax.inference import compute_logits
from vit_jax.plot import plot_methods, plot_position_similarity

IMAGE_SIDE = 384  # longer side of a shown image, in pixels
BATCH = 32
ATTENTION_TITLES = {"attention": "attention, last layer", "rollout": "attention rollout"}  # by method
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


def inspect_model(run: FinishedRun, num_examples: int) -> ModelSections:
    """Build the sections on a run's best model, with `num_examples` correct and as many wrong predictions.

    Raises InputError when the run's data can no longer be opened.
    """
    model, card = open_model(run.folder)
    config = run.config
    data = open_dataset(
        config.data, data_dir=config.data_dir, val_fraction=config.val_fraction, seed=config.recipe.seed
    )
    preprocess = model.config.image_preprocess
    images = CachedImages(data.val, preprocess, budget=0)
    if config.skip_corrupt:
        images = images.drop_corrupt()
    predictions = ValidationPredictions(model, images, compute_logits(model, images, BATCH).logits, card.class_names)
    sections = [
        *_build_positions(model),
        *_build_attention(predictions, num_examples),
        *_build_confusions(predictions),
    ]
    return ModelSections(len(images), sections)


def _build_positions(model: VisionTransformer) -> list[Block]:
    caption = "Cosine similarity of each patch's position embedding to every other: each cell is one patch's map."
    figure = plot_position_similarity(np.asarray(position_similarity(model)))
    return [Heading("Position embeddings"), render_figure("positions", caption, figure)]


def _build_attention(predictions: ValidationPredictions, num_examples: int) -> list[Block]:
    model, images, logits, names = predictions
    labels, preprocess = images.split.labels, images.preprocess
    blocks: list[Block] = [Heading("Attention maps")]
    compiled = {title: compile_method(method, MethodOptions()) for method, title in ATTENTION_TITLES.items()}
    for index in select_examples(logits, labels, num_examples):
        pixels, label = images[index]
        batch = preprocess.normalize(pixels[None].astype(np.float32) / 255)
        prediction, probability = int(logits[index].argmax()), float(softmax(logits[index]).max())
        targets = np.array([[prediction]], np.int32)
        try:
            maps = {title: np.asarray(method(model, batch, targets))[0, 0] for title, method in compiled.items()}
        except InputError as error:
            return [*blocks, Text(f"No maps: {error}.")]
        title = f"true {names[label]}, predicted {names[prediction]} with {probability:.2f}"
        picture = images.open(index)
        image = _resize_for_page(preprocess.view(to_rgb(picture)))
        kind = "right" if label == prediction else "wrong"
        caption = f"{kind.capitalize()}: {images.split.names[index]}{shown(picture)}, {title}."
        blocks.append(render_figure(f"attention_{kind}_{index}", caption, plot_methods(image, maps, title=title)))
    if not (logits.argmax(axis=1) != labels).any():
        blocks.append(Text("No validation image was classified wrong."))
    return blocks


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


def rank_confusions(counts: np.ndarray) -> list[tuple[int, int]]:
    """Return the (true, predicted) pairs off the diagonal of a confusion matrix [C, C], the most frequent first."""
    errors = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    order = np.argsort(-errors, axis=None, kind="stable")
    pairs = [divmod(int(flat), len(counts)) for flat in order]
    return [pair for pair in pairs if errors[pair]]


def select_examples(logits: np.ndarray, labels: np.ndarray, count: int) -> list[int]:
    """Return the indices of `count` correct predictions, then of at most `count` wrong ones, most confident first.

    Correct predictions of distinct classes come before second ones of a class.
    """
    predicted, confidence = logits.argmax(axis=1), softmax(logits, axis=1).max(axis=1)
    order = [int(index) for index in np.argsort(-confidence, kind="stable")]
    correct = [index for index in order if predicted[index] == labels[index]]
    wrong = [index for index in order if predicted[index] != labels[index]]
    first_of_class: dict[int, int] = {}
    for index in correct:
        first_of_class.setdefault(int(labels[index]), index)
    distinct = list(first_of_class.values())
    repeated = [index for index in correct if index not in distinct]
    return (distinct + repeated)[:count] + wrong[:count]


def _resize_for_page(image: Image.Image) -> np.ndarray:
    """Scale an RGB image to IMAGE_SIDE; return RGB floats [h, w, 3] in [0, 1]."""
    scale = IMAGE_SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    kernel = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
    return np.asarray(image.resize(size, kernel), np.float32) / 255
