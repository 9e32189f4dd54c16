"""A caption model as a folder: model.safetensors + config.json, as vit_jax.checkpoint writes them."""

import functools
import os
from dataclasses import asdict, dataclass, field
from typing import Any

import jax
from flax import nnx

from caption.config import CaptionConfig, ResNetConfig
from caption.model import CaptionTransformer
from caption.tokenizer import VOCABULARY_FILE, Tokenizer
from vit_jax import InputError, ViTConfig
from vit_jax.checkpoint import read_card, read_weights, write_model
from vit_jax.settings import read_settings
from vit_jax.suggest import describe_unknown

FORMAT = "caption/1"
ENCODERS: dict[str, type[ResNetConfig | ViTConfig]] = {"resnet": ResNetConfig, "vit": ViTConfig}


@dataclass(frozen=True)
class CaptionCard:
    """What a folder stores besides the weights: the architecture, and their origin (free-form, JSON-able)."""

    config: CaptionConfig
    provenance: dict[str, Any] = field(default_factory=dict)


class _OneKey(nnx.Rngs):
    """The same key for every parameter, where only shapes matter.

    A traced nnx.Rngs takes time quadratic in the number of parameters: at every draw flax asks the traced counter for
    its sharding, and jax walks over the whole program for the text of the error. CATR: 3.8 s, 0.8 with one key.
    """

    def __init__(self) -> None:
        pass

    def params(self) -> jax.Array:
        return jax.random.key(0)


@functools.cache
def abstract_model(config: CaptionConfig) -> CaptionTransformer:
    """Return the model's shapes, with nothing allocated."""
    return jax.eval_shape(lambda: CaptionTransformer(config, rngs=_OneKey()))


def _config_from_dict(stored: dict[str, Any]) -> CaptionConfig:
    encoder = dict(stored["encoder"])
    kind = encoder.pop("kind")
    if kind not in ENCODERS:
        raise InputError(describe_unknown("encoder", kind, ENCODERS))
    return read_settings(CaptionConfig, stored | {"encoder": read_settings(ENCODERS[kind], encoder, prefix="encoder.")})


def save(
    model: CaptionTransformer,
    folder: str | os.PathLike,
    *,
    tokenizer: Tokenizer | None = None,
    provenance: dict[str, Any] | None = None,
) -> None:
    """Write a model to a folder atomically: model.safetensors, config.json and its vocabulary.

    tokenizer: its vocabulary is written as vocab.txt; without one, programs use BERT's.

    An existing saved model is replaced. Raises InputError when the folder holds something else, OSError when it can't
    be written.
    """
    config = asdict(model.config)
    config["encoder"]["kind"] = "resnet" if isinstance(model.config.encoder, ResNetConfig) else "vit"
    card = {"format": FORMAT, "config": config, "provenance": provenance or {}}
    write_model(folder, card, model, extra_files={} if tokenizer is None else {VOCABULARY_FILE: tokenizer.save})


def load_card(folder: str | os.PathLike) -> CaptionCard:
    """Read the config.json of a saved model. Raises InputError naming the file when it is absent or unusable."""
    return read_card(
        folder, FORMAT, lambda stored: CaptionCard(_config_from_dict(stored["config"]), stored.get("provenance", {}))
    )


def load(folder: str | os.PathLike) -> CaptionTransformer:
    """Read a model that `save` wrote, or the best one of a run.

    Raises InputError naming the file when it is missing, damaged, or does not fit the config.
    """
    return read_weights(folder, abstract_model(load_card(folder).config))
