"""The definition of a layout: a family's table of rules, and how to infer the architecture from its array shapes."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vit_jax import InputError
from vit_jax.checkpoint import to_arrays
from vit_jax.preprocess import Preprocess
from weights_convert.formats import LazyArray
from weights_convert.layouts.inference import Shapes
from weights_convert.layouts.preprocessing import unknown
from weights_convert.model_types import IMAGE_MODEL, ModelType
from weights_convert.rules import ResolvedRule, Rule, expand_layers


@dataclass(frozen=True)
class Layout:
    """A family of checkpoints.

    rules:              the rules of every variant; a checkpoint needs those whose parameters its config has.
    infer_architecture: (array shapes, image size or None) -> config fields, usually all but num_heads. Takes
                        in_channels= too, a number or None, if `assumes` has it. Raises KeyError if an array is missing.
    signature_keys:     array names that every file of the family has; they identify the family. "a|b" is one of two
                        names, "a|!b" the first or the absence of the second.
    unused:             regular expressions of arrays that released files hold and the original model does not use.
    rename_key:         array name in a file -> name in the rules.
    export_key:         (name in the rules, config) -> name that the original library loads.
    export_extra:       config -> arrays that the original library expects and that hold no information.
    model_type:         the type of model that the checkpoints become.
    wrapper:            the key under which the original's .pth files nest the arrays; "" for none.
    sidecar_family:     the family of sidecar configs that apply: "hf", "timm", "openai", or "" for none.
    preprocess:         array shapes -> how the family's models preprocess images without a sidecar config; None if
                        the file does not show it.
    ask:                config fields that arrays do not show and that have no usual value: someone must state them.
    assumes:            config fields that infer_architecture fills by the family's custom, to be printed; apart from
                        num_heads, activation and norm_eps, which no layout's arrays show.
    read_fields:        (name in the rules -> array, config fields) -> config fields that values hold, not shapes.
    buffers:            regular expression of array names -> config -> the values that the original recomputes, which
                        the file's must equal, or None for values that are not compared.
    prepare:            the file's arrays -> those in the layout's form (from a rules file).
    settings:           config fields that a rules file states; preprocess_settings: fields of Preprocess.
    class_names:        that a rules file states.
    """

    name: str
    title: str
    rules: tuple[Rule, ...]
    infer_architecture: Callable[..., dict]
    signature_keys: tuple[str, ...]
    unused: tuple[str, ...] = ()
    rename_key: Callable[[str], str] = lambda name: name
    export_key: Callable[[str, Any], str] = lambda name, config: name
    export_extra: Callable[[Any], Mapping[str, np.ndarray]] = lambda config: {}
    model_type: ModelType = IMAGE_MODEL
    wrapper: str = ""
    sidecar_family: str = ""
    preprocess: Callable[[Shapes], Preprocess | None] = unknown
    ask: tuple[str, ...] = ()
    assumes: tuple[str, ...] = ()
    read_fields: Callable[[Mapping[str, LazyArray], Mapping[str, Any]], dict[str, Any]] = lambda arrays, fields: {}
    buffers: Mapping[str, Callable[[Any], np.ndarray | None]] = field(default_factory=dict)
    prepare: Callable[[Mapping[str, LazyArray]], Mapping[str, LazyArray]] = lambda arrays: arrays
    settings: Mapping[str, Any] = field(default_factory=dict)
    preprocess_settings: Mapping[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()

    def match_signature(self, names: Collection[str]) -> tuple[str, ...]:
        """Return, for each signature key that these names satisfy, the name that does, or "no NAME" for an absence."""
        found = [
            next((part for part in key.split("|") if _satisfies(part, names)), None) for key in self.signature_keys
        ]
        is_complete = None not in found  # an absence is no sign of a family by itself
        return tuple(_describe(part) for part in found if part and (is_complete or not part.startswith("!")))

    def find_buffer(self, name: str) -> Callable[[Any], np.ndarray | None] | None:
        """Return what computes the values of an array that is a buffer of the original; None for any other array."""
        return next((compute for pattern, compute in self.buffers.items() if re.fullmatch(pattern, name)), None)

    def is_unused(self, name: str, shape: tuple[int, ...]) -> bool:
        """Return whether the original model ignores an array that no rule takes.

        So are a single number, such as a count of steps, and an empty array, as of a head without classes.
        name: the array's name in the rules.
        """
        return shape == () or 0 in shape or self.is_ignored(name)

    def is_ignored(self, name: str) -> bool:
        """Return whether the layout lists an array as one that the original model does not use."""
        return any(re.fullmatch(pattern, name) for pattern in self.unused)

    def resolve_rules(self, config: Any) -> list[ResolvedRule]:
        """Return one rule for each parameter of a config.

        Raises InputError if a parameter has no rule, and for a config of another model type.
        """
        if not isinstance(config, self.model_type.config_class):
            raise InputError(f"the layout {self.name} is for {self.model_type.title}s, and this model is not one")
        targets = to_arrays(self.model_type.abstract_model(config))
        rules = [rule.resolve(config) for rule in expand_layers(self.rules, targets) if rule.when(config)]
        uncovered = sorted(set(targets) - {rule.target for rule in rules})
        if uncovered:
            raise InputError(f"the layout {self.name} has no place for {', '.join(uncovered[:5])}")
        return rules


def _satisfies(part: str, names: Collection[str]) -> bool:
    return part[1:] not in names if part.startswith("!") else part in names


def _describe(part: str) -> str:
    return f"no {part[1:]}" if part.startswith("!") else part
