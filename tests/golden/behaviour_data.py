"""Behaviour of data, scores and flags."""

import argparse
import json
import os
import runpy
import signal
import sys
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import vit_jax
from caption.data.augment import CaptionAugment, augment_image
from caption.data.loader import SceneExamples, caption_batches
from caption.data.scenes import make_scene, scene_captions
from caption.preprocess import CaptionPreprocess, pad_batch
from caption.scoring.metrics import score_images
from tests.golden.behaviour_captioners import TOKENIZER
from tests.golden.behaviour_record import Results
from vit_jax.data.augment.mix import MixConfig, mix_batch
from vit_jax.data.augment.transforms import Augment, augment_batch
from vit_jax.data.digits import open_digits
from vit_jax.data.loader import CachedImages, ordered_batches, training_batches
from vit_jax.train.recipe import RECIPES

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
            run = jax.jit(lambda key, x, settings=settings: augment_batch(key, x, settings))
            results[f"augment/{name}_{seed}"] = run(jax.random.key(seed), pixels)
    shares = np.eye(4, dtype=np.float32)
    mixings = {"mixup": MixConfig(0.8, 0.0, 4), "cutmix": MixConfig(0.0, 1.0, 4), "both": MixConfig(0.8, 1.0, 4)}
    for name, mixing in mixings.items():
        mixed = jax.jit(lambda key, *a, mixing=mixing: mix_batch(key, *a, mixing))
        values = mixed(jax.random.key(4), jnp.float32(pixels / 255), shares, jnp.array([1.0, 1, 1, 0], jnp.float32))
        results |= {f"mix/{name}_{part}": value for part, value in zip(("images", "shares"), values, strict=True)}
    for seed in (0, 1):
        rng, settings = np.random.default_rng(seed), CaptionAugment()
        results[f"caption_augment/{seed}"] = augment_image(picture(60, 80), CaptionPreprocess(40), settings, rng)
    return results | _batches()


def _batches() -> Results:
    results: Results = {}
    digits = open_digits(seed=1)
    preprocess = vit_jax.ImagePreprocess((24, 24))
    train, val = (CachedImages(split, preprocess, budget=10**7) for split in (digits.train, digits.val))
    epoch = list(training_batches(train, 300, seed=2, epoch=1, start=1))
    for name, batch in {"train": epoch[0], "train_last": epoch[-1], "val": next(ordered_batches(val, 64))}.items():
        results |= {f"digits/{name}_{field}": getattr(batch, field) for field in batch._fields}
    for index in range(3):
        example = make_scene(3, index, split="val")
        results |= {f"scenes/{index}_image": example.image, f"scenes/{index}_caption": example.caption}
    results["scenes/captions"] = "\n".join(scene_captions("train"))
    examples = SceneExamples("train", 6, 0, TOKENIZER, CaptionPreprocess(longest=64), 14)
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


class _CapturedParser(BaseException):
    """Carry a command's parser out of its main function."""


def parser_of(command: str) -> argparse.ArgumentParser:
    """Return the argument parser that `python -m command` builds; the command itself does not run."""

    def capture(self: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        raise _CapturedParser(self)

    patches = [mock.patch.object(argparse.ArgumentParser, name, capture) for name in ("parse_args", "parse_known_args")]
    names = (command, f"{command}.__main__")
    modules = {name: module for name, module in sys.modules.items() if name in names}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with patches[0], patches[1], mock.patch.object(sys, "argv", [command]):
        for name in modules:  # runpy warns of a module that is imported already
            del sys.modules[name]
        try:
            runpy.run_module(command, run_name="__main__")
        except _CapturedParser as captured:
            return captured.args[0]
        finally:
            sys.modules.update(modules)
            for number, handler in handlers.items():  # a program exits at once while it starts
                signal.signal(number, handler)
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
