"""Conversion rules: which foreign arrays become which parameter of this library, in both directions.

A layout is a table of rules. `{i}` in a name stands for a layer number. Coverage is exact: a rule must use every
foreign array and produce every parameter. Whatever is missing, left over or of another shape is listed in one error.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Any

import numpy as np

from vit_jax.errors import InputError

Arrays = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Transform:
    """A bijection between foreign arrays and one parameter. Both directions only move values, so they are bit-exact."""

    forward: Callable[..., np.ndarray]  # foreign arrays, in the rule's order -> parameter
    inverse: Callable[[np.ndarray], Arrays]  # parameter -> foreign arrays, in the rule's order


IDENTITY = Transform(lambda x: x, lambda x: (x,))
# Dense layer: torch stores [out, in], flax [in, out].
LINEAR = Transform(lambda w: w.T, lambda w: (w.T,))
# Convolution: torch stores [out, in, h, w], this library [h, w, in, out].
CONV = Transform(lambda w: w.transpose(2, 3, 1, 0), lambda w: (w.transpose(3, 2, 0, 1),))


def fuse_linear(count: int) -> Transform:
    """Return the transform of dense layers that become one, [in, count * out]."""
    return Transform(
        lambda *w: np.concatenate([part.T for part in w], axis=1),
        lambda w: tuple(part.T for part in np.split(w, count, axis=1)),
    )


def fuse_bias(count: int) -> Transform:
    """Return the transform of biases that become one, [count * out]."""
    return Transform(lambda *b: np.concatenate(b), lambda b: tuple(np.split(b, count)))


# Of q, k and v, and of the gate and the value of a SwiGLU.
FUSED_LINEAR, FUSED_BIAS = fuse_linear(3), fuse_bias(3)
FUSED_GATE, FUSED_GATE_BIAS = fuse_linear(2), fuse_bias(2)
# The biases of q and v: that of k is zero, and ViTConfig.key_bias says that it has no effect.
FUSED_QV_BIAS = Transform(
    lambda q, v: np.concatenate([q, np.zeros_like(q), v]), lambda b: (np.split(b, 3)[0], np.split(b, 3)[2])
)
# The query's dense layer and the one of keys and values, concatenated to [in, out + 2 * out].
FUSED_QUERY = Transform(
    lambda q, kv: np.concatenate([q.T, kv.T], axis=1),
    lambda w: tuple(part.T for part in np.split(w, [w.shape[1] // 3], axis=1)),
)
FUSED_QUERY_BIAS = Transform(lambda q, kv: np.concatenate([q, kv]), lambda b: tuple(np.split(b, [b.size // 3])))
# A learned token stored as a vector: [D] -> [1, 1, D]. Tokens and tables stored as an embedding: [N, D] -> [1, N, D].
TOKEN = Transform(lambda x: x.reshape(1, 1, -1), lambda x: (x.reshape(-1),))
TABLE = Transform(lambda x: x[None], lambda x: (x[0],))


def constant(array: np.ndarray, message: str) -> Transform:
    """Produce a parameter that no array holds; the inverse raises InputError(message) for any other value."""

    def inverse(parameter: np.ndarray) -> tuple[np.ndarray, ...]:
        if parameter.any() and np.abs(parameter - array).max() > 1e-6:  # zeros come from infer_source_shapes
            raise InputError(message)
        return ()

    return Transform(lambda: array, inverse)


@dataclass(frozen=True)
class ResolvedRule:
    """A rule for one parameter of one config."""

    sources: tuple[str, ...]
    target: str
    transform: Transform


@dataclass(frozen=True)
class Rule:
    """One line of a layout's table: the foreign arrays `source` become the parameter `target`.

    source:    one name or several; () makes the parameter a constant.
    transform: a Transform, or a function of the config that returns one (if it needs the number of heads, say).
    when:      whether the rule applies to a config; selects among rules with the same target.
    """

    source: str | tuple[str, ...]
    target: str
    transform: Transform | Callable[[Any], Transform] = IDENTITY
    when: Callable[[Any], bool] = lambda config: True

    @property
    def sources(self) -> tuple[str, ...]:
        """The foreign names, always as a tuple."""
        return (self.source,) if isinstance(self.source, str) else self.source

    def for_layer(self, layer: int) -> "Rule":
        """Return the rule with {i} replaced by a layer number."""
        sources = tuple(name.replace("{i}", str(layer)) for name in self.sources)
        return Rule(sources, self.target.replace("{i}", str(layer)), self.transform, self.when)

    def resolve(self, config: Any) -> ResolvedRule:
        """Return the rule with its transform for one config."""
        transform = self.transform if isinstance(self.transform, Transform) else self.transform(config)
        return ResolvedRule(self.sources, self.target, transform)


def dense(source: str, target: str, **options: Any) -> tuple[Rule, Rule]:
    """Return the rules for a dense layer's weight and bias."""
    return (
        Rule(f"{source}.weight", f"{target}.kernel", LINEAR, **options),
        Rule(f"{source}.bias", f"{target}.bias", **options),
    )


def norm(source: str, target: str, **options: Any) -> tuple[Rule, Rule]:
    """Return the rules for a LayerNorm's weight and bias."""
    return (
        Rule(f"{source}.weight", f"{target}.scale", **options),
        Rule(f"{source}.bias", f"{target}.bias", **options),
    )


def fused_qkv(sources: Sequence[str], target: str) -> tuple[Rule, Rule]:
    """Return the rules for separate dense layers of q, k and v that become one layer."""
    return (
        Rule(tuple(f"{source}.weight" for source in sources), f"{target}.kernel", FUSED_LINEAR),
        Rule(tuple(f"{source}.bias" for source in sources), f"{target}.bias", FUSED_BIAS),
    )


def expand_layers(rules: Sequence[Rule], targets: Collection[str]) -> list[Rule]:
    """Return one rule per parameter in `targets` that a rule produces. Layers count from 0 without a gap."""
    return [
        layer_rule
        for rule in rules
        for layer_rule in takewhile(
            lambda one: one.target in targets, map(rule.for_layer, count() if "{i}" in rule.target else (0,))
        )
    ]


def infer_source_shapes(
    rules: Sequence[ResolvedRule], target_shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Return the shape that each foreign array needs to produce parameters of the given shapes."""
    shapes: dict[str, tuple[int, ...]] = {}
    for rule in rules:
        parameter = np.broadcast_to(np.zeros((), np.int8), target_shapes[rule.target])  # one byte, whatever the shape
        parts = rule.transform.inverse(parameter)
        shapes |= {name: part.shape for name, part in zip(rule.sources, parts, strict=True)}
    return shapes


def apply_rules(
    rules: Sequence[ResolvedRule], read: Callable[[str], np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (parameter name, array) for each rule.

    Foreign arrays are read just before they are used and reshaped to `shapes`. Raises InputError naming an array of
    another type, or with NaN or infinite values: trained models have none, damaged files do.
    """
    dtype: Any = np.float32
    for rule in rules:
        parts = [_as_float(name, read(name)).reshape(shapes[name]) for name in rule.sources]
        dtype = np.result_type(*parts) if parts else dtype
        for name, part in zip(rule.sources, parts, strict=True):
            if not np.isfinite(part).all():
                raise InputError(f"{name} holds NaN or infinite values; the file is damaged or training diverged")
        # A constant has the dtype of the arrays before it.
        yield rule.target, np.ascontiguousarray(rule.transform.forward(*parts), dtype)


def _as_float(name: str, array: Any) -> np.ndarray:
    """Return float32 or float64. Half precision is widened, which is exact. Raises InputError for other types."""
    array = np.asarray(array)
    if array.dtype in (np.float32, np.float64):
        return array
    if array.dtype.name not in ("float16", "bfloat16"):
        raise InputError(f"{name} holds {array.dtype} values, and weights need a float type of 16 to 64 bits")
    return array.astype(np.float32)


def invert_rules(rules: Sequence[ResolvedRule], parameters: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the foreign arrays of a model's parameters: the inverse of apply_rules."""
    foreign: dict[str, np.ndarray] = {}
    for rule in rules:
        parts = rule.transform.inverse(np.asarray(parameters[rule.target]))
        foreign |= {name: np.ascontiguousarray(part) for name, part in zip(rule.sources, parts, strict=True)}
    return foreign
