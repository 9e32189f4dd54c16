"""What the logits of a classifier mean: one label for each image (softmax), or a set of labels (sigmoid).

The config's task decides, here alone. Letters: B batch, C classes.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vit_jax.config import MULTI_LABEL, ViTConfig

THRESHOLD = 0.5  # an image has the labels of a higher probability; the logit is then above 0


def is_multi_label(config: ViTConfig) -> bool:
    """Return whether an image has a set of labels, each with a probability of its own."""
    return config.task == MULTI_LABEL


def probabilities(config: ViTConfig, logits: Float[Array | np.ndarray, "... c"]) -> Float[Array, "... c"]:
    """Return the probability of each class, in the type of the logits.

    They sum to 1 if an image has one label, and are independent of one another if it has a set of labels.
    """
    return jax.nn.sigmoid(logits) if is_multi_label(config) else jax.nn.softmax(logits, axis=-1)


def predicted_labels(config: ViTConfig, values: Float[np.ndarray, " c"]) -> list[int]:
    """Return the labels that an image has by the probabilities of its classes, the most probable first.

    One label, or all above THRESHOLD, which may be none, by the task.
    """
    order = np.argsort(-values, kind="stable").tolist()
    return [label for label in order if values[label] > THRESHOLD] if is_multi_label(config) else order[:1]


def is_predicted(config: ViTConfig, logits: Float[Array, "b c"], classes: Int[Any, " b"]) -> Bool[Array, " b"]:
    """Return whether a class is predicted for an image: it is the most probable one, or one of the image's labels."""
    if is_multi_label(config):
        return jnp.take_along_axis(logits, jnp.asarray(classes)[:, None], axis=1)[:, 0] > 0
    return logits.argmax(axis=1) == classes
