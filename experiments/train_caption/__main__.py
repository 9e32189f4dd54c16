"""python -m experiments.train_caption: train a captioner, or fine-tune one.

With no arguments: a small captioner on synthetic scenes (coloured shapes in spatial relations), in a few minutes on two
CPU cores, with a heat map for every word and the fraction of nouns whose heat map peaks inside the object.
"""

import json
import sys
from pathlib import Path
from typing import Any

from caption.tokenizer import load_tokenizer
from caption.train.recipe import NO_AUGMENT, RECIPES
from caption.train.run_config import BUILD, FORMAT, SCENES, CaptionRun
from experiments.common.training import Curve, TrainingProgram, run_program
from experiments.train_caption.run import choose_recipe
from vit_jax import count_parameters
from vit_jax.cli import program_name
from vit_jax.errors import one_line_errors
from vit_jax.files import atomic_write
from vit_jax.notes import is_quiet, note
from vit_jax.train.options import RunOptions
from vit_jax.train.result import FitResult
from vit_jax.train.run_folder import BEST

CURVES = {  # by CaptionRecipe.best_by
    "loss": Curve("val_loss", "validation loss (nats)", is_loss=True),
    "cider": Curve("val_cider", "validation CIDEr-D"),
    "exact": Curve("val_exact", "captions reproduced exactly"),
}


def train(folder: Path, config: CaptionRun, options: RunOptions, *, resume: bool, cache_gb: float) -> FitResult:
    """Train in a folder, or resume there. Raises InputError for what the user can correct."""
    from caption.train import fit
    from experiments.train_caption.prepare import prepare_run

    run = prepare_run(config, folder)
    origin = f"from {config.weights}" if config.weights else f"{config.recipe.model} from scratch"
    encoder = f", over the encoder of {config.encoder}" if config.encoder else ""
    side = run.model.config.image_preprocess.size[0]
    note(f"model: {origin}{encoder}, {count_parameters(run.model):,} parameters, {side} pixels a side")
    return fit(
        run.model, run.train, run.val, config.recipe, tokenizer=run.tokenizer, out=folder, resume=resume,
        options=options, cache_gb=cache_gb, config=config, donate=True,
    )  # fmt: skip


def report(folder: Path, config: CaptionRun, best: dict[str, Any], seconds: float) -> None:
    """Print the best epoch, how well the heat maps of scenes point, and what to do next."""
    measures = (f"{name.removeprefix('val_')} {best[name]:.4f}" for name in best if name.startswith("val_"))
    print(f"best epoch {best['epoch']}: " + ", ".join(measures))
    if config.data == SCENES:
        _report_scenes(folder, config)
    hint = "" if is_quiet() else ": caption your own images with"
    print(f"done in {seconds:.0f} s; {folder}/{BEST}/ is the captioner{hint}")
    note(f"  {program_name('experiments.caption')} --weights {folder} FOLDER --out DIR")


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
    curve=lambda config, record: CURVES[config.recipe.best_by],
    report=report,
    not_paths=(("vocabulary", BUILD),),  # pip leaves a folder called build
)


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command: 0 done, 2 a wrong input, 128 + signal when it was stopped and saved."""
    return run_program(PROGRAM, argv)


if __name__ == "__main__":
    sys.exit(main())
