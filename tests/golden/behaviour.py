"""Record the numerical behaviour of the library, and compare a later version with the record.

    python -m tests.golden.behaviour record  tests/golden/behaviour.npz
    python -m tests.golden.behaviour compare tests/golden/behaviour.npz [--only GROUP ...]

`compare` is strict: it exits 1 unless every recorded array is equal to the bit. Bitwise equality depends on the
processor, so compare on the machine that recorded. tests/test_unchanged.py compares the stored samples within bounds.

Every parameter follows the golden rule (tests/reference.py), so no weights are stored. behaviour_shapes.json holds the
names and shapes of one small checkpoint per family; `record` does not change it. A record keeps the sha256 and up to
64 values of each array, and texts (flags, help) in full.
"""

import os

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_experimental_ynn_fusion_type= --xla_backend_optimization_level=0")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")

import argparse
import hashlib
import json
import platform
import runpy
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from PIL import Image
from safetensors.numpy import load_file, save_file

# Public names; these stay.
import caption
import vit_jax
import weights_convert

# Names of modules that may move: a later version changes only these lines.
from caption.data.augment import CaptionAugment
from caption.data.augment import augment_image as training_input
from caption.data.loader import CaptionBatch, caption_batches
from caption.data.loader import SceneExamples as Made
from caption.data.scenes import make_scene as scene
from caption.data.scenes import scene_captions
from caption.preprocess import CaptionPreprocess, pad_batch
from caption.scoring.metrics import score_images
from caption.tokenizer import Tokenizer
from caption.train.recipe import RECIPES as CAPTION_RECIPES
from caption.train.recipe import CaptionRecipe
from caption.train.task import captioning_loss as caption_loss_of
from caption.train.task import make_eval_step as make_caption_eval_step
from caption.train.task import prepare as prepare_captions
from tests.reference import golden_array
from vit_jax.data.augment.mix import NO_MIX as NO_MIXING
from vit_jax.data.augment.mix import MixConfig as Mixing
from vit_jax.data.augment.mix import mix_batch
from vit_jax.data.augment.transforms import Augment
from vit_jax.data.augment.transforms import augment_batch as augment
from vit_jax.data.digits import open_digits
from vit_jax.data.loader import Batch, ordered_batches, training_batches
from vit_jax.data.loader import CachedImages as Pictures
from vit_jax.execution import BlockExecution
from vit_jax.train.classify import classification_loss as loss_of
from vit_jax.train.classify import make_eval_step, make_prepare
from vit_jax.train.lora import ATTENTION, MLP, add_lora, merge_lora
from vit_jax.train.optim import make_optimizer as optimizer
from vit_jax.train.optim import make_schedule as learning_rates
from vit_jax.train.recipe import RECIPES, Recipe
from vit_jax.train.state import init_state as first_state
from vit_jax.train.step import StepSettings, make_train_step

SHAPES = json.loads(Path(__file__).with_name("behaviour_shapes.json").read_text())
COMMANDS = (
    "experiments.benchmark",
    "experiments.caption",
    "experiments.evaluate",
    "experiments.explain",
    "experiments.finetune",
    "experiments.predict",
    "experiments.report",
    "experiments.sweep",
    "experiments.train_caption",
    "weights_convert",
)
FEW_SAMPLES = ("/gradient/", "/converted/", "/exported/", "/parameters/")  # 16 values in place of 64
WORDING = "help/"  # reported by compare, but not held against a version: help texts may be reworded
Results = dict[str, Any]  # name -> numpy array or str


def parameter_name(path: tuple[Any, ...]) -> str:
    """Return the dotted name of a leaf, as saved models spell it: blocks.0.attn.qkv.kernel."""
    parts = [str(getattr(entry, "name", getattr(entry, "idx", getattr(entry, "key", entry)))) for entry in path]
    return ".".join(parts[:-1] if parts[-1] == "value" else parts)


def by_name(prefix: str, tree: Any) -> Results:
    """Return every leaf of a model under its dotted name."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {f"{prefix}/{parameter_name(path)}": np.asarray(leaf) for path, leaf in leaves}


def flat_config(prefix: str, config: Mapping[str, Any]) -> Results:
    """Return every field of a config as text, nested ones under a dotted name."""
    flat: Results = {}
    for name, value in config.items():
        flat |= flat_config(f"{prefix}{name}.", value) if isinstance(value, dict) else {prefix + name: repr(value)}
    return flat


def images(seed: int, *shape: int) -> np.ndarray:
    """Return uniform values in [-1, 1]."""
    return np.random.RandomState(seed).uniform(-1, 1, shape)


def fill_model(model: Any, package: Any) -> Any:
    """Return the model with every parameter set by the golden rule, through the package's save and load."""
    with tempfile.TemporaryDirectory() as folder:
        package.save(model, Path(folder, "model"))
        file = Path(folder, "model", "model.safetensors")
        arrays = {name: golden_array(_torch_like(name), array.shape) for name, array in load_file(file).items()}
        save_file(arrays, file)
        return package.load(Path(folder, "model"))


def _torch_like(name: str) -> str:
    """Spell norm scales and variances as the golden rule expects them."""
    return name.replace(".scale", ".weight").replace(".var", ".running_var")


def write_checkpoint(folder: Path, family: Mapping[str, Any]) -> Path:
    """Write a family's rule-filled checkpoint and its sidecar config; return the checkpoint's path."""
    arrays = {name: golden_array(name, tuple(shape)) for name, shape in family["shapes"].items()}
    path = folder / family["file"]
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    for name, content in family["sidecar"].items():
        (folder / name).write_text(json.dumps(content))
    return path


def attempt(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the compiled function's result, or "refused" where it raises InputError."""
    try:
        return jax.tree.map(np.asarray, jax.jit(function)(*arguments))
    except vit_jax.InputError:
        return "refused"


@cache
def converted_model(name: str) -> tuple[Any, Results]:
    """Return a family's model in float64, with the arrays that conversion and export produce."""
    family = SHAPES[name]
    arguments = {key: tuple(v) if isinstance(v, list) else v for key, v in family["arguments"].items()}
    with tempfile.TemporaryDirectory() as folder:
        model = weights_convert.convert(write_checkpoint(Path(folder), family), **arguments)
    results: Results = flat_config("config/", asdict(model.config)) | by_name("converted", model)
    exported = weights_convert.export(model, layout=family["layout"])
    return model, results | {f"exported/{key}": array for key, array in exported.items()}


def record_family(name: str) -> Results:
    """Compute a classifier family: conversion, forward pass, attention, explanation maps and gradients."""
    model, results = converted_model(name)
    x, labels = images(5, 2, *model.config.image_size, 3), jnp.array([1, 3])
    many = jnp.array([[0, 3, 5], [2, 1, 6]])
    output = attempt(vit_jax.forward_with_attention, model, x)
    results = results | dict(output._asdict())
    results["call"] = attempt(lambda m, x: m(x), model, x)
    results["call_other_size"] = attempt(lambda m, x: m(x), model, images(6, 1, 48, 40, 3))
    results["call_dropout"] = attempt(lambda m, x: m(x, key=jax.random.key(7)), model, x)
    for fusion in ("mean", "max", "min"):
        options: dict[str, Any] = dict(head_fusion=fusion, layers=(-1, 0) if fusion == "max" else None)
        fused = attempt(partial(vit_jax.forward_with_attention, **options), model, x)
        results[f"attention_{fusion}"] = fused.attention
    maps = explanation_maps(model, x, output.attention, labels, many, every_shape=name in ("lukemelas", "timm_gap"))
    results |= {f"maps/{key}": value for key, value in maps.items()}

    def loss(model: Any) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(model(x), labels).mean()

    results["loss"], gradient = jax.tree.map(np.asarray, jax.jit(jax.value_and_grad(loss))(model))
    return results | by_name("gradient", gradient)


def explanation_maps(
    model: Any, x: np.ndarray, attention: np.ndarray, labels: jax.Array, many: jax.Array, *, every_shape: bool
) -> Results:
    """Compute every explanation map of a classifier; a map that the family does not support is "refused"."""
    prefix, tokens, v = model.config.num_prefix, attention.shape[-1], vit_jax
    rollout = partial(v.attention_rollout, class_token=model.config.class_token)
    maps: dict[str, tuple[Any, ...]] = {
        "readout": (lambda m: v.readout(m, tokens), model),
        "rollout": (rollout, attention),
        "rollout_readout": (lambda m, a: rollout(a, query=v.readout(m, tokens)), model, attention),
        "rollout_discard": (partial(rollout, head_fusion="max", discard_ratio=0.3, start_layer=-1, query=0), attention),
        "rollout_images": (partial(v.rollout_from_images, discard_ratio=0.2), model, x),
        "cls_attention": (partial(v.cls_attention, num_prefix=prefix), attention),
        "flow": (v.attention_flow, model, x[:1]),
        "position_similarity": (v.position_similarity, model),
    }
    per_class = {
        "grad_rollout": v.grad_rollout,
        "relevance": v.relevance,
        "relevance_start": partial(v.relevance, start_layer=1),
        "gradcam": v.attention_gradcam,
        "integrated_gradients": partial(v.integrated_gradients, steps=4),
        "rise": partial(v.rise, num_masks=10, batch_size=8),
    }
    for name, function in per_class.items():
        maps[f"{name}_per_class"] = (function, model, x, many)
        if name == "relevance" or every_shape:  # the other functions share the handling of targets [B]
            maps[name] = (function, model, x, labels)
    results: Results = {}
    for name, call in maps.items():
        value = attempt(*call)
        parts = value._asdict() if hasattr(value, "_asdict") else {"": value}
        results |= {f"{name}.{key}" if key else name: part for key, part in parts.items()}
    return results


def record_surgery() -> Results:
    """Compute other image sizes and heads, and the scores of a map."""
    model, _ = converted_model("timm_deit3")
    x, labels = images(5, 2, 32, 32, 3), jnp.array([1, 3])
    results = by_name("larger/parameters", vit_jax.with_image_size(model, (48, 40)))
    results |= by_name("head/parameters", vit_jax.with_num_classes(model, 3))
    maps = vit_jax.relevance(model, x, labels)
    heat = vit_jax.upsample(vit_jax.to_grid(maps, (4, 4)), (32, 32))
    results |= {"heat": heat, "overlay": vit_jax.overlay(np.clip((x + 1) / 2, 0, 1), heat)}
    mask = np.zeros((2, 32, 32), bool)
    mask[:, 8:20, 10:28] = True
    scores = {
        "insertion_deletion": vit_jax.insertion_deletion(model, x, maps, labels, steps=4),
        "perturbation_auc": vit_jax.perturbation_auc(model, x, maps, labels, steps=4),
        "pointing_game": vit_jax.pointing_game(heat, mask),
        "segmentation_scores": vit_jax.segmentation_scores(heat, mask),
    }
    for name, value in scores.items():
        results |= {f"{name}/{i}": part for i, part in enumerate(jax.tree.leaves(value))}
    return results


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
        return loss_of(full_model(learned), *arguments, **options)

    mixing = Mixing(recipe.mixup, recipe.cutmix, TINY.num_classes) if recipe.mixup or recipe.cutmix else NO_MIXING
    preprocess = model.config.preprocess
    tx = optimizer(recipe, learning_rates(recipe, 3), learned)
    settings = StepSettings(recipe.seed, recipe.accumulate, recipe.dtype, recipe.ema)
    step = make_train_step(make_prepare(recipe.augment, preprocess, mixing), loss, tx, settings)
    state = first_state(learned, tx, averaged=recipe.ema > 0)
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


CAPTION = caption.CaptionConfig(
    encoder=caption.ResNetConfig(stage_depths=(1, 2, 1, 2), stage_widths=(4, 4, 8, 8), stem_width=4),
    width=16, num_heads=4, mlp_dim=24, encoder_layers=2, decoder_layers=2, head_width=20, vocab_size=31,
    max_positions=12, dropout=0.3, preprocess=CaptionPreprocess(longest=48),
)  # fmt: skip
OVER_VIT = replace(
    CAPTION, encoder=vit_jax.ViTConfig(
        image_size=(48, 48), patch_size=(16, 16), width=24, depth=2, num_heads=3, mlp_dim=32, num_classes=0,
    ), encoder_layers=0,
)  # fmt: skip
WORDS = "a an red green blue yellow purple orange circle square triangle cross above below left right of the"
TOKENIZER = Tokenizer(
    ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS.split(), "##s", "cat", "dog", "##gy", "on", "mat", ".", ",", "two")
)
TEXTS = ("A red circle above a blue square.", "two doggy cats on the mat")


@cache
def captioner(config: caption.CaptionConfig, dtype: str) -> Any:
    """Return a rule-filled captioner."""
    model = fill_model(caption.CaptionTransformer(config, rngs=nnx.Rngs(0)), caption)
    return jax.tree.map(lambda x: x.astype(dtype), model)


def caption_inputs(*, vit: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return three images with masks, and the tokens of two captions."""
    x, mask = images(8, 3, 48, 48, 3), np.zeros((3, 48, 48), bool)
    for row, (height, width) in enumerate([(48, 48), (36, 48), (48, 20)]):
        mask[row, : 48 if vit else height, : 48 if vit else width] = True
    return np.where(mask[..., None], x, 0), mask, TOKENIZER.encode_batch(TEXTS, 12).tokens


def record_captioner(model: Any, *, vit: bool = False) -> Results:
    """Compute a captioner: teacher-forced pass, gradients, generated captions, word maps."""
    x, mask, tokens = caption_inputs(vit=vit)
    text = (x[:2], mask[:2], tokens, tokens != 0)
    results: Results = {}
    for padding in ("alone", "reference"):
        output = attempt(partial(caption.forward_with_attention, padding=padding), model, *text)
        results |= {f"{padding}/{field}": np.asarray(getattr(output, field)) for field in output._fields}
    results["dropout/logits"] = attempt(lambda m, *a: m(*a, key=jax.random.key(2)), model, *text)

    def loss(model: Any) -> jax.Array:
        logits = model(x[:2], mask[:2], tokens[:, :-1], tokens[:, :-1] != 0)
        return caption.caption_loss(logits, tokens[:, 1:], ignore_token=0, label_smoothing=0.1)

    results["loss"], gradient = jax.tree.map(np.asarray, jax.jit(jax.value_and_grad(loss))(model))
    results |= by_name("gradient", gradient)
    ends: dict[str, Any] = dict(max_length=10, start=TOKENIZER.start, end=TOKENIZER.end)
    searches: dict[str, dict[str, Any]] = {
        "greedy": {},
        "beams": dict(num_beams=3, n_best=3, length_penalty=0.7, no_repeat_ngram=2),
        "beams_reference": dict(num_beams=2, padding="reference"),
    }
    for name, options in searches.items():
        found = caption.generate(model, x, mask, **ends, **options)
        results |= {f"{name}/{field}": np.asarray(getattr(found, field)) for field in found._fields}
    results["greedy/text"] = " | ".join(TOKENIZER.decode(row) for row in np.asarray(results["greedy/tokens"]))
    row = tokens[0][tokens[0] != 0]
    content = caption.content_size(mask[0], output.grid)
    for name, options in {"mean": {}, "head": dict(layer=0, head=1, content=content)}.items():
        words = caption.word_attention(output, row, TOKENIZER, **options)
        results[f"word_attention/{name}"] = np.stack([heat for _, heat in words])
        results["word_attention/words"] = " ".join(word for word, _ in words)
    results["word_relevance"] = caption.word_relevance(model, x[:1], mask[:1], row[None])
    return results


def record_catr() -> Results:
    """Compute the conversion of a small CATR checkpoint, and its captioner."""
    model, results = converted_model("catr")
    return results | record_captioner(model)


def record_caption_training(
    recipe: CaptionRecipe, execution: BlockExecution | None = None, dtype: str = "float32"
) -> Results:
    """Run five training steps of a tiny captioner."""
    model, steps = captioner(CAPTION, dtype), 3
    tx = caption.make_optimizer(
        model,
        learning_rate=learning_rates(recipe, steps),
        backbone_learning_rate=learning_rates(recipe, steps, peak=recipe.backbone_learning_rate),
        weight_decay=recipe.weight_decay,
        b2=recipe.beta2,
        clip_norm=recipe.clip_norm,
        frozen_stages=recipe.frozen_stages,
        frozen_norms=not recipe.train_norms,
    )
    loss = partial(caption_loss_of, recipe=recipe, execution=execution or BlockExecution())
    settings = StepSettings(recipe.seed, recipe.accumulate, recipe.dtype, recipe.ema)
    step = make_train_step(prepare_captions, loss, tx, settings)
    state = first_state(jax.tree.map(jnp.copy, model), tx, averaged=recipe.ema > 0)
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


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """Return a synthetic picture: smooth gradients, two boxes and noise."""
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([255 * rows / height, 255 * columns / width, 127 + 90 * np.sin(rows / 5 + columns / 7)], axis=-1)
    pixels[height // 4 : height // 2, width // 3 : width // 2] = (250, 20, 30)
    pixels += np.random.RandomState(seed).uniform(-20, 20, pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def record_data() -> Results:
    """Compute preprocessing, augmentation, mixing, batches of digits and of scenes."""
    results: Results = {}
    for kernel in ("nearest", "bilinear", "bicubic", "lanczos"):
        for crop in (None, 0.875):
            settings = vit_jax.Preprocess((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), kernel, crop)
            size = vit_jax.ImagePreprocess((30, 40), settings)
            results[f"preprocess/{kernel}_{crop}"] = size(picture(97, 120))
    shrunk = [CaptionPreprocess(longest=50)(picture(*sides)) for sides in ((97, 120), (64, 33))]
    results |= {f"pad_batch/{i}": part for i, part in enumerate(pad_batch(shrunk, (50, 50)))}
    pixels = np.stack([np.asarray(picture(32, 32, seed)) for seed in range(4)])
    strong = dict(rand_ops=2, rand_magnitude=20)
    kinds = {"plain": Augment(), "rand": Augment(**strong), "crop": Augment(crop_scale=(0.2, 0.9), degrees=30.0)}
    kinds |= {name: RECIPES[name].augment for name in RECIPES}
    for name, settings in kinds.items():
        for seed in (0, 1):
            run = jax.jit(lambda key, x, settings=settings: augment(key, x, settings))
            results[f"augment/{name}_{seed}"] = run(jax.random.key(seed), pixels)
    shares = np.eye(4, dtype=np.float32)
    mixings = {"mixup": Mixing(0.8, 0.0, 4), "cutmix": Mixing(0.0, 1.0, 4), "both": Mixing(0.8, 1.0, 4)}
    for name, mixing in mixings.items():
        mixed = jax.jit(lambda key, *a, mixing=mixing: mix_batch(key, *a, mixing))
        values = mixed(jax.random.key(4), jnp.float32(pixels / 255), shares, jnp.array([1.0, 1, 1, 0], jnp.float32))
        results |= {f"mix/{name}_{part}": value for part, value in zip(("images", "shares"), values, strict=True)}
    for seed in (0, 1):
        rng, settings = np.random.default_rng(seed), CaptionAugment()
        results[f"caption_augment/{seed}"] = training_input(picture(60, 80), CaptionPreprocess(40), settings, rng)
    return results | _batches()


def _batches() -> Results:
    results: Results = {}
    digits = open_digits(seed=1)
    preprocess = vit_jax.ImagePreprocess((24, 24))
    train, val = (Pictures(split, preprocess, budget=10**7) for split in (digits.train, digits.val))
    epoch = list(training_batches(train, 300, seed=2, epoch=1, start=1))
    for name, batch in {"train": epoch[0], "train_last": epoch[-1], "val": next(ordered_batches(val, 64))}.items():
        results |= {f"digits/{name}_{field}": getattr(batch, field) for field in batch._fields}
    for index in range(3):
        made = scene(3, index, split="val")
        results |= {f"scenes/{index}_image": made.image, f"scenes/{index}_caption": made.caption}
    results["scenes/captions"] = "\n".join(scene_captions("train"))
    examples = Made("train", 6, 0, TOKENIZER, CaptionPreprocess(longest=64), 14)
    batch = next(caption_batches(examples, 4, (64, 64), seed=1, epoch=2))
    return results | {f"scenes/batch_{field}": getattr(batch, field) for field in batch._fields}


def record_scores() -> Results:
    """Compute BLEU, ROUGE-L and CIDEr-D of fixed captions."""
    predictions = {1: "A man's dog runs on the grass.", 2: "two cats, sleeping", 3: "a red bus can't stop at U.S. 5"}
    references = {
        1: ["A dog is running on grass.", "The man's dog runs over the green grass"],
        2: ["Two cats are sleeping on a bed.", "a pair of cats", "two sleeping cats"],
        3: ["A red double-decker bus stops.", "the bus can't stop"],
    }
    scores = score_images(predictions, references, java=False)
    results = {f"overall/{name}": np.float64(value) for name, value in scores.overall.items()}
    return results | {
        f"image_{image}/{name}": np.float64(value)
        for image, values in scores.by_image.items()
        for name, value in values.items()
    }


class _ParserFound(BaseException):
    """Carry a command's parser out of its main function."""


def parser_of(command: str) -> argparse.ArgumentParser:
    """Return the argument parser that `python -m command` builds; the command itself does not run."""

    def capture(self: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        raise _ParserFound(self)

    patches = [mock.patch.object(argparse.ArgumentParser, name, capture) for name in ("parse_args", "parse_known_args")]
    modules = {name: module for name, module in sys.modules.items() if name == command}
    with patches[0], patches[1], mock.patch.object(sys, "argv", [command]):
        for name in modules:  # runpy warns of a module that is imported already
            del sys.modules[name]
        try:
            runpy.run_module(command, run_name="__main__")
        except _ParserFound as found:
            return found.args[0]
        finally:
            sys.modules.update(modules)
    raise AssertionError(f"{command} parses no arguments")


def record_commands() -> Results:
    """Read every command's flags (with defaults, choices, arity) and help text, subcommands included."""
    results: Results = {}
    with mock.patch.dict(os.environ, COLUMNS="120"):
        for command in COMMANDS:
            pending = [(command, parser_of(command))]
            while pending:
                name, parser = pending.pop()
                results[f"help/{name}"] = parser.format_help()
                for action in parser._actions:
                    if isinstance(action, argparse._SubParsersAction):
                        pending += [(f"{name} {key}", sub) for key, sub in action.choices.items()]
                    stated = {key: repr(getattr(action, key)) for key in ("default", "const", "nargs", "required")}
                    choices = None if action.choices is None else sorted(map(str, action.choices))
                    for flag in action.option_strings or [action.dest]:
                        results[f"flags/{name}/{flag}"] = json.dumps(stated | {"choices": choices})
    return results


SCAN = BlockExecution(scan=True, remat="dots")
SCENES = replace(CAPTION_RECIPES["scenes"], batch_size=4, epochs=2)
REFERENCE = replace(CAPTION_RECIPES["catr"], batch_size=4, epochs=2, max_length=12, learning_rate=1e-3)
# Group -> (function, whether it runs with 64-bit arithmetic enabled).
GROUPS: dict[str, tuple[Callable[[], Results], bool]] = {
    **{name: (partial(record_family, name), True) for name in SHAPES if name != "catr"},
    "catr": (record_catr, True),
    "captioner_resnet": (lambda: record_captioner(captioner(CAPTION, "float64")), True),
    "captioner_vit": (lambda: record_captioner(captioner(OVER_VIT, "float64"), vit=True), True),
    "surgery": (record_surgery, True),
    "train": (record_training, False),
    "train_float64": (partial(record_training, dtype="float64"), True),
    "train_regularised": (partial(record_training, replace(RECIPE, **MORE)), False),
    "train_digits": (partial(record_training, replace(RECIPES["digits"], epochs=2)), False),
    "train_lora": (partial(record_training, replace(RECIPE, train="lora", lora_targets="all", lora_rank=3)), False),
    "train_head": (partial(record_training, replace(RECIPE, train="head")), False),
    "train_accumulate": (partial(record_training, replace(RECIPE, accumulate=2)), False),
    "train_bfloat16": (partial(record_training, replace(RECIPE, dtype="bfloat16")), False),
    "train_scan": (partial(record_training, execution=SCAN), False),
    "train_remat": (partial(record_training, execution=BlockExecution(remat="full")), False),
    "caption_train": (partial(record_caption_training, SCENES), False),
    "caption_train_float64": (partial(record_caption_training, REFERENCE, dtype="float64"), True),
    "caption_train_scan": (partial(record_caption_training, replace(SCENES, accumulate=2, ema=0.9), SCAN), False),
    "caption_train_bfloat16": (partial(record_caption_training, replace(REFERENCE, dtype="bfloat16")), False),
    "data": (record_data, False),
    "scores": (record_scores, False),
    "commands": (record_commands, False),
}


def compute(group: str) -> Results:
    """Run one group; return its results under "GROUP/", the commands' under their own prefixes."""
    function, double = GROUPS[group]
    with jax.enable_x64(double):
        results = function()
    prefix = "" if group == "commands" else f"{group}/"
    return {prefix + name: v if isinstance(v, str) else np.asarray(v) for name, v in results.items()}


def group_of(name: str) -> str:
    """Return the group that a result's name belongs to."""
    first = name.partition("/")[0]
    return "commands" if first in ("help", "flags") else first


def sample(name: str, array: np.ndarray) -> np.ndarray:
    """Return up to 64 evenly strided values in float64, 16 of parameters and gradients."""
    most = 16 if any(part in name for part in FEW_SAMPLES) else 64
    flat = array.ravel()
    return flat[:: max(1, -(-flat.size // most))].astype(np.float64)


def digest(array: np.ndarray) -> str:
    """Return the sha256 of an array's type, shape and bytes."""
    kind = f"{array.dtype.name} {array.shape} ".encode()
    return hashlib.sha256(kind + np.ascontiguousarray(array).tobytes()).hexdigest()


def processor() -> str:
    """Return the processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def write_record(path: Path, results: Results) -> None:
    """Write the digests and samples of all arrays, and all texts."""
    arrays = {name: value for name, value in results.items() if not isinstance(value, str)}
    samples = [sample(name, array) for name, array in arrays.items()]
    index = {
        "recorded_on": f"{processor()}, jax {jax.__version__}",
        "texts": {name: value for name, value in results.items() if isinstance(value, str)},
        "arrays": {name: [array.dtype.name, list(array.shape)] for name, array in arrays.items()},
        "lengths": [len(values) for values in samples],
    }
    digests = np.frombuffer(bytes.fromhex("".join(map(digest, arrays.values()))), np.uint8)
    text = np.frombuffer(json.dumps(index).encode(), np.uint8)
    np.savez_compressed(path, index=text, digests=digests.reshape(-1, 32), samples=np.concatenate(samples))


def read_record(path: Path) -> dict[str, Any]:
    """Return name -> text, or name -> (digest, type, shape, samples)."""
    with np.load(path) as stored:
        index, digests, samples = json.loads(stored["index"].tobytes()), stored["digests"], stored["samples"]
    ends = np.cumsum(index["lengths"])
    record: dict[str, Any] = dict(index["texts"])
    for row, (name, (dtype, shape)) in enumerate(index["arrays"].items()):
        values = samples[ends[row] - index["lengths"][row] : ends[row]]
        record[name] = (digests[row].tobytes().hex(), dtype, tuple(shape), values)
    return record


def largest_difference(name: str, recorded: Any, value: Any, *, floor: float = 0.0) -> float:
    """Return the largest difference of the samples, relative to their largest value (at least `floor`).

    Infinite where type or shape differ, or where other values are finite.
    """
    if isinstance(recorded, str) or isinstance(value, str):
        return 0.0 if is_equal(name, recorded, value) else float("inf")
    _, dtype, shape, samples = recorded
    if (value.dtype.name, value.shape) != (dtype, shape):
        return float("inf")
    found, finite = sample(name, value), np.isfinite(samples)
    if not np.array_equal(np.isfinite(found), finite):
        return float("inf")
    scale = max(floor, np.abs(samples[finite]).max(initial=0.0))
    return float(np.abs(found[finite] - samples[finite]).max(initial=0.0) / (scale or 1.0))


def is_equal(name: str, recorded: Any, value: Any) -> bool:
    """Return whether a result equals the record to the bit; a flag may have gained choices."""
    if isinstance(recorded, str) != isinstance(value, str):
        return False
    if not isinstance(recorded, str):
        return recorded[0] == digest(value)
    if not name.startswith("flags/"):
        return recorded == value
    old, new = json.loads(recorded), json.loads(value)
    kept = old["choices"] is None or (new["choices"] is not None and set(old["choices"]) <= set(new["choices"]))
    return kept and old | {"choices": None} == new | {"choices": None}


def compare(record: Mapping[str, Any], results: Results) -> int:
    """Print every result that differs from the record; return how many do."""
    differing = 0
    for name, recorded in record.items():
        if name not in results:
            print(f"MISSING   {name}")
            differing += 1
        elif not is_equal(name, recorded, results[name]):
            counts = not name.startswith(WORDING)
            differing += counts
            difference = largest_difference(name, recorded, results[name])
            print(f"{'DIFFERS' if counts else 'reworded':9} {name}: {difference:.3g}")
        else:
            print(f"equal     {name}")
    new = [name for name in results if name not in record]
    print(f"{len(record)} recorded, {differing} differ or are missing, {len(new)} new")
    return differing


def main(argv: list[str] | None = None) -> int:
    """Record, or compare: exit code 0 where all is equal, 1 where something differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden.behaviour", description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("record", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", nargs="+", choices=GROUPS, metavar="GROUP", help=", ".join(GROUPS))
    args = parser.parse_args(argv)
    groups, results = args.only or list(GROUPS), {}
    for group in groups:
        began = time.monotonic()
        results |= compute(group)
        print(f"{group}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    if args.action == "record":
        write_record(args.file, results)
        print(f"{args.file}: {len(results)} results, {args.file.stat().st_size / 1e6:.2f} MB")
        return 0
    record = {name: value for name, value in read_record(args.file).items() if group_of(name) in groups}
    return int(compare(record, results) > 0)


if __name__ == "__main__":
    sys.exit(main())
