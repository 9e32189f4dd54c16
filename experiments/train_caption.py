"""python -m experiments.train_caption: train a captioner, or fine-tune one.

With no arguments: a small captioner on made scenes (coloured shapes in spatial relations), in a few minutes on two CPU
cores, with a map for every word and how often a noun's map finds its object.
"""

import argparse
import functools
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from caption.tokenizer import FILE, Tokenizer, build_vocabulary, load_tokenizer
from experiments import run, runtime
from experiments.caption_recipe import MEASURES, RECIPES, SCHEDULES, CaptionRecipe, from_dict, rates
from experiments.data.caption_pipeline import Captioned, Examples, Made, caption_batches
from experiments.data.captions import CaptionSet, open_captions
from experiments.data.pipeline import batches_per_epoch
from experiments.models import BEST
from vit_jax import InputError, count_parameters
from vit_jax.cli import Parser, non_negative, positive_int, share
from vit_jax.errors import one_line_errors
from vit_jax.files import written_file

KIND = "caption_run/1"
SCENES = "scenes"
SCENES_PER_EPOCH, SCENES_HELD_OUT = 6400, 320
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
    "dropout": {"type": share},
    "ignore_padding": {"action": argparse.BooleanOptionalAction, "help": "leave padding out of the loss"},
    "label_smoothing": {"type": share},
    "padding": {"choices": ("alone", "reference")},
    "best_by": {"choices": MEASURES, "help": "the measure of the best epoch"},
    "seed": {"type": int},
}


@dataclass(frozen=True)
class CaptionRun:
    """All that decides a run.

    data: "scenes", or where captions lie. vocabulary: a file, "build", or None for BERT's.
    """

    recipe: CaptionRecipe
    data: str
    images: str | None
    val_fraction: float
    captions_per_image: int | None
    vocabulary: str | None
    weights: str | None


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m experiments.train_caption", description="Train a captioner.")
    parser.add_argument(
        "--data", default=SCENES, help="a COCO folder, Karpathy's json, a folder or CSV of file,caption"
    )
    parser.add_argument("--images", help="where the pictures of a Karpathy json lie")
    parser.add_argument("--val-fraction", type=share, default=0.2, help="held out of a table (default: 0.2)")
    parser.add_argument("--captions-per-image", type=positive_int, help="the first so many (default: all)")
    parser.add_argument(
        "--vocabulary", help=f"a file, or {BUILD}: the words of the training captions (default: BERT's)"
    )
    parser.add_argument("--weights", help="a saved captioner, a CATR checkpoint or a release to start from")
    parser.add_argument(
        "--recipe", choices=sorted(RECIPES), help="default: scenes for scenes, catr with weights, else small"
    )
    parser.add_argument("--out", help="the run's folder (default: runs/DATA)")
    parser.add_argument("--resume", nargs="?", const="", metavar="RUN", help="go on with that run (or --out's)")
    parser.add_argument("--cache-gb", type=non_negative, default=2.0, help="memory for decoded validation images")
    parser.add_argument("--tensorboard", action="store_true", help="write event files too")
    group = parser.add_argument_group("recipe overrides")
    for name, options in OVERRIDES.items():
        group.add_argument("--" + name.replace("_", "-"), default=argparse.SUPPRESS, **options)
    parser.add_argument("--no-augment", action="store_true", help="draw nothing on the training images")
    return parser


def _new_run(args: argparse.Namespace) -> tuple[Path, CaptionRun]:
    default = SCENES if args.data == SCENES else "catr" if args.weights else "small"
    recipe = RECIPES[args.recipe or default]
    if args.weights:
        recipe = replace(recipe, model=None)
    given = {name: value for name, value in vars(args).items() if name in OVERRIDES}
    if args.no_augment:
        given["augment"] = RECIPES["small"].augment
    config = CaptionRun(
        recipe=replace(recipe, **given),
        data=run.settled(args.data),
        images=run.settled(args.images) if args.images else None,
        val_fraction=args.val_fraction,
        captions_per_image=args.captions_per_image,
        vocabulary=run.settled(args.vocabulary) if args.vocabulary else None,
        weights=run.settled(args.weights) if args.weights else None,
    )
    folder = Path(args.out) if args.out else run.default_folder(Path(args.data).stem)
    return folder, config


def _old_run(args: argparse.Namespace) -> tuple[Path, CaptionRun]:
    if not (args.resume or args.out):
        raise InputError("--resume needs the run's folder: --resume RUN")
    folder = Path(args.resume or args.out)
    names = [f.name for f in fields(CaptionRun) if f.name != "recipe"]
    config = run.read_as(
        folder, KIND, lambda stored: CaptionRun(from_dict(stored["recipe"]), **{n: stored[n] for n in names})
    )
    changed = [n for n, v in vars(args).items() if n in OVERRIDES and v != getattr(config.recipe, n)]
    if changed:
        flags = ", ".join("--" + name.replace("_", "-") for name in changed)
        raise InputError(f"{folder}: a resumed run keeps its settings; leave out {flags}")
    return folder, config


class Prepared(NamedTuple):
    """What a run trains on and begins with. references: the validation pictures' own captions, where there are any."""

    model: Any
    tokenizer: Tokenizer
    train: Examples
    val: Examples
    pictures: Captioned | None


def _first_captions(captions: CaptionSet, count: int | None) -> CaptionSet:
    return captions if count is None else replace(captions, captions=tuple(some[:count] for some in captions.captions))


def _tokenizer(config: CaptionRun, folder: Path, texts: Callable[[], Iterator[str]]) -> Tokenizer:
    """The run's own vocabulary where it has one, else as it is told, and kept in the run's folder."""
    from weights_convert.vocabulary import find_tokenizer

    if (folder / FILE).is_file():
        return load_tokenizer(folder)
    if config.vocabulary == BUILD or config.data == SCENES:
        return build_vocabulary(texts(), folder / FILE)
    tokenizer = find_tokenizer(config.vocabulary)
    tokenizer.save(folder / FILE)
    return tokenizer


def _starting_model(config: CaptionRun, tokenizer: Tokenizer) -> Any:
    from flax import nnx

    from caption import CONFIGS, CaptionTransformer, ResNetConfig
    from vit_jax.checkpoint import to_arrays
    from weights_convert import load_pretrained

    recipe = config.recipe
    if config.weights is not None:
        model = load_pretrained(config.weights)
        if not isinstance(model, CaptionTransformer):
            raise InputError(f"{config.weights}: no captioner; give one's folder or checkpoint")
        settings = model.config
    elif recipe.model not in CONFIGS:
        raise InputError(f"unknown captioner {recipe.model!r}: one of {', '.join(CONFIGS)}")
    else:
        assert recipe.model is not None
        settings = replace(CONFIGS[recipe.model], vocab_size=tokenizer.vocab_size)
    if tokenizer.vocab_size != settings.vocab_size:
        raise InputError(
            f"{tokenizer.vocab_size} WordPieces, and the model has {settings.vocab_size}: another vocabulary"
        )
    if recipe.max_length - 1 > settings.max_positions:
        raise InputError(
            f"captions of {recipe.max_length} tokens need {recipe.max_length - 1} positions, and the model has "
            f"{settings.max_positions}; lower --max-length"
        )
    if recipe.longest is not None:
        if not isinstance(settings.encoder, ResNetConfig):
            raise InputError("a captioner over a ViT keeps its image size; leave out --longest")
        settings = replace(settings, preprocess=replace(settings.preprocess, longest=recipe.longest))
    if recipe.dropout is not None:
        settings = replace(settings, dropout=recipe.dropout)
    fresh = CaptionTransformer(settings, rngs=nnx.Rngs(recipe.seed))
    if config.weights is None:
        return fresh
    import jax

    return jax.tree.unflatten(jax.tree.structure(fresh), list(to_arrays(model).values()))


def _prepare(config: CaptionRun, folder: Path, *, resume: bool, cache_gb: float) -> Prepared:
    recipe, length = config.recipe, config.recipe.max_length
    if config.data == SCENES:
        from experiments.data.scenes import captions as scene_captions

        _created(folder, config, resume)
        tokenizer = _tokenizer(config, folder, lambda: iter(scene_captions("train")))
        model = _starting_model(config, tokenizer)
        shared: dict[str, Any] = dict(tokenizer=tokenizer, preprocess=model.config.preprocess, length=length)
        made = [
            Made(split=split, count=count, seed=recipe.seed, **shared)
            for split, count in (("train", SCENES_PER_EPOCH), ("val", SCENES_HELD_OUT))
        ]
        return Prepared(model, tokenizer, made[0], made[1], None)
    options: dict[str, Any] = dict(images=config.images, val_fraction=config.val_fraction, seed=recipe.seed)
    train, val = (
        _first_captions(open_captions(config.data, split, **options), config.captions_per_image)
        for split in ("train", "val")
    )
    print(f"data: {len(train):,} training and {len(val):,} validation images, {len(train.pairs()):,} training captions")
    _created(folder, config, resume)
    tokenizer = _tokenizer(config, folder, lambda: (text for some in train.captions for text in some))
    model = _starting_model(config, tokenizer)
    make = functools.partial(
        Captioned, tokenizer=tokenizer, preprocess=model.config.preprocess, augment=recipe.augment, length=length,
        seed=recipe.seed,
    )  # fmt: skip
    pictures = make(val, budget=int(cache_gb * 1e9))
    return Prepared(model, tokenizer, make(train, budget=0), pictures, pictures)


def _created(folder: Path, config: CaptionRun, resume: bool) -> None:
    if not resume:
        run.create(folder, config, kind=KIND)


def _captions(model: Any, tokenizer: Tokenizer, images: list[np.ndarray], recipe: CaptionRecipe) -> list[str]:
    """Greedy captions, in batches of the recipe's size."""
    from caption import generate
    from caption.preprocess import pad_batch

    found = []
    for start in range(0, len(images), recipe.batch_size):
        rows = images[start : start + recipe.batch_size]
        filled = rows + [rows[0]] * (recipe.batch_size - len(rows))
        batch = pad_batch(filled, model.config.preprocess.size)
        length = min(recipe.max_length, model.config.max_positions)
        ends: dict[str, Any] = dict(start=tokenizer.start, end=tokenizer.end)
        made = generate(model, batch.images, batch.mask, max_length=length, padding=recipe.padding, **ends)
        found += [tokenizer.decode(tokens) for tokens in np.asarray(made.tokens)[: len(rows)]]
    return found


def _measures(model: Any, ready: Prepared, recipe: CaptionRecipe) -> dict[str, float]:
    """The validation's captions against the true ones: the share repeated word by word, and CIDEr-D where asked for."""
    from caption.metrics import score

    if ready.pictures is None:
        examples = [ready.val.at(-1, index) for index in range(len(ready.val))]
        images = [example.image for example in examples]
        truths = [[ready.tokenizer.decode(example.tokens)] for example in examples]
    elif recipe.best_by == "loss":
        return {}
    else:
        images = [ready.pictures.picture(index) for index in range(len(ready.pictures.captions))]
        truths = [list(some) for some in ready.pictures.captions.captions]
    captions = _captions(model, ready.tokenizer, images, recipe)
    exact = np.mean([made in [text.capitalize() for text in true] for made, true in zip(captions, truths, strict=True)])
    measures = {"val_exact": float(exact)}
    if recipe.best_by == "cider":
        scores = score(dict(enumerate(captions)), dict(enumerate(truths)), java=False)
        measures["val_cider"] = scores["CIDEr-D"]
    return measures


def train_caption(folder: Path, config: CaptionRun, *, resume: bool, cache_gb: float, tensorboard: bool) -> Any:
    """Run or resume training in `folder`; answers the Outcome. Raises InputError for what the user can mend."""
    import jax
    import jax.numpy as jnp

    from caption import optimizer, save
    from experiments.training.caption_step import make_eval_step, make_train_step
    from experiments.training.checkpoints import Checkpoints
    from experiments.training.loop import Task, train
    from experiments.training.metrics import MetricsLog
    from experiments.training.sharding import divided, make_mesh, replicated
    from experiments.training.state import Totals, TrainState

    recipe = config.recipe
    mesh = make_mesh(recipe.batch_size)
    ready = _prepare(config, folder, resume=resume, cache_gb=cache_gb)
    model, size = ready.model, ready.model.config.preprocess.size
    print(f"model: {recipe.model or config.weights}, {count_parameters(model):,} parameters, {size[0]} pixels a side")
    steps = batches_per_epoch(len(ready.train), recipe.batch_size)
    tx = optimizer(
        model,
        learning_rate=rates(recipe, recipe.learning_rate, steps),
        backbone_learning_rate=rates(recipe, recipe.backbone_learning_rate, steps),
        weight_decay=recipe.weight_decay,
        b2=recipe.beta2,
        max_norm=recipe.max_norm,
        frozen_stages=recipe.frozen_stages,
        frozen_norms=not recipe.train_norms,
    )
    state = replicated(mesh, TrainState(model, tx.init(model), jnp.zeros((), jnp.int32), Totals.zeros()))
    checkpoints = Checkpoints(folder / "checkpoints")
    best = None
    if resume and checkpoints.latest() is not None:
        state, progress = checkpoints.restore(state)
        best = progress["best"]
        print(f"resuming at step {int(state.step)} of {recipe.epochs * steps}")
    log = MetricsLog(folder, step=int(state.step), tensorboard=tensorboard)
    eval_step = make_eval_step(recipe)

    def batches(epoch: int, start: int) -> Iterator[Any]:
        for batch in caption_batches(ready.train, recipe.batch_size, size, seed=recipe.seed, epoch=epoch, start=start):
            yield divided(mesh, batch)

    def validate(model: Any) -> dict[str, float]:
        parts = (eval_step(model, divided(mesh, b)) for b in caption_batches(ready.val, recipe.batch_size, size))
        total = jax.device_get(functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), parts))
        record = {"val_loss": float(total.loss / total.images), "val_accuracy": float(total.correct / total.images)}
        return record | _measures(model, ready, recipe)

    def keep_best(model: Any, record: dict[str, Any]) -> None:
        provenance = {"data": config.data, "weights": config.weights, "recipe": recipe.as_dict(), "record": record}
        save(model, folder / BEST, tokenizer=ready.tokenizer, provenance=provenance)

    score = {
        "loss": lambda record: -record["val_loss"],
        "cider": lambda record: record["val_cider"],
        "exact": lambda record: record["val_exact"],
    }[recipe.best_by]
    task = Task(batches, steps, recipe.epochs, make_train_step(tx, recipe), validate, score, keep_best)
    try:
        return train(task, state, checkpoints, log, best=best)
    finally:
        log.close()
        checkpoints.close()
        _draw(folder, config)


LABELS = {"loss": "validation loss (nats)", "cider": "validation CIDEr-D", "exact": "captions repeated exactly"}


def _draw(folder: Path, config: CaptionRun) -> None:
    from experiments.plots import plot_curves
    from experiments.training.metrics import read_metrics

    measure = config.recipe.best_by
    epochs = [record for record in read_metrics(folder / "metrics.jsonl") if f"val_{measure}" in record]
    if epochs:
        title = f"{config.recipe.model or Path(config.weights or '').stem} on {Path(config.data).name}"
        options: dict[str, Any] = dict(measure=f"val_{measure}", label=LABELS[measure], lowest=measure == "loss")
        plot_curves(epochs, folder / "curves.png", title=title, **options)


def _report(folder: Path, config: CaptionRun, outcome: Any, began: float) -> int:
    if outcome.signal is not None:
        print(f"\n{signal.Signals(outcome.signal).name}: saved at step {int(outcome.state.step)}; go on with")
        print(f"  python -m experiments.train_caption --resume {folder}")
        return 128 + outcome.signal
    measured = {name.removeprefix("val_"): value for name, value in outcome.best.items() if name.startswith("val_")}
    print(
        f"best epoch {outcome.best['epoch']}: " + ", ".join(f"{name} {value:.4f}" for name, value in measured.items())
    )
    if config.data == SCENES:
        from caption import load
        from experiments.scene_report import report

        recipe = config.recipe
        model = load(folder / BEST)
        found = report(model, load_tokenizer(folder), folder / "words", seed=recipe.seed + 1, length=recipe.max_length)
        with written_file(folder / "pointing.json") as beside:
            beside.write_text(json.dumps(found, indent=1) + "\n")
        for layer, told in found.items():
            print(
                f"a noun's map ({layer}) peaks inside its object for {told['hits']:.3f} of {told['nouns']} nouns in "
                f"held-out scenes; a random pixel for {told['chance']:.3f}"
            )
        print(f"  {folder}/words/   a map for every word of a few scenes, of the layer that points best")
    print(f"done in {time.monotonic() - began:.0f} s; {folder}/best/ is the captioner: caption your own pictures with")
    print(f"  python -m experiments.caption --weights {folder} FOLDER --out DIR")
    return 0


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command: 0 done, 2 a wrong input, 128 + signal when it was stopped and saved."""
    began = time.monotonic()
    args = _parser().parse_args(argv)
    resume = args.resume is not None
    folder, config = _old_run(args) if resume else _new_run(args)
    if not resume and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists already; give --resume to go on with that run, or another --out")
    runtime.configure()
    outcome = train_caption(folder, config, resume=resume, cache_gb=args.cache_gb, tensorboard=args.tensorboard)
    return _report(folder, config, outcome, began)


if __name__ == "__main__":
    sys.exit(main())
