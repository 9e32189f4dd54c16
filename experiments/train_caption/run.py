"""What decides a captioner's run: its flags, and the settings that are kept in its folder."""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from caption.train.recipe import MEASURES, PLAIN, RECIPES, SCHEDULES, CaptionRecipe, recipe_from_dict
from experiments.common.flags import MORE_OVERRIDES
from vit_jax import InputError
from vit_jax.cli import Parser, fraction, non_negative, positive_int
from vit_jax.train import distributed
from vit_jax.train import run_folder as run
from vit_jax.train.options import add_flags

KIND = "caption_run/1"
SCENES = "scenes"
BUILD = "build"
OVERRIDES: dict[str, dict[str, Any]] = {
    "model": {"help": "a name of caption.CONFIGS"},
    "longest": {"type": positive_int, "help": "the longer side of an image in pixels"},
    "epochs": {"type": positive_int},
    "batch_size": {"type": positive_int, "help": "captions per step, over all devices"},
    "max_length": {"type": positive_int, "help": "tokens of a caption; longer ones are cut"},
    "learning_rate": {"type": non_negative, "help": "the peak"},
    "backbone_learning_rate": {"type": non_negative, "help": "that of the image encoder"},
    "schedule": {"choices": SCHEDULES},
    "step_epochs": {"type": positive_int, "help": "schedule step: a tenth after so many epochs"},
    "warmup_epochs": {"type": non_negative},
    "weight_decay": {"type": non_negative},
    "max_norm": {"type": non_negative, "help": "gradients are scaled to this norm"},
    "frozen_stages": {"type": int, "help": "stages of the ResNet that stay as they are"},
    "train_norms": {"action": argparse.BooleanOptionalAction},
    "dropout": {"type": fraction},
    "ignore_padding": {"action": argparse.BooleanOptionalAction, "help": "leave padding out of the loss"},
    "label_smoothing": {"type": fraction},
    "padding": {"choices": ("alone", "reference")},
    "best_by": {"choices": MEASURES, "help": "the measure of the best epoch"},
    "seed": {"type": int},
}
OVERRIDES |= {name: MORE_OVERRIDES[name] for name in ("accumulate", "dtype", "ema", "patience")}

SOURCES: dict[str, dict[str, Any]] = {
    "data": {"help": f"a COCO folder, Karpathy's json, a folder or CSV of file,caption (default: {SCENES})"},
    "images": {"help": "where the pictures of a Karpathy json lie"},
    "val_fraction": {"type": fraction, "help": "held out of a table (default: 0.2)"},
    "captions_per_image": {"type": positive_int, "help": "the first so many (default: all)"},
    "vocabulary": {"help": f"a file, or {BUILD}: the words of the training captions (default: BERT's)"},
    "weights": {"help": "a saved captioner, a run, a CATR checkpoint or a release to start from"},
    "encoder": {"help": "a pretrained vision transformer for a new captioner to look through"},
}


@dataclass(frozen=True)
class CaptionRun:
    """All that decides a run.

    data: "scenes", or where captions lie. vocabulary: a file, "build", or None for BERT's.
    encoder: a vision transformer for a new captioner to look through.
    """

    recipe: CaptionRecipe
    data: str
    images: str | None = None
    val_fraction: float = 0.2
    captions_per_image: int | None = None
    vocabulary: str | None = None
    weights: str | None = None
    encoder: str | None = None


def make_parser() -> argparse.ArgumentParser:
    """What train_caption takes: a flag for each of a recipe's numbers, absent unless given."""
    parser = Parser(prog="python -m experiments.train_caption", description="Train a captioner.")
    for name, options in SOURCES.items():
        parser.add_argument("--" + name.replace("_", "-"), default=argparse.SUPPRESS, **options)
    parser.add_argument(
        "--recipe", choices=sorted(RECIPES), help="default: scenes for scenes, catr with weights, else small"
    )
    parser.add_argument("--out", help="the run's folder (default: runs/DATA)")
    parser.add_argument("--resume", nargs="?", const="", metavar="RUN", help="go on with that run (or --out's)")
    parser.add_argument("--cache-gb", type=non_negative, default=2.0, help="memory for decoded validation images")
    group = parser.add_argument_group("recipe overrides")
    for name, options in OVERRIDES.items():
        group.add_argument("--" + name.replace("_", "-"), default=argparse.SUPPRESS, **options)
    parser.add_argument("--no-augment", action="store_true", help="draw nothing on the training images")
    add_flags(parser)
    parser.set_defaults(scan_layers=False)  # few layers, and a ResNet that is not scanned: nothing to gain
    distributed.add_flags(parser)
    return parser


def new_run(args: argparse.Namespace) -> tuple[Path, CaptionRun]:
    """The folder and the settings that flags ask for."""
    source = _settled(vars(args))
    data, weights, encoder = source.get("data", SCENES), source.get("weights"), source.get("encoder")
    if weights and (encoder or "model" in vars(args)):
        raise InputError("--weights brings its own model; leave out --model and --encoder")
    recipe = RECIPES[args.recipe or (SCENES if data == SCENES else "catr" if weights else "small")]
    if weights:
        recipe = replace(recipe, model=None)
    if encoder:
        recipe = replace(recipe, longest=None)  # what the encoder was trained at
    recipe = replace(recipe, **{name: value for name, value in vars(args).items() if name in OVERRIDES})
    if args.no_augment:
        recipe = replace(recipe, augment=PLAIN)
    folder = Path(args.out) if args.out else run.default_folder(Path(data).stem)
    return folder, CaptionRun(recipe, **{"data": SCENES} | source)


def _settled(given: dict[str, Any]) -> dict[str, Any]:
    """Where a run's data and weights come from, as flags tell it, with absolute paths."""
    source = {name: given[name] for name in SOURCES if name in given}
    for name, value in source.items():
        # A folder called build, as pip leaves one, is no vocabulary.
        if isinstance(value, str) and (name, value) != ("vocabulary", BUILD):
            source[name] = run.absolute_if_path(value)
    return source


def old_run(args: argparse.Namespace) -> tuple[Path, CaptionRun]:
    """The run to go on with. Raises InputError when it is none, or a flag would change it."""
    if not (args.resume or args.out):
        raise InputError("--resume needs the run's folder: --resume RUN")
    folder = Path(args.resume or args.out)

    def built(stored: dict[str, Any]) -> CaptionRun:
        return CaptionRun(
            recipe_from_dict(stored["recipe"]), **{name: stored[name] for name in SOURCES if name in stored}
        )

    config = run.read_config_file(folder, KIND, built)
    changed = [n for n, v in vars(args).items() if n in OVERRIDES and v != getattr(config.recipe, n)]
    changed += [name for name, value in _settled(vars(args)).items() if value != getattr(config, name)]
    if args.no_augment and config.recipe.augment != PLAIN:
        changed.append("no_augment")
    if changed:
        flags = ", ".join("--" + name.replace("_", "-") for name in changed)
        raise InputError(f"{folder}: a resumed run keeps its settings; leave out {flags}")
    return folder, config
