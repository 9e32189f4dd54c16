"""The settings of a checkpoint that its arrays cannot hold, and who states each of them.

Later sources overrule earlier ones: the layout's default, the published shape, the arrays' values, the named
architecture, the sidecar config, the rules file, the caller.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any

from vit_jax import InputError
from vit_jax.config import SINGLE_LABEL, as_pair
from vit_jax.preprocess import Preprocess
from weights_convert.layouts import Layout
from weights_convert.sidecar import SidecarConfig

LAYOUT, NOTHING = "the layout's default", "assumed, since nothing states it"
VALUES = "the values of its arrays"
PUBLISHED, NAMED, RULES, CALLER = "the published shape", "the named architecture", "the rules file", "as requested"
USUAL = {"squash": False, "centre": "round", "norm_position": "pre", "task": SINGLE_LABEL}  # not worth printing


@dataclass(frozen=True)
class ResolvedSettings:
    """Settings that arrays cannot hold.

    config_fields, preprocess_fields: name -> value.
    sources:                          name -> where it is from, of both.
    """

    config_fields: Mapping[str, Any]
    preprocess_fields: Mapping[str, Any]
    sources: Mapping[str, str]

    def describe(self, only: str | None = None) -> list[str]:
        """Return one line for each source, or for one only: its settings and their values."""
        values = {**self.config_fields, **self.preprocess_fields}
        values = {name: value for name, value in values.items() if (name, value) not in USUAL.items()}
        return [
            f"{source}: "
            + ", ".join(f"{name} {_format(values[name])}" for name in values if self.sources[name] == source)
            for source in dict.fromkeys(self.sources[name] for name in values)
            if only in (None, source)
        ]


def _format(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "/".join(map(_format, value[:1] if len(set(value)) == 1 else value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def resolve_settings(
    layout: Layout,
    shapes: Mapping[str, tuple[int, ...]],
    array_fields: Mapping[str, Any],
    request: Any,
    named_config: Any,
    sidecar: SidecarConfig,
    value_fields: Mapping[str, Any] = MappingProxyType({}),
) -> ResolvedSettings:
    """Collect the settings that arrays cannot hold from all their sources.

    value_fields: config fields that the layout reads from the arrays' values.

    Raises InputError, naming the flag, for one that no source states and that has no safe default: the number of heads
    of an unpublished shape, and what layout.ask lists.
    """
    model_type = layout.model_type
    files = " and ".join(sidecar.files)
    heads = model_type.published_heads(array_fields)
    config = [
        (LAYOUT, _layout_defaults(layout, array_fields)),
        (PUBLISHED, {} if heads is None or "num_heads" in array_fields else {"num_heads": heads}),
        (VALUES, value_fields),
        (NAMED, {"num_heads": named_config.num_heads} if named_config else {}),
        (files, _drop_gate(sidecar.config_fields, array_fields)),
        (RULES, layout.settings),
        (CALLER, request.settings),
        _state_size(array_fields, request.image_size, sidecar),
    ]
    known = layout.preprocess(shapes)
    preprocess = [
        (LAYOUT, asdict(known)) if known else (NOTHING, model_type.default_preprocess),
        (NOTHING, _average_channels(known, array_fields.get("in_channels"))),
        (files, sidecar.preprocess_fields),
        (RULES, layout.preprocess_settings),
        (CALLER, request.preprocess),
    ]
    config_fields, config_origins = _merge(config)
    preprocess_fields, preprocess_origins = _merge(preprocess)
    _check_complete(layout, array_fields, config_fields)
    return ResolvedSettings(config_fields, preprocess_fields, config_origins | preprocess_origins)


def _average_channels(known: Preprocess | None, channels: int | None) -> dict[str, Any]:
    """Return the mean and std for another number of channels than the layout's; {} if they agree."""
    if known is None or channels in (None, known.channels):
        return {}
    averaged = known.average_channels(channels)
    return {"mean": averaged.mean, "std": averaged.std}


def _layout_defaults(layout: Layout, array_fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the layout's values of the fields that its arrays do not show, apart from those that are asked for."""
    own = {field.name: field.default for field in fields(layout.model_type.config_class)} | dict(array_fields)
    assumed = [name for name in layout.assumes if name in array_fields]
    unseen = dict.fromkeys([*layout.model_type.unseen_fields, *assumed])
    heads = {name: array_fields[name] for name in ("num_heads",) if name in array_fields}
    return heads | {name: own[name] for name in unseen if name not in layout.ask}


def _state_size(
    array_fields: Mapping[str, Any], requested: Any, sidecar: SidecarConfig
) -> tuple[str, Mapping[str, tuple[int, int]]]:
    """Return who states the image size of the position table, and the size; nothing for models without one.

    197 positions may be [class] and 14x14 patches, or 7x28: without a statement a square is assumed.
    """
    size = array_fields.get("image_size")
    size_sources = {sidecar.image_size: " and ".join(sidecar.files), requested and as_pair(requested): CALLER}
    return size_sources.get(size, NOTHING), {} if size is None else {"image_size": size}


def _drop_gate(fields: Mapping[str, Any], array_fields: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out an activation that only names the gate's: the arrays show a SwiGLU."""
    gated = array_fields.get("activation") == "swiglu"
    return {name: value for name, value in fields.items() if not (gated and name == "activation")}


def _merge(by_source: list[tuple[str, Mapping[str, Any]]]) -> tuple[dict[str, Any], dict[str, str]]:
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, stated in by_source:
        values |= stated
        sources |= dict.fromkeys(stated, source)
    return values, sources


def _check_complete(layout: Layout, array_fields: Mapping[str, Any], stated: Mapping[str, Any]) -> None:
    if "num_heads" not in stated:
        shape = f"width {array_fields['width']}, depth {array_fields.get('depth')}"
        raise InputError(
            f"arrays do not show the number of heads, and {shape} is no published shape; state num_heads "
            "(python -m weights_convert convert --num-heads N)"
        )
    missing = [name for name in layout.ask if name not in stated]
    if missing:
        flags = ", ".join("--" + name.replace("_", "-") for name in missing)
        raise InputError(f"arrays do not show {' and '.join(missing)}; give {flags}, or [settings] in a rules file")
