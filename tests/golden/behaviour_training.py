"""Behaviour of training: five steps of a classifier and of a captioner."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import caption
import vit_jax
from caption.data.loader import CaptionBatch
from caption.train.recipe import CaptionRecipe
from caption.train.task import captioning_loss
from caption.train.task import make_eval_step as make_caption_eval_step
from caption.train.task import prepare as prepare_captions
from tests.golden.behaviour_captioners import CAPTION, caption_inputs, captioner
from tests.golden.behaviour_models import by_name, fill_model
from tests.golden.behaviour_record import Results
from vit_jax.data.augment.mix import NO_MIX, MixConfig
from vit_jax.data.loader import Batch
from vit_jax.execution import BlockExecution
from vit_jax.train.classify import classification_loss, make_eval_step, make_prepare
from vit_jax.train.lora import ATTENTION, MLP, add_lora, merge_lora
from vit_jax.train.optim import make_optimizer, make_schedule
from vit_jax.train.recipe import RECIPES, Recipe
from vit_jax.train.state import init_state
from vit_jax.train.step import StepSettings, make_train_step

TINY = vit_jax.ViTConfig(
    image_size=(24, 24), patch_size=(8, 8), width=32, depth=3, num_heads=2, mlp_dim=64, num_classes=5,
    dropout=0.1, attention_dropout=0.1, drop_path=0.2, layer_scale=True,
)  # fmt: skip
RECIPE = replace(
    RECIPES["pets"], model=None, image_size=None, batch_size=8, epochs=2, learning_rate=1e-3, warmup_epochs=0.5,
    schedule="cosine", mixup=0.8, cutmix=1.0, seed=3,
)  # fmt: skip
MORE = dict(label_smoothing=0.1, clip_norm=1.0, ema=0.9, layer_decay=0.7)
STEPS = 5


def record_training(
    recipe: Recipe = RECIPE, execution: BlockExecution | None = None, dtype: str = "float32"
) -> Results:
    """Run five training steps of a tiny ViT: losses after each step, parameters after the last."""
    execution = execution or BlockExecution()
    model = fill_model(vit_jax.VisionTransformer(TINY, rngs=nnx.Rngs(0)), vit_jax)
    model = jax.tree.map(lambda x: x.astype(dtype), model)
    lora = recipe.train == "lora"
    targets = ATTENTION if recipe.lora_targets == "attention" else (*ATTENTION, *MLP)
    learned = add_lora(model, recipe.lora_rank, jax.random.key(recipe.seed), targets) if lora else model

    def full_model(learned: Any) -> Any:
        return merge_lora(learned, recipe.lora_alpha) if lora else learned

    def loss(learned: Any, *arguments: Any) -> Any:
        options: dict[str, Any] = dict(execution=execution, label_smoothing=recipe.label_smoothing)
        return classification_loss(full_model(learned), *arguments, **options)

    mixing = MixConfig(recipe.mixup, recipe.cutmix, TINY.num_classes) if recipe.mixup or recipe.cutmix else NO_MIX
    preprocess = model.config.preprocess
    tx = make_optimizer(recipe, make_schedule(recipe, 3), learned)
    settings = StepSettings(recipe.seed, recipe.accumulate, recipe.dtype, recipe.ema)
    step = make_train_step(make_prepare(recipe.augment, preprocess, mixing), loss, tx, settings)
    state = init_state(learned, tx, averaged=recipe.ema > 0)
    results: Results = {}
    for index in range(STEPS):
        batch = _picture_batch(index, short=index == 3)
        state, _ = step(state, batch)
        results[f"totals/{index}"] = np.array([float(value) for value in state.totals])
    results |= by_name("parameters", full_model(state.model))
    if state.average is not None:
        results |= by_name("average/parameters", state.average)
    totals, logits = make_eval_step(preprocess)(full_model(state.model), _picture_batch(9, short=True))
    return results | {"eval/totals": np.array([float(v) for v in totals]), "eval/logits": np.asarray(logits)}


def _picture_batch(seed: int, *, short: bool) -> Batch:
    random = np.random.RandomState(seed)
    pixels = random.randint(0, 256, (8, 24, 24, 3)).astype(np.uint8)
    weights = np.ones(8, np.float32)
    weights[6:] = 0 if short else 1
    return Batch(pixels, random.randint(0, 5, 8).astype(np.int32), weights)


def record_caption_training(
    recipe: CaptionRecipe, execution: BlockExecution | None = None, dtype: str = "float32"
) -> Results:
    """Run five training steps of a tiny captioner."""
    model, steps = captioner(CAPTION, dtype), 3
    tx = caption.make_optimizer(
        model,
        learning_rate=make_schedule(recipe, steps),
        backbone_learning_rate=make_schedule(recipe, steps, peak=recipe.backbone_learning_rate),
        weight_decay=recipe.weight_decay,
        b2=recipe.beta2,
        clip_norm=recipe.clip_norm,
        frozen_stages=recipe.frozen_stages,
        frozen_norms=not recipe.train_norms,
    )
    loss = partial(captioning_loss, recipe=recipe, execution=execution or BlockExecution())
    settings = StepSettings(recipe.seed, recipe.accumulate, recipe.dtype, recipe.ema)
    step = make_train_step(prepare_captions, loss, tx, settings)
    state = init_state(jax.tree.map(jnp.copy, model), tx, averaged=recipe.ema > 0)
    x, mask, tokens = caption_inputs(vit=False)
    results: Results = {}
    for index in range(STEPS):
        rows = np.random.RandomState(index).permutation([0, 1, 0, 1])
        weights = np.array([1, 1, 1, index != 3], np.float32)
        batch = CaptionBatch(x[rows].astype(np.float32), mask[rows], tokens[rows], weights)
        state, _ = step(state, batch)
        results[f"totals/{index}"] = np.array([float(value) for value in state.totals])
    totals = make_caption_eval_step(recipe)(state.model, batch)
    results["eval/totals"] = np.array([float(value) for value in totals])
    return results | by_name("parameters", state.model)
