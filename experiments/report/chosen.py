"""What a report shows of the chosen model: position similarity, attention over validation pictures, confusions."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from experiments.common.inference import compute_logits
from experiments.common.models import open_model
from experiments.common.plots import confusion_figure
from experiments.report.figures import figure
from experiments.report.page import Block, Heading, Table, Text
from experiments.report.runs import Finished
from vit_jax import InputError, VisionTransformer, position_similarity
from vit_jax.data.datasets import open_dataset
from vit_jax.data.loader import CachedImages
from vit_jax.explain.methods import MethodOptions, compile_method
from vit_jax.plot import plot_methods, plot_position_similarity

SIDE = 384  # a shown picture's longer side in pixels
BATCH = 32
METHODS = {"attention": "attention, last layer", "rollout": "attention rollout"}
MISTAKEN = 8  # pairs of classes listed at most


class Inside(NamedTuple):
    """What a report shows of its chosen model; images: how many it was validated on."""

    images: int
    blocks: list[Block]


class Answers(NamedTuple):
    """A model's answers on validation pictures. logits [count, C]; class_names: of the C classes."""

    model: VisionTransformer
    pictures: CachedImages
    logits: np.ndarray
    class_names: tuple[str, ...]


def inspect_model(chosen: Finished, examples: int) -> Inside:
    """What a finished run's best model shows. examples: pictures answered right, and as many answered wrong.

    Raises InputError when the run's data can't be opened any more.
    """
    model, card = open_model(chosen.folder)
    config = chosen.config
    data = open_dataset(
        config.data, data_dir=config.data_dir, val_fraction=config.val_fraction, seed=config.recipe.seed
    )
    preprocess = model.config.preprocess
    assert preprocess is not None
    pictures = CachedImages(data.val, preprocess, budget=0)
    if config.skip_corrupt:
        pictures = pictures.without_corrupt()[0]
    answers = Answers(model, pictures, compute_logits(model, pictures, BATCH), card.class_names)
    return Inside(len(pictures), [*_positions(model), *_attention(answers, examples), *_confusions(answers)])


def _positions(model: VisionTransformer) -> list[Block]:
    told = "How alike each patch's position embedding is to every other's: the map in a cell is that patch's."
    drawn = plot_position_similarity(np.asarray(position_similarity(model)))
    return [Heading("Position embeddings"), figure("positions", told, drawn)]


def _attention(answers: Answers, examples: int) -> list[Block]:
    model, pictures, logits, names = answers
    labels, preprocess = pictures.split.labels, pictures.preprocess
    blocks: list[Block] = [Heading("Where it looks")]
    shown = picked(logits, labels, examples)
    maps = {name: compile_method(name, MethodOptions()) for name in METHODS}
    for index in shown:
        pixels, label = pictures[index]
        images = preprocess.normalize(pixels[None].astype(np.float32) / 255)
        answer, share = int(logits[index].argmax()), float(_softmax(logits[index]).max())
        target = np.array([[answer]], np.int32)
        try:
            heats = {METHODS[name]: np.asarray(found(model, images, target))[0, 0] for name, found in maps.items()}
        except InputError as error:
            return [*blocks, Text(f"No maps: {error}.")]
        title = f"true {names[label]}, predicted {names[answer]} with {share:.2f}"
        view = _shown(preprocess.view(pictures.split.open(index)))
        kind = "right" if label == answer else "wrong"
        caption = f"Answered {kind}: {pictures.split.names[index]}, {title}."
        blocks.append(figure(f"attention_{kind}_{index}", caption, plot_methods(view, heats, title=title)))
    if not (logits.argmax(axis=1) != labels).any():
        blocks.append(Text("No validation picture was answered wrong."))
    return blocks


def _confusions(answers: Answers) -> list[Block]:
    predicted, labels, names = answers.logits.argmax(axis=1), answers.pictures.split.labels, answers.class_names
    counts = np.zeros((len(names),) * 2, np.int64)
    np.add.at(counts, (labels, predicted), 1)
    title = f"{len(labels):,} validation images, accuracy {(predicted == labels).mean():.4f}"
    told = "Rows are the true classes, columns the predicted ones."
    drawn = figure("confusion", told, confusion_figure(counts, names, title=title))
    blocks: list[Block] = [Heading("Confusions"), drawn]
    mistakes = mistaken(counts)[:MISTAKEN]
    if mistakes:
        rows = [
            [names[true], names[taken], f"{counts[true, taken]} of {counts[true].sum()}"] for true, taken in mistakes
        ]
        blocks += [Text("Most often mistaken:"), Table(["true", "taken for", "pictures"], rows, [2])]
    return blocks


def mistaken(counts: np.ndarray) -> list[tuple[int, int]]:
    """(true, predicted) classes of the mistakes in a confusion matrix [C, C], the most frequent first."""
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")
    pairs = [divmod(int(place), len(counts)) for place in order]
    return [pair for pair in pairs if wrong[pair]]


def picked(logits: np.ndarray, labels: np.ndarray, count: int) -> list[int]:
    """Of the pictures answered right, `count` of classes of their own where there are, the surest first; of those
    answered wrong, the surest ones. Indices."""
    answers, sure = logits.argmax(axis=1), _softmax(logits).max(axis=1)
    order = np.argsort(-sure, kind="stable")
    right = [int(i) for i in order if answers[i] == labels[i]]
    wrong = [int(i) for i in order if answers[i] != labels[i]][:count]
    classes: set[int] = set()
    first = [i for i in right if not (labels[i] in classes or classes.add(int(labels[i])))]  # type: ignore[func-returns-value]
    return (first + [i for i in right if i not in first])[:count] + wrong


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _shown(picture: Image.Image) -> np.ndarray:
    scale = SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    kernel = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
    return np.asarray(picture.convert("RGB").resize(size, kernel), np.float32) / 255
