"""python -m experiments.train_caption: train a captioner, or fine-tune one.

With no arguments: a small captioner on synthetic scenes (coloured shapes in spatial relations), in a few minutes on two
CPU cores, with a heat map for every word and the fraction of nouns whose heat map peaks inside the object.
"""

import functools
import json
import sys
from pathlib import Path
from typing import Any

from caption.tokenizer import load_tokenizer
from caption.train.recipe import NO_AUGMENT, RECIPES
from experiments.common.training import Curve, TrainingProgram, provenance, run_program
from experiments.train_caption.run import BUILD, FORMAT, SCENES, CaptionRun, choose_recipe
from vit_jax import count_parameters
from vit_jax.checkpoint import CONFIG
from vit_jax.errors import one_line_errors
from vit_jax.files import atomic_write
from vit_jax.train.options import RunOptions
from vit_jax.train.run_folder import BEST

CURVES = {  # by CaptionRecipe.best_by
    "loss": Curve("val_loss", "validation loss (nats)", is_loss=True),
    "cider": Curve("val_cider", "validation CIDEr-D"),
    "exact": Curve("val_exact", "captions reproduced exactly"),
}


def train(folder: Path, config: CaptionRun, options: RunOptions, *, resume: bool, cache_gb: float) -> Any:
    """Train in a folder, or resume there; return the TrainOutcome. Raises InputError for what the user can correct."""
    from caption import save
    from caption.train.measures import measure_captions
    from caption.train.task import captioning_task
    from experiments.train_caption.prepare import prepare_run
    from vit_jax.train.run import run_task
    from vit_jax.train.sharding import make_mesh

    recipe = config.recipe
    mesh = make_mesh(recipe.batch_size)
    run = prepare_run(config, folder, resume=resume, cache_gb=cache_gb)
    side = run.model.config.image_preprocess.size[0]
    print(f"model: {recipe.model or config.weights}, {count_parameters(run.model):,} parameters, {side} pixels a side")

    def save_best(model: Any, record: dict[str, Any]) -> None:
        save(model, folder / BEST, tokenizer=run.tokenizer, provenance=provenance(config, record))

    task = captioning_task(
        run.model, recipe, run.train, run.val, mesh, save_best=save_best, execution=options.execution,
        measure=functools.partial(measure_captions, tokenizer=run.tokenizer, val=run.val, recipe=recipe),
    )  # fmt: skip
    return run_task(folder, task, mesh, options, resume=resume, best_file=folder / BEST / CONFIG)


def report(folder: Path, config: CaptionRun, best: dict[str, Any], seconds: float) -> None:
    """Print the best epoch, how well the heat maps of scenes point, and what to do next."""
    measures = (f"{name.removeprefix('val_')} {best[name]:.4f}" for name in best if name.startswith("val_"))
    print(f"best epoch {best['epoch']}: " + ", ".join(measures))
    if config.data == SCENES:
        _report_scenes(folder, config)
    print(f"done in {seconds:.0f} s; {folder}/{BEST}/ is the captioner: caption your own images with")
    print(f"  python -m experiments.caption --weights {folder} FOLDER --out DIR")


def _report_scenes(folder: Path, config: CaptionRun) -> None:
    from caption import load
    from experiments.train_caption.scene_report import report_scenes

    recipe, words = config.recipe, folder / "words"
    options: dict[str, Any] = dict(seed=recipe.seed + 1, length=recipe.max_length)
    layers = report_scenes(load(folder / BEST), load_tokenizer(folder), words, **options)
    with atomic_write(folder / "pointing.json") as partial:
        partial.write_text(json.dumps(layers, indent=1) + "\n")
    for layer, result in layers.items():
        print(
            f"a noun's map ({layer}) peaks inside its object for {result['hits']:.3f} of {result['nouns']} nouns in "
            f"held-out scenes; a random pixel for {result['chance']:.3f}"
        )
    print(f"  {words}/   a heat map for every word of a few scenes, of the layer that points best")


PROGRAM = TrainingProgram(
    name="train_caption",
    description="Train a captioner.",
    config=CaptionRun,
    format=FORMAT,
    default_data=SCENES,
    recipes=RECIPES,
    recipe_help="scenes for scenes, catr with weights, else small",
    no_augment=NO_AUGMENT,
    choose_recipe=choose_recipe,
    cache_gb=2.0,
    train=train,
    curve=lambda config: CURVES[config.recipe.best_by],
    report=report,
    not_paths=(("vocabulary", BUILD),),  # pip leaves a folder called build
)


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command: 0 done, 2 a wrong input, 128 + signal when it was stopped and saved."""
    return run_program(PROGRAM, argv)


if __name__ == "__main__":
    sys.exit(main())
