"""Rules: which foreign arrays make which of ours, there and back.

A layout is a table of rules. `{i}` in a name stands for a layer's number. Every foreign array must be used by a rule
and every parameter of ours be made by one; whatever is missing, left over or of another shape is listed in one error.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, takewhile
from typing import Any

import numpy as np

from vit_jax.errors import InputError

Arrays = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Transform:
    """A bijection between foreign arrays and one of ours. Both ways only move values, so trips are bit-exact."""

    forward: Callable[..., np.ndarray]  # foreign arrays, in the rule's order -> ours
    inverse: Callable[[np.ndarray], Arrays]  # ours -> foreign arrays, in the rule's order


SAME = Transform(lambda x: x, lambda x: (x,))
# torch keeps a dense layer as [out, in], flax as [in, out].
LINEAR = Transform(lambda w: w.T, lambda w: (w.T,))
# torch keeps a convolution as [out, in, h, w], ours is [h, w, in, out].
CONV = Transform(lambda w: w.transpose(2, 3, 1, 0), lambda w: (w.transpose(3, 2, 0, 1),))
# Three dense layers side by side: [in, 3 * out], and their biases one after another.
FUSED_LINEAR = Transform(
    lambda *w: np.concatenate([part.T for part in w], axis=1),
    lambda w: tuple(part.T for part in np.split(w, 3, axis=1)),
)
FUSED_BIAS = Transform(lambda *b: np.concatenate(b), lambda b: tuple(np.split(b, 3)))
# A query's dense layer beside that of keys and values: [in, out + 2 * out].
FUSED_QUERY = Transform(
    lambda q, kv: np.concatenate([q.T, kv.T], axis=1),
    lambda w: tuple(part.T for part in np.split(w, [w.shape[1] // 3], axis=1)),
)
FUSED_QUERY_BIAS = Transform(lambda q, kv: np.concatenate([q, kv]), lambda b: tuple(np.split(b, [b.size // 3])))
# One learned token kept as a vector: [D] to [1, 1, D]. Tokens and tables kept as an embedding: [N, D] to [1, N, D].
TOKEN = Transform(lambda x: x.reshape(1, 1, -1), lambda x: (x.reshape(-1),))
TABLE = Transform(lambda x: x[None], lambda x: (x[0],))


@dataclass(frozen=True)
class Rule:
    """The foreign arrays `source` make our parameter `target` by `transform`; with no source, it is a constant."""

    source: str | tuple[str, ...]
    target: str
    transform: Transform | Callable[[Any], Transform] = SAME  # where it takes the config: the number of heads
    when: Callable[[Any], bool] = lambda config: True  # where two rules make one target, which one it is

    @property
    def sources(self) -> tuple[str, ...]:
        """The foreign names, always as a tuple."""
        return (self.source,) if isinstance(self.source, str) else self.source

    def at(self, layer: int) -> "Rule":
        """The rule of one layer."""
        filled = tuple(name.replace("{i}", str(layer)) for name in self.sources)
        return Rule(filled, self.target.replace("{i}", str(layer)), self.transform, self.when)

    def settled(self, config: Any) -> "Rule":
        """The rule with its transform for one config."""
        return self if isinstance(self.transform, Transform) else replace(self, transform=self.transform(config))

    @property
    def move(self) -> Transform:
        """The transform of a settled rule."""
        assert isinstance(self.transform, Transform)
        return self.transform


def dense(source: str, target: str, **options: Any) -> tuple[Rule, Rule]:
    """The rules of a dense layer's weight and bias."""
    return (
        Rule(f"{source}.weight", f"{target}.kernel", LINEAR, **options),
        Rule(f"{source}.bias", f"{target}.bias", **options),
    )


def norm(source: str, target: str, **options: Any) -> tuple[Rule, Rule]:
    """The rules of a LayerNorm's weight and bias."""
    return (
        Rule(f"{source}.weight", f"{target}.scale", **options),
        Rule(f"{source}.bias", f"{target}.bias", **options),
    )


def fused_qkv(sources: Sequence[str], target: str) -> tuple[Rule, Rule]:
    """The rules of three dense layers, for q, k and v, that are one of ours."""
    return (
        Rule(tuple(f"{source}.weight" for source in sources), f"{target}.kernel", FUSED_LINEAR),
        Rule(tuple(f"{source}.bias" for source in sources), f"{target}.bias", FUSED_BIAS),
    )


def expand(rules: Sequence[Rule], targets: Collection[str]) -> list[Rule]:
    """The rules of a model with these parameters, one for each that a rule makes; layers count from 0 without a gap."""
    return [
        layered
        for rule in rules
        for layered in takewhile(
            lambda one: one.target in targets, map(rule.at, count() if "{i}" in rule.target else (0,))
        )
    ]


def source_shapes(rules: Sequence[Rule], target_shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shape that each foreign array must have for the parameters to come out right."""
    shapes: dict[str, tuple[int, ...]] = {}
    for rule in rules:
        ours = np.broadcast_to(np.zeros((), np.int8), target_shapes[rule.target])  # one byte, whatever the shape
        shapes |= {name: part.shape for name, part in zip(rule.sources, rule.move.inverse(ours), strict=True)}
    return shapes


def apply_rules(
    rules: Sequence[Rule], read: Callable[[str], np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, np.ndarray]]:
    """(our name, array) for each rule; foreign arrays are read just before they are used, in the shapes given.

    Raises InputError naming an array that holds NaN or infinity: no trained model does, damaged files do.
    """
    dtype: Any = np.float32
    for rule in rules:
        parts = [_floating(read(name)).reshape(shapes[name]) for name in rule.sources]
        dtype = np.result_type(*parts) if parts else dtype
        for name, part in zip(rule.sources, parts, strict=True):
            if not np.isfinite(part).all():
                raise InputError(f"{name} holds NaN or infinite values; the file is damaged or training diverged")
        # A constant has the type of the arrays before it.
        yield rule.target, np.ascontiguousarray(rule.move.forward(*parts), dtype)


def _floating(array: Any) -> np.ndarray:
    """Weights as float32 or wider: half precision is for storage, widening it loses nothing."""
    array = np.asarray(array)
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def invert_rules(rules: Sequence[Rule], arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The foreign arrays that our parameters make: `converted` the other way."""
    foreign: dict[str, np.ndarray] = {}
    for rule in rules:
        parts = rule.move.inverse(np.asarray(arrays[rule.target]))
        foreign |= {name: np.ascontiguousarray(part) for name, part in zip(rule.sources, parts, strict=True)}
    return foreign
