"""What a report shows of the chosen model: position similarity, attention over validation pictures, confusions."""

import io
from typing import Any

import numpy as np
from PIL import Image

from experiments.data.catalog import open_data
from experiments.data.pipeline import Pictures
from experiments.inference import logits_of
from experiments.maps import Options, compiled
from experiments.models import open_model
from experiments.plots import confusion_figure
from experiments.report_page import Block, Figure, Heading, Text
from vit_jax import position_similarity
from vit_jax.plot import DPI, plot_methods, plot_position_similarity

SIDE = 384  # a shown picture's longer side in pixels
BATCH = 32
METHODS = {"attention": "attention, last layer", "rollout": "attention rollout"}


def looked_inside(chosen: Any, examples: int) -> list[Block]:
    """The blocks of a finished run's best model. examples: pictures answered right, and as many answered wrong.

    Raises InputError when the run's data can't be opened any more.
    """
    model, card = open_model(chosen.folder)
    config = chosen.config
    data = open_data(config.data, data_dir=config.data_dir, val_fraction=config.val_fraction, seed=config.recipe.seed)
    preprocess = model.config.preprocess
    assert preprocess is not None
    pictures = Pictures(data.val, preprocess, budget=0)
    if config.skip_corrupt:
        pictures = pictures.without_corrupt()[0]
    logits = logits_of(model, pictures, BATCH)
    labels = pictures.split.labels
    similarity = plot_position_similarity(np.asarray(position_similarity(model)))
    told = "How alike each patch's position embedding is to every other's: the map in a cell is that patch's."
    blocks: list[Block] = [Heading("Position embeddings"), _figure("positions", told, similarity)]

    blocks.append(Heading("Where it looks"))
    chosen_pictures = picked(logits, labels, examples)
    maps = {name: compiled(name, Options()) for name in METHODS}
    for index in chosen_pictures:
        pixels, label = pictures[index]
        images = preprocess.normalize(pixels[None].astype(np.float32) / 255)
        answer, share = int(logits[index].argmax()), float(_softmax(logits[index]).max())
        heats = {
            METHODS[name]: np.asarray(found(model, images, np.array([[answer]], np.int32)))[0, 0]
            for name, found in maps.items()
        }
        title = f"true {card.class_names[label]}, predicted {card.class_names[answer]} ({share:.2f})"
        view = _shown(preprocess.view(pictures.split.open(index)))
        name = f"attention_{'right' if label == answer else 'wrong'}_{index}"
        blocks.append(_figure(name, f"{data.val.names[index]}: {title}", plot_methods(view, heats, title=title)))
    if not any(int(logits[i].argmax()) != labels[i] for i in chosen_pictures):
        blocks.append(Text("No validation picture was answered wrong."))

    counts = np.zeros((len(card.class_names),) * 2, np.int64)
    np.add.at(counts, (labels, logits.argmax(axis=1)), 1)
    accuracy = float((logits.argmax(axis=1) == labels).mean())
    title = f"{len(labels):,} validation images, accuracy {accuracy:.4f}"
    confusions = confusion_figure(counts, card.class_names, title=title)
    told = "Rows are the true classes, columns the predicted ones."
    return [*blocks, Heading("Confusions"), _figure("confusion", told, confusions)]


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


def _figure(name: str, caption: str, figure: Any) -> Figure:
    held = io.BytesIO()
    figure.savefig(held, format="png")
    return Figure(name, caption, held.getvalue(), _width(held.getvalue()))


def _width(png: bytes) -> int:
    """CSS pixels at which a figure has its printed size."""
    with Image.open(io.BytesIO(png)) as image:
        return round(image.width * 96 / DPI)
