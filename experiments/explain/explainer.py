"""Compute the predictions and maps of a batch of images."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from vit_jax import ModelCard, VisionTransformer, to_grid
from vit_jax.classes import name_class
from vit_jax.explain import (
    HEAD_METHODS,
    METHODS,
    MethodOptions,
    check_method_options,
    compile_head_method,
    compile_method,
    head_attention,
)
from vit_jax.prediction import probabilities


class Explainer:
    """A model with the compiled methods that explain its predictions.

    methods:    names of METHODS and HEAD_METHODS; the attributes methods and head_methods hold them apart
    targets:    the classes to explain, None for the predicted class
    all_heads:  also compute the attention of every head, in options.layer
    all_layers: also compute the attention of every layer, of options.head
    Raises InputError for a layer or head that the model lacks.
    """

    def __init__(
        self,
        model: VisionTransformer,
        card: ModelCard,
        methods: Sequence[str],
        options: MethodOptions,
        *,
        targets: list[int] | None = None,
        all_heads: bool = False,
        all_layers: bool = False,
    ):
        self.model, self.card, self.targets = model, card, targets
        self.methods = tuple(name for name in methods if name in METHODS)
        self.head_methods = tuple(name for name in methods if name in HEAD_METHODS)
        self.options = check_method_options(model, options)
        self.all_heads, self.all_layers = all_heads, all_layers
        normalize = model.config.preprocess.normalize
        self._normalize = jax.jit(lambda pixels: normalize(pixels.astype("float32") / 255))
        self._probabilities = jax.jit(lambda m, x: probabilities(m.config, m(x).astype("float32")))
        self._methods = {name: compile_method(name, self.options) for name in self.methods}
        self._methods |= {name: compile_head_method(name) for name in self.head_methods}
        self._head_attention = jax.jit(head_attention, static_argnames="layer")

    @property
    def has_classes(self) -> bool:
        """Whether the model has a classification head."""
        return self.model.config.num_classes > 0

    @property
    def layer(self) -> int:
        """The layer of attention and of Grad-CAM, counted from 0."""
        return self.options.layer % len(self.model.blocks)

    @property
    def head(self) -> int | None:
        """The head of attention, counted from 0; None for the mean over heads."""
        head = self.options.head
        return None if head is None else head % self.model.config.num_heads

    def class_name(self, label: int) -> str:
        """Return a class's name, or its number for a model without class names."""
        return name_class(label, self.card.class_names)

    def explain(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Return the arrays to store for images uint8 [B, h, w, c], each with the batch as its first axis.

        probabilities [B, C] and targets [B, K] if the model has a head, the maps of each method by its name, values
        [B, K, L, H] of each head method, and with
        all_heads attention_heads [B, H, gh, gw], with all_layers attention_layers [B, L, gh, gw].
        """
        images = self._normalize(pixels)
        results = self._predict(images) if self.has_classes else {}
        targets = results.get("targets", np.zeros((len(pixels), 1), np.int32))
        for name, compute in self._methods.items():
            results[name] = np.asarray(compute(self.model, images, targets), np.float32)
        if self.all_heads:
            results["attention_heads"] = self._attention_per_head(images, self.options.layer)
        if self.all_layers:
            layers = [self._attention_of_layer(images, layer) for layer in range(len(self.model.blocks))]
            results["attention_layers"] = np.stack(layers, axis=1)
        return results

    def _predict(self, images: Any) -> dict[str, np.ndarray]:
        """Return the probabilities of the classes [B, C], and the classes to explain [B, K]."""
        values = np.asarray(self._probabilities(self.model, images))
        predicted = values.argmax(axis=1)[:, None]
        targets = predicted if self.targets is None else np.tile(self.targets, (len(images), 1))
        return {"probabilities": values, "targets": targets.astype(np.int32)}

    def _attention_per_head(self, images: Any, layer: int) -> np.ndarray:
        rows = self._head_attention(self.model, images, layer=layer)
        return np.asarray(to_grid(rows, self.model.config.grid_for(images.shape[1:3])))

    def _attention_of_layer(self, images: Any, layer: int) -> np.ndarray:
        rows = self._head_attention(self.model, images, layer=layer)
        row = rows.mean(axis=1) if self.options.head is None else rows[:, self.options.head]
        return np.asarray(to_grid(row, self.model.config.grid_for(images.shape[1:3])))
