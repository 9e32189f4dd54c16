"""Write a model as a folder of another library, and check that this library reads the same config back."""

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from vit_jax import InputError, VisionTransformer, ViTConfig
from vit_jax.files import atomic_write_folder
from vit_jax.preprocess import Preprocess
from vit_jax.suggest import describe_unknown
from weights_convert._convert import export, open_plan
from weights_convert.folders import huggingface, timm
from weights_convert.folders.target import FolderTarget
from weights_convert.plan import Request

TARGETS: dict[str, FolderTarget] = huggingface.TARGETS | timm.TARGETS
TRAINING_ONLY = ("dropout", "attention_dropout", "drop_path")  # they change no output


def write_folder(
    model: VisionTransformer, out: Path, *, layout: str, class_names: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Write model.safetensors and the library's JSON files to a new folder, completely or not at all.

    layout:      a name in TARGETS.
    class_names: one per class, in the head's order; () if unknown.

    Return lines to print: differences of the library that do not change an image's logits. Raises InputError
    for a folder that holds something, for a layout without a folder, and for a setting that the library cannot express.
    """
    check_new_folder(out)
    if layout not in TARGETS:
        raise InputError(describe_unknown("layout of a folder", layout, TARGETS))
    target, config = TARGETS[layout], model.config
    _check_centre(config, target)
    files = target.describe(config, class_names)
    arrays = export(model, layout=layout)
    with atomic_write_folder(out) as temporary:
        save_file(arrays, temporary / "model.safetensors", metadata={"format": "pt"})
        for name, contents in files.items():
            (temporary / name).write_text(json.dumps(contents, indent=2) + "\n")
        plan = open_plan(temporary, Request(layout=layout))
        _check_equal(config, plan.config, target)
        if plan.class_names != class_names:
            raise InputError(f"{target.title} cannot express these class names")
    return _list_notes(config, plan.config, target)


def check_new_folder(out: Path) -> None:
    """Raise InputError if `out` is a file, or a folder that holds something."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out}: exists already; choose another --out, or remove it")


def _check_centre(config: ViTConfig, target: FolderTarget) -> None:
    if _depends_on_centre(config) and config.preprocess.centre != target.centre:
        raise InputError(
            f"{target.title} halves an odd margin of the crop by {target.centre!r}, this model by "
            f"{config.preprocess.centre!r}: accept a shift of one pixel by --centre {target.centre}"
        )


def _depends_on_centre(config: ViTConfig) -> bool:
    """Return whether the margin around the crop can be odd."""
    crop = config.preprocess.crop
    if crop is None or not config.preprocess.squash:
        return crop is not None
    return any((math.floor(side / crop) - side) % 2 for side in config.image_size)


def _canonical(config: ViTConfig) -> ViTConfig:
    """Return the config with one spelling of what does not change any picture's output at the model's image size."""
    size, settings = config.image_size, config.preprocess
    crop = settings.crop
    resized = [math.floor(side / crop) for side in size] if crop else list(size)
    is_squashed = crop is None or (settings.squash and resized == list(size))
    settings = replace(
        settings,
        crop=None if is_squashed else min(side / part for side, part in zip(size, resized, strict=True)),
        squash=settings.squash and not is_squashed,
        centre=settings.centre if _depends_on_centre(config) else "round",
        background=Preprocess.background,
        max_value=Preprocess.max_value,
    )
    return replace(
        config,
        preprocess=settings,
        class_position=config.class_position and config.class_token,
        attention_width=0 if config.heads_width == config.width else config.attention_width,
        representation_activation=config.representation_activation if config.representation else "tanh",
        posemb_resize="zoom",
        dropout=0.0,
        attention_dropout=0.0,
        drop_path=0.0,
    )


def _check_equal(config: ViTConfig, read: ViTConfig, target: FolderTarget) -> None:
    """Raise InputError naming the settings that the files do not hold."""
    differences = _list_differences(_canonical(config), _canonical(read))
    differences += _list_differences(_canonical(config).preprocess, _canonical(read).preprocess)
    if differences:
        raise InputError(f"{target.title} cannot express {'; '.join(differences)}")


def _list_differences(wanted: Any, read: Any) -> list[str]:
    return [
        f"{field.name} {getattr(wanted, field.name)!r} (it would be {getattr(read, field.name)!r})"
        for field in fields(wanted)
        if field.name != "preprocess" and getattr(wanted, field.name) != getattr(read, field.name)
    ]


def _list_notes(config: ViTConfig, read: ViTConfig, target: FolderTarget) -> tuple[str, ...]:
    lost = [f"{name} {getattr(config, name)}" for name in TRAINING_ONLY if getattr(config, name) != getattr(read, name)]
    notes = [f"{target.title} has no {', '.join(lost)}: it matters in training only"] if lost else []
    if config.posemb_resize != read.posemb_resize:
        notes.append(
            f"for pictures of another size, {target.title} resizes the positions by {read.posemb_resize}, "
            f"this model by {config.posemb_resize}"
        )
    if config.preprocess.background != Preprocess.background:
        notes.append(f"{target.title} puts no background behind transparent pictures")
    if config.preprocess.max_value != Preprocess.max_value:
        notes.append(f"{target.title} has no value of white for pictures of more than 8 bits")
    return (*notes, *target.list_notes(config))
