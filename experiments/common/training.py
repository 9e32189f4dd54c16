"""The frame that the training programs share: a new run or a resumed one, its processes, its curves and its end."""

import argparse
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from experiments.common import runtime
from experiments.common.flags import (
    add_flags,
    add_recipe_flags,
    changed_flags,
    flag,
    given_settings,
    override_recipe,
    read_flags,
)
from experiments.common.precision import warn_if_slow
from vit_jax import InputError
from vit_jax.cli import Parser, non_negative, program_name
from vit_jax.outputs import check_out_folder, check_outside
from vit_jax.train import distributed
from vit_jax.train.distributed import ProcessOptions
from vit_jax.train.options import RunOptions
from vit_jax.train.result import TrainingStopped
from vit_jax.train.run_folder import (
    absolute_if_path,
    check_unused,
    default_folder,
    read_best_record,
    read_config,
    read_config_file,
)

ORIGINS = ("weights", "from_scratch", "encoder")  # fields of a config that say what training starts from


class Curve(NamedTuple):
    """The measure that a run's figure shows: its name in the records, its label, and whether lower is better."""

    name: str
    label: str
    is_loss: bool = False


@dataclass(frozen=True)
class TrainingProgram:
    """What distinguishes a training program.

    name:         of its module in experiments.
    config:       dataclass of a run's settings, with the fields recipe, data and weights among others.
    format:       of config.json.
    recipe_help:  which recipe is the default.
    no_augment:   the augmentations that change nothing.
    choose_recipe: (recipe name or None, fields of the config, given --model or None) -> recipe.
    choose_weights: the same -> the weights to start from, for a new run without --weights.
    cache_gb:     default of --cache-gb.
    train:        (folder, config, options, resume, cache_gb) -> FitResult.
    curve:        (config, record of an epoch) -> Curve.
    report:       (folder, config, best record, seconds) -> None; prints the end of a finished run.
    not_paths:    (field, value) of the config that are no paths even if a file of that name exists.
    """

    name: str
    description: str
    config: type
    format: str
    default_data: str
    recipes: Mapping[str, Any]
    recipe_help: str
    no_augment: Any
    choose_recipe: Callable[[str | None, dict[str, Any], str | None], Any]
    cache_gb: float
    train: Callable[..., Any]
    curve: Callable[[Any, dict[str, Any]], Curve]
    report: Callable[[Path, Any, dict[str, Any], float], None]
    choose_weights: Callable[[str | None, dict[str, Any], str | None], str | None] = lambda name, source, model: None
    not_paths: tuple[tuple[str, str], ...] = ()


def make_parser(program: TrainingProgram) -> argparse.ArgumentParser:
    """Return the parser of a training program."""
    parser = Parser(prog=program_name(f"experiments.{program.name}"), description=program.description, run_config=True)
    defaults = {"": program.config(recipe=next(iter(program.recipes.values())), data=program.default_data)}
    add_flags(parser, program.config, defaults=defaults, suppress=True)
    parser.add_argument("--recipe", choices=sorted(program.recipes), help=f"default: {program.recipe_help}")
    parser.add_argument("--out", help="the run's folder (default: runs/DATA)")
    parser.add_argument("--resume", nargs="?", const="", metavar="RUN", help="go on with that run (or --out's)")
    parser.add_argument(
        "--cache-gb", type=non_negative, default=program.cache_gb,
        help="memory for decoded images, in GB (default: %(default)g)",
    )  # fmt: skip
    add_recipe_flags(parser, program.recipes)
    add_flags(parser, RunOptions, "machine (does not change what is trained)")
    add_flags(parser, ProcessOptions, "several processes (detected under SLURM, Open MPI and Kubernetes)")
    return parser


def parse_config(program: TrainingProgram, argv: Sequence[str]) -> Any:
    """Return the config of a new run with these arguments. Raises InputError, or exits as the parser does."""
    return new_run(program, make_parser(program).parse_args(argv))[1]


def new_run(program: TrainingProgram, args: argparse.Namespace) -> tuple[Path, Any]:
    """Return the folder and the config of a new run. Raises InputError for flags that contradict one another."""
    config = _equal_config(program, args) if "config" in args else _new_config(program, args)
    return Path(args.out) if args.out else default_folder(_folder_name(config.data)), config


def _new_config(program: TrainingProgram, args: argparse.Namespace) -> Any:
    source = {"data": program.default_data} | _source_of(program, args)
    model = vars(args).get("model")
    source["weights"] = source.get("weights") or program.choose_weights(args.recipe, source, model)
    recipe = program.choose_recipe(args.recipe, source, model)
    return program.config(recipe=override_recipe(recipe, args, program.no_augment), **source)


def _equal_config(program: TrainingProgram, args: argparse.Namespace) -> Any:
    """Return the config of an earlier run, from the config.json of --config, with the values of the flags given."""
    if args.recipe:
        raise InputError(f"--config {args.config} has a recipe; leave out --recipe")
    config: Any = read_config_file(Path(args.config), program.config, program.format)
    source, model = _source_of(program, args), vars(args).get("model")
    if model is not None or not source.keys().isdisjoint(ORIGINS):
        config = _change_origin(program, config, args.config, source, model)
    return replace(config, recipe=override_recipe(config.recipe, args, program.no_augment), **source)


def _change_origin(program: TrainingProgram, config: Any, file: str, source: dict[str, Any], model: str | None) -> Any:
    """Return the config of an earlier run with the origin that flags give, which replaces all that the file says of it.

    source: fields of the config that are given. model: given too, or None.
    """
    defaults = {field.name: field.default for field in fields(program.config) if field.name in ORIGINS}
    kept = {} if "weights" in source or "encoder" not in defaults else {"encoder": config.encoder}
    origin = defaults | kept | source
    if not origin["weights"]:
        origin["weights"] = program.choose_weights(None, vars(config) | origin, model or config.recipe.model)
    program.choose_recipe(None, vars(config) | origin, model)  # raises InputError for flags that exclude one another
    recipe = replace(config.recipe, model=None) if origin["weights"] else config.recipe
    if not origin["weights"] and model is None and recipe.model is None:
        raise InputError(f"{file}: names no model, since its run started from {config.weights}; give --model too")
    return replace(config, **origin, recipe=recipe)


def _folder_name(data: str) -> str:
    return Path(data).stem if Path(data).is_file() else Path(data.replace(":", "_")).name


def _source_of(program: TrainingProgram, args: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of the config whose flags are given, without the recipe. Paths are absolute."""
    source = given_settings(args, program.config)
    return {
        name: absolute_if_path(value) if isinstance(value, str) and (name, value) not in program.not_paths else value
        for name, value in source.items()
    }


def resumed_run(program: TrainingProgram, args: argparse.Namespace) -> tuple[Path, Any]:
    """Return the folder and the config of the run to resume. Raises InputError for flags that would change it."""
    if not (args.resume or args.out):
        raise InputError("--resume needs the run's folder: --resume RUN")
    if "config" in args:
        raise InputError(f"--config {args.config}: a resumed run keeps its own settings; leave out --config")
    folder = Path(args.resume or args.out)
    config: Any = read_config(folder, program.config, program.format)
    changed = _changed_recipe(program, config, args) + _changed_source(program, config, args)
    if changed:
        raise InputError(f"{folder}: a resumed run keeps its settings; leave out {', '.join(changed)}")
    return folder, config


def _changed_recipe(program: TrainingProgram, config: Any, args: argparse.Namespace) -> list[str]:
    """Return the flags that would change the recipe. --recipe NAME stands for all that the named recipe sets."""
    if args.recipe:
        recipe = program.choose_recipe(args.recipe, vars(config), None)
        return ["--recipe"] if override_recipe(recipe, args, program.no_augment) != config.recipe else []
    changed = override_recipe(config.recipe, args, program.no_augment)
    if args.no_augment and changed.augment != config.recipe.augment:
        changed = replace(changed, augment=config.recipe.augment)
        return ["--no-augment", *changed_flags(config.recipe, changed)]
    return changed_flags(config.recipe, changed)


def _changed_source(program: TrainingProgram, config: Any, args: argparse.Namespace) -> list[str]:
    given, source = given_settings(args, program.config), _source_of(program, args)
    return [flag(name) for name in given if getattr(config, name) not in (given[name], source[name])]


def run_program(program: TrainingProgram, argv: list[str] | None) -> int:
    """Run a training program. Return 0 when it is done, or 128 + signal when it was stopped and saved."""
    start = time.monotonic()
    args = make_parser(program).parse_args(argv)
    resume = args.resume is not None
    folder, config = resumed_run(program, args) if resume else new_run(program, args)
    options, processes = read_flags(args, RunOptions), read_flags(args, ProcessOptions)
    if not resume and not processes.process:  # of several processes the first one creates it
        check_out_folder(folder)
        check_unused(folder)
        check_outside(folder, [config.data] if Path(config.data).is_dir() else [])
    runtime.configure(compile_cache=options.compile_cache)
    distributed.initialize(processes)
    if distributed.is_first_process():
        warn_if_slow(config.recipe.dtype)
    try:
        program.train(folder, config, options, resume=resume, cache_gb=args.cache_gb)
    except TrainingStopped as stopped:
        print(f"\n{signal.Signals(stopped.number).name}: saved at step {stopped.step}; go on with")
        print(f"  {program_name(f'experiments.{program.name}')} --resume {folder}")
        return 128 + stopped.number
    finally:
        if distributed.is_first_process():
            _draw_curves(folder, config, program)
    program.report(folder, config, read_best_record(folder), time.monotonic() - start)
    return 0


def _draw_curves(folder: Path, config: Any, program: TrainingProgram) -> None:
    from experiments.common.plots import plot_curves
    from vit_jax.train.logging import read_metrics

    records = [record for record in read_metrics(folder / "metrics.jsonl") if "val_loss" in record]
    if records:
        curve = program.curve(config, records[0])
        title = f"{config.recipe.model or Path(config.weights or '').stem} on {Path(config.data).name}"
        options: dict[str, Any] = dict(measure=curve.name, label=curve.label, lowest=curve.is_loss)
        plot_curves(records, folder / "curves.png", title=title, **options)
