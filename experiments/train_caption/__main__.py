"""python -m experiments.train_caption: train a captioner, or fine-tune one.

With no arguments: a small captioner on made scenes (coloured shapes in spatial relations), in a few minutes on two CPU
cores, with a map for every word and how often a noun's map finds its object.
"""

import functools
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from caption.data.captions import CaptionDataset, open_captions
from caption.data.loader import CaptionedImages, ExampleSource, SceneExamples, caption_batches
from caption.tokenizer import VOCABULARY_FILE, Tokenizer, build_vocabulary, load_tokenizer
from caption.train.recipe import CaptionRecipe, rates
from experiments.common import runtime
from experiments.common.models import BEST
from experiments.train_caption.run import BUILD, KIND, SCENES, CaptionRun, make_parser, new_run, old_run
from vit_jax import count_parameters
from vit_jax.checkpoint import CONFIG
from vit_jax.data.batches import batches_per_epoch, pad_batch_to
from vit_jax.errors import one_line_errors
from vit_jax.files import atomic_write
from vit_jax.train import distributed, options
from vit_jax.train import run_folder as run
from vit_jax.train.options import RunOptions

SCENES_PER_EPOCH, SCENES_HELD_OUT = 6400, 320


class Prepared(NamedTuple):
    """What a run trains on and begins with. references: the validation pictures' own captions, where there are any."""

    model: Any
    tokenizer: Tokenizer
    train: ExampleSource
    val: ExampleSource
    pictures: CaptionedImages | None


def _first_captions(captions: CaptionDataset, count: int | None) -> CaptionDataset:
    return captions if count is None else replace(captions, captions=tuple(some[:count] for some in captions.captions))


def _tokenizer(config: CaptionRun, folder: Path, texts: Callable[[], Iterator[str]]) -> Tokenizer:
    """The run's own vocabulary where it has one, else as it is told, and kept in the run's folder."""
    from weights_convert.hub.vocabulary import find_tokenizer

    if (folder / VOCABULARY_FILE).is_file():
        return load_tokenizer(folder)
    if config.vocabulary == BUILD or config.data == SCENES:
        return build_vocabulary(texts(), folder / VOCABULARY_FILE)
    tokenizer = find_tokenizer(config.vocabulary)
    tokenizer.save(folder / VOCABULARY_FILE)
    return tokenizer


def _prepare(config: CaptionRun, folder: Path, *, resume: bool, cache_gb: float) -> Prepared:
    from experiments.train_caption.start import starting_captioner

    recipe, length = config.recipe, config.recipe.max_length
    if config.data == SCENES:
        from caption.data.scenes import scene_captions as scene_captions

        _created(folder, config, resume)
        tokenizer = _tokenizer(config, folder, lambda: iter(scene_captions("train")))
        model = starting_captioner(config, tokenizer.vocab_size)
        shared: dict[str, Any] = dict(tokenizer=tokenizer, preprocess=model.config.image_preprocess, length=length)
        made = [
            SceneExamples(split=split, count=count, seed=recipe.seed, **shared)
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
    model = starting_captioner(config, tokenizer.vocab_size)
    make = functools.partial(
        CaptionedImages, tokenizer=tokenizer, preprocess=model.config.image_preprocess, augment=recipe.augment,
        length=length, seed=recipe.seed,
    )  # fmt: skip
    pictures = make(val, budget=int(cache_gb * 1e9))
    return Prepared(model, tokenizer, make(train, budget=0), pictures, pictures)


def _created(folder: Path, config: CaptionRun, resume: bool) -> None:
    if not resume and distributed.is_first_process():
        run.create_run_folder(folder, config, kind=KIND)
    distributed.sync_processes("run folder")


def _captions(model: Any, tokenizer: Tokenizer, images: list[np.ndarray], recipe: CaptionRecipe) -> list[str]:
    """Greedy captions, in batches of the recipe's size."""
    from caption import generate
    from caption.preprocess import pad_batch

    found = []
    for start in range(0, len(images), recipe.batch_size):
        rows = images[start : start + recipe.batch_size]
        padded, _ = pad_batch_to(recipe.batch_size, rows, rows[0])
        batch = pad_batch(padded, model.config.image_preprocess.size)
        length = min(recipe.max_length, model.config.max_positions)
        ends: dict[str, Any] = dict(start=tokenizer.start, end=tokenizer.end)
        made = generate(model, batch.images, batch.mask, max_length=length, padding=recipe.padding, **ends)
        found += [tokenizer.decode(tokens) for tokens in np.asarray(made.tokens)[: len(rows)]]
    return found


def _measures(model: Any, ready: Prepared, recipe: CaptionRecipe) -> dict[str, float]:
    """The validation's captions against the true ones: the share repeated word by word, and CIDEr-D where asked for."""
    from caption.scoring.metrics import score_captions

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
        scores = score_captions(dict(enumerate(captions)), dict(enumerate(truths)), java=False)
        measures["val_cider"] = scores["CIDEr-D"]
    return measures


def train(folder: Path, config: CaptionRun, how: RunOptions, *, resume: bool, cache_gb: float) -> Any:
    """Run or resume training in `folder`; answers the Outcome. Raises InputError for what the user can mend."""
    import jax
    import jax.numpy as jnp

    from caption import make_optimizer, save
    from caption.train.task import captioning_loss, make_eval_step, prepare
    from vit_jax.train.loop import TrainTask
    from vit_jax.train.run import run_task
    from vit_jax.train.sharding import local_replica, make_mesh, process_rows, shard_batch
    from vit_jax.train.step import StepSettings

    recipe = config.recipe
    mesh, rows = make_mesh(recipe.batch_size), process_rows(recipe.batch_size)
    ready = _prepare(config, folder, resume=resume, cache_gb=cache_gb)
    model, size = ready.model, ready.model.config.image_preprocess.size
    print(f"model: {recipe.model or config.weights}, {count_parameters(model):,} parameters, {size[0]} pixels a side")
    steps = batches_per_epoch(len(ready.train), recipe.batch_size)
    tx = make_optimizer(
        model,
        learning_rate=rates(recipe, recipe.learning_rate, steps),
        backbone_learning_rate=rates(recipe, recipe.backbone_learning_rate, steps),
        weight_decay=recipe.weight_decay,
        b2=recipe.beta2,
        max_norm=recipe.max_norm,
        frozen_stages=recipe.frozen_stages,
        frozen_norms=not recipe.train_norms,
    )
    eval_step = make_eval_step(recipe)

    def batches(epoch: int, start: int) -> Iterator[Any]:
        options: dict[str, Any] = dict(seed=recipe.seed, epoch=epoch, start=start, rows=rows)
        for batch in caption_batches(ready.train, recipe.batch_size, size, **options):
            yield shard_batch(mesh, batch)

    def validate(model: Any) -> dict[str, float]:
        ordered = caption_batches(ready.val, recipe.batch_size, size, rows=rows)
        parts = (eval_step(model, shard_batch(mesh, batch)) for batch in ordered)
        total = jax.device_get(functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), parts))
        record = {"val_loss": float(total.loss / total.images), "val_accuracy": float(total.correct / total.images)}
        return record | _measures(local_replica(mesh, model), ready, recipe)

    def keep_best(model: Any, record: dict[str, Any]) -> None:
        provenance = {"data": config.data, "weights": config.weights, "recipe": recipe.as_dict(), "record": record}
        whole = local_replica(mesh, model)
        if distributed.is_first_process():
            save(whole, folder / BEST, tokenizer=ready.tokenizer, provenance=provenance)

    score = {
        "loss": lambda record: -record["val_loss"],
        "cider": lambda record: record["val_cider"],
        "exact": lambda record: record["val_exact"],
    }[recipe.best_by]
    task = TrainTask(
        model=model,
        tx=tx,
        prepare=prepare,
        loss_of=functools.partial(captioning_loss, recipe=recipe, execution=how.execution),
        settings=StepSettings(recipe.seed, recipe.accumulate, recipe.dtype, recipe.ema),
        batches=batches,
        batch_size=recipe.batch_size,
        steps_per_epoch=steps,
        epochs=recipe.epochs,
        validate=validate,
        score=score,
        keep_best=keep_best,
        patience=recipe.patience,
    )
    try:
        return run_task(folder, task, mesh, how, resume=resume, best_kept=folder / BEST / CONFIG)
    finally:
        if distributed.is_first_process():
            _draw(folder, config)


LABELS = {"loss": "validation loss (nats)", "cider": "validation CIDEr-D", "exact": "captions repeated exactly"}


def _draw(folder: Path, config: CaptionRun) -> None:
    from experiments.common.plots import plot_curves
    from vit_jax.train.logging import read_metrics

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
        from experiments.train_caption.scene_report import report

        recipe = config.recipe
        model = load(folder / BEST)
        found = report(model, load_tokenizer(folder), folder / "words", seed=recipe.seed + 1, length=recipe.max_length)
        with atomic_write(folder / "pointing.json") as beside:
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
    args = make_parser().parse_args(argv)
    resume = args.resume is not None
    folder, config = old_run(args) if resume else new_run(args)
    if not resume and not args.process:  # of several processes the first one makes it
        run.check_unused(folder)
    runtime.configure(compile_cache=args.compile_cache)
    distributed.initialize(args)
    outcome = train(folder, config, options.parse_run_options(args), resume=resume, cache_gb=args.cache_gb)
    return _report(folder, config, outcome, began)


if __name__ == "__main__":
    sys.exit(main())
