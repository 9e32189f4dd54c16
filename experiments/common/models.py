"""Open the model that a program is given, or the one that training starts from."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flax import nnx

from caption.tokenizer import VOCABULARY_FILE
from vit_jax import (
    CONFIGS,
    InputError,
    ModelCard,
    VisionTransformer,
    ViTConfig,
    load_card,
    with_in_channels,
    with_num_classes,
)
from vit_jax.checkpoint import CONFIG
from vit_jax.config import SINGLE_LABEL
from vit_jax.notes import is_quiet, note
from vit_jax.suggest import describe_unknown
from vit_jax.train.head import FittedHead, fit_head, with_task
from weights_convert.formats.folders import WEIGHTS
from weights_convert.model_types import IMAGE_MODEL
from weights_convert.plan import ConversionPlan
from weights_convert.resolve import ModelSource, find_source, open_source

MODEL_FILES = (CONFIG, VOCABULARY_FILE, "preprocessor_config.json", "processor_config.json", *WEIGHTS)
ARCHITECTURE = ("patch_size", "width", "depth", "num_heads", "mlp_dim")


def model_files(source: ModelSource) -> list[Path]:
    """List the files that opening a model reads, of a file or a folder; for vit_jax.outputs."""
    path = source.path
    return [Path(source.name), path, *(path / name for name in MODEL_FILES)]


def find_image_model(name_or_path: str | Path | ModelSource) -> ModelSource:
    """Return where an image model is: see weights_convert.resolve.find_source, which raises InputError."""
    return find_source(name_or_path, wanted=IMAGE_MODEL)


def open_model(source: str | Path | ModelSource, *, image_size: Any = None) -> tuple[VisionTransformer, ModelCard]:
    """Return the model of any source that weights_convert.resolve knows, and its card.

    Prints, for a checkpoint of another library, its layout and the settings that are not in its arrays.
    Raises InputError naming the source, also for a captioner.
    """
    source = find_image_model(source)
    model, class_names, plan = open_source(source, wanted=IMAGE_MODEL, image_size=image_size)
    report_conversion(source, plan)
    return model, ModelCard(model.config, class_names)


def report_conversion(source: ModelSource, plan: ConversionPlan | None) -> None:
    """Print, on stderr, how a checkpoint of another library was read; nothing without a plan.

    One line has the layout and the source of each setting that the arrays do not hold; of a quiet program, the assumed
    ones only. The plan's notes follow, a line each.
    """
    if plan is None:
        return
    note(f"{source}: layout {plan.layout.name}; {'; '.join(plan.settings.describe())}", file=sys.stderr)
    for line in plan.warnings if is_quiet() else plan.notes:
        print(f"{source}: {line}", file=sys.stderr)


def starting_model(
    *,
    name: str | None,
    weights: str | None,
    num_classes: int,
    class_names: Sequence[str] = (),
    image_size: tuple[int, int] | None,
    task: str = SINGLE_LABEL,
    in_channels: int | None = None,
    seed: int,
) -> VisionTransformer:
    """Return the model that training starts from: weights (a folder or a foreign file), or the named one from scratch.

    class_names: of the data; the head of weights with other names or for another task is not kept, see fit_head. Prints
        what was done. task: see vit_jax.ViTConfig.
    image_size: None for that of the weights, or of the named model. in_channels: see vit_jax.with_in_channels.
    Raises InputError if weights and name are of different architectures, and as load and convert do.
    """
    if name is not None and name not in CONFIGS:
        raise InputError(describe_unknown("model", name, CONFIGS))
    if weights is not None:
        model, description = _load_weights(name, weights, num_classes, class_names, image_size, task)
        if description:
            note(description)
        if in_channels is not None:
            model = with_in_channels(model, in_channels)
    else:
        assert name is not None
        config = replace(CONFIGS[name], num_classes=num_classes, in_channels=in_channels or CONFIGS[name].in_channels)
        model = VisionTransformer(config.resized(image_size or config.image_size), rngs=nnx.Rngs(seed))
    return with_task(model, task)


def _load_weights(
    name: str | None, weights: str, num_classes: int, class_names: Sequence[str], image_size: Any, task: str
) -> FittedHead:
    source = find_image_model(weights)
    options: dict[str, Any] = {}
    if source.saved_type is None:
        options = {} if name is None else {"name": name}
    elif name is not None:
        _check_architecture(CONFIGS[name], load_card(source.path).config, f"{source.path}: not {name}")
    model, names, plan = open_source(source, wanted=IMAGE_MODEL, image_size=image_size, **options)
    report_conversion(source, plan)
    if not class_names:
        return FittedHead(with_num_classes(model, num_classes), "")
    return fit_head(model, names, class_names, task=task)


def _check_architecture(expected: ViTConfig, actual: ViTConfig, message: str) -> None:
    for field in ARCHITECTURE:
        if getattr(expected, field) != getattr(actual, field):
            raise InputError(f"{message}: its {field} is {getattr(actual, field)}, not {getattr(expected, field)}")
