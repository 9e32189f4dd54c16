"""Compute the predictions and maps of a batch of images."""

from typing import Any

import jax
import numpy as np

from vit_jax import ModelCard, VisionTransformer, to_grid
from vit_jax.explain import MethodOptions, check_method_options, compile_method, head_attention


class Explainer:
    """A model with the compiled methods that explain its predictions.

    targets:    the classes to explain, None for the predicted class
    all_heads:  also compute the attention of every head, in options.layer
    all_layers: also compute the attention of every layer, of options.head
    Raises InputError for a layer or head that the model lacks.
    """

    def __init__(
        self,
        model: VisionTransformer,
        card: ModelCard,
        methods: tuple[str, ...],
        options: MethodOptions,
        *,
        targets: list[int] | None = None,
        all_heads: bool = False,
        all_layers: bool = False,
    ):
        self.model, self.card, self.methods, self.targets = model, card, methods, targets
        self.options = check_method_options(model, options)
        self.all_heads, self.all_layers = all_heads, all_layers
        normalize = model.config.preprocess.normalize
        self._normalize = jax.jit(lambda pixels: normalize(pixels.astype("float32") / 255))
        self._probabilities = jax.jit(lambda m, x: jax.nn.softmax(m(x).astype("float32")))
        self._maps = {name: compile_method(name, self.options) for name in methods}
        self._head_attention = jax.jit(head_attention, static_argnames="layer")

    def class_name(self, label: int) -> str:
        """Return a class's name, or its number for a model without class names."""
        return self.card.class_names[label] if self.card.class_names else f"class {label}"

    def explain(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Return the arrays to store for images uint8 [B, h, w, c], each with the batch as its first axis.

        probabilities [B, C], targets [B, K], the maps of each method by its name, and with all_heads attention_heads
        [B, H, gh, gw], with all_layers attention_layers [B, L, gh, gw].
        """
        images = self._normalize(pixels)
        probabilities = np.asarray(self._probabilities(self.model, images))
        predicted = probabilities.argmax(axis=1)[:, None]
        targets = predicted if self.targets is None else np.tile(self.targets, (len(pixels), 1))
        results = {"probabilities": probabilities, "targets": targets.astype(np.int32)}
        for name, compute_maps in self._maps.items():
            results[name] = np.asarray(compute_maps(self.model, images, targets), np.float32)
        if self.all_heads:
            results["attention_heads"] = self._attention_per_head(images, self.options.layer)
        if self.all_layers:
            layers = [self._attention_of_layer(images, layer) for layer in range(len(self.model.blocks))]
            results["attention_layers"] = np.stack(layers, axis=1)
        return results

    def _attention_per_head(self, images: Any, layer: int) -> np.ndarray:
        rows = self._head_attention(self.model, images, layer=layer)
        return np.asarray(to_grid(rows, self.model.config.grid_for(images.shape[1:3])))

    def _attention_of_layer(self, images: Any, layer: int) -> np.ndarray:
        rows = self._head_attention(self.model, images, layer=layer)
        row = rows.mean(axis=1) if self.options.head is None else rows[:, self.options.head]
        return np.asarray(to_grid(row, self.model.config.grid_for(images.shape[1:3])))
