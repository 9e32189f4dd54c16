"""The types of models that a checkpoint can become, and what conversion needs from each.

Everything that differs between image models and caption models is here; conversion itself has no branches on the type.
"""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

import caption
import vit_jax
from caption import CaptionConfig, CaptionTransformer
from caption.checkpoint import FORMAT as CAPTION_FORMAT
from caption.checkpoint import abstract_model as abstract_captioner
from vit_jax import InputError, VisionTransformer, ViTConfig
from vit_jax.checkpoint import CONFIG, abstract_model
from vit_jax.checkpoint import FORMAT as VIT_FORMAT
from vit_jax.config import PUBLISHED_CONFIGS, as_pair
from vit_jax.preprocess import Preprocess
from vit_jax.suggest import describe_unknown
from weights_convert.hub.releases import CaptionReleaseName

# (width, depth) -> heads, of published vision transformers. Arrays do not show the number of heads.
PUBLISHED_HEADS = {
    (192, 12): 3,  # Ti
    (320, 14): 5,  # timm's little
    (384, 12): 6,  # S
    (512, 12): 8,  # timm's medium
    (512, 20): 8,  # timm's mediumd
    (640, 12): 10,  # timm's betwixt
    (768, 8): 8,  # timm's first small
    (768, 12): 12,  # B
    (1024, 24): 16,  # L
    (1152, 27): 16,  # so400m
    (1280, 32): 16,  # H
    (1408, 40): 16,  # g
    (1536, 40): 24,  # DINOv2's giant
    (1536, 47): 16,  # Perception Encoder's G, as spatial and lang have it
    (1536, 50): 16,
    (1024, 23): 16,  # its L, as lang has it
    (1664, 48): 16,  # G
    **{(config.width, config.depth): config.num_heads for config in PUBLISHED_CONFIGS.values()},
}
# (width, depth, MLP) -> heads, where the MLP tells two published shapes apart.
PUBLISHED_MLP_HEADS = {
    (1536, 40, 6144): 16,  # SigLIP 2's giant-opt
}
NOT_IN_CAPTION_ARRAYS = ("num_heads", "dropout", "preprocess")

Provenance = dict[str, Any]


@dataclass(frozen=True)
class Changes:
    """What a loaded model shall have other than its checkpoint; None: unchanged.

    image_size:  int or (height, width) in pixels.
    in_channels: of the pictures; see vit_jax.with_in_channels.
    """

    image_size: Any = None
    num_classes: int | None = None
    in_channels: int | None = None


UNCHANGED = Changes()


class ModelType(ABC):
    """A type of model.

    title:           its name in messages.
    config_class:    the class of its configs.
    format:          the format name in a saved model's config.json.
    named_configs:   its named architectures.
    toy_names:       those that are no published model: small enough to train on a CPU.
    compared_fields: config fields that arrays determine; a checkpoint must agree on them with a named architecture.
    unseen_fields:   config fields that no layout's arrays hold, apart from num_heads.
    default_preprocess: fields of the preprocessing where nothing states it.
    """

    title: str
    config_class: type
    format: str
    named_configs: Mapping[str, Any]
    toy_names: frozenset[str]
    compared_fields: tuple[str, ...]
    unseen_fields: tuple[str, ...]
    default_preprocess: Mapping[str, Any]

    @abstractmethod
    def build_config(
        self, array_fields: Mapping[str, Any], stated: Mapping[str, Any], preprocess: Mapping[str, Any]
    ) -> Any:
        """Return the config of a checkpoint.

        array_fields: config fields read from the arrays. stated: those that arrays cannot hold, which overrule.
        preprocess:   fields of the preprocessing.

        Raises InputError for fields that models of this type do not have.
        """

    @abstractmethod
    def published_heads(self, array_fields: Mapping[str, Any]) -> int | None:
        """Return the number of heads of a published architecture with these arrays; None if there is none."""

    @abstractmethod
    def find_name(self, config: Any) -> str:
        """Return the name of the architecture that a config has; "" if it has none."""

    @abstractmethod
    def abstract_model(self, config: Any) -> Any:
        """Return the model's shapes without allocating arrays."""

    @abstractmethod
    def check_changes(self, config: Any, changes: Changes) -> None:
        """Raise InputError if a model of this config cannot be changed so."""

    @abstractmethod
    def change(self, model: Any, changes: Changes) -> Any:
        """Return the changed model. Raises InputError as check_changes does."""

    @abstractmethod
    def save(self, model: Any, folder: Path, class_names: tuple[str, ...], provenance: Provenance) -> None:
        """Write the model to a folder, completely or not at all."""

    @abstractmethod
    def load(self, folder: str | os.PathLike, changes: Changes = UNCHANGED) -> Any:
        """Read a saved model and change it."""

    def named_config(self, name: str | None) -> Any:
        """Return a named architecture, or None for None. Raises InputError for an unknown name."""
        if name is not None and name not in self.named_configs:
            raise InputError(describe_unknown("architecture", name, self.named_configs))
        return self.named_configs[name] if name else None

    def list_differences(self, named_config: Any, array_fields: Mapping[str, Any]) -> list[str]:
        """Return how a checkpoint's arrays differ from a named architecture, class count and image size aside."""
        return [
            f"{name} is {array_fields[name]}, not {getattr(named_config, name)}"
            for name in self.compared_fields
            if getattr(named_config, name) != array_fields[name]
        ]


class _ImageModelType(ModelType):
    """VisionTransformer."""

    title = "image model"
    config_class = ViTConfig
    format = VIT_FORMAT
    named_configs = vit_jax.CONFIGS
    toy_names = frozenset(vit_jax.config.TOY_CONFIGS)
    compared_fields = ("patch_size", "width", "depth", "mlp_dim", "in_channels")
    unseen_fields = ("activation", "norm_eps", "norm_position", "pooling")
    default_preprocess = asdict(Preprocess())

    def build_config(
        self, array_fields: Mapping[str, Any], stated: Mapping[str, Any], preprocess: Mapping[str, Any]
    ) -> ViTConfig:
        return ViTConfig(**{**array_fields, **stated}, preprocess=Preprocess(**preprocess))

    def published_heads(self, array_fields: Mapping[str, Any]) -> int | None:
        shape = array_fields["width"], array_fields["depth"]
        return PUBLISHED_MLP_HEADS.get((*shape, array_fields["mlp_dim"]), PUBLISHED_HEADS.get(shape))

    def find_name(self, config: ViTConfig) -> str:
        names = [
            name
            for name, named_config in self.named_configs.items()
            if named_config.num_heads == config.num_heads and not self.list_differences(named_config, vars(config))
        ]
        # Prefer one whose image size and number of classes agree too.
        exact = [name for name in names if self.named_configs[name].resized(config.image_size) == config]
        return next(iter(exact + names), "")

    def abstract_model(self, config: ViTConfig) -> VisionTransformer:
        return abstract_model(config)

    def check_changes(self, config: ViTConfig, changes: Changes) -> None:
        if changes.image_size is not None:
            config.grid_for(changes.image_size)

    def change(self, model: VisionTransformer, changes: Changes) -> VisionTransformer:
        if changes.num_classes is not None:
            model = vit_jax.with_num_classes(model, changes.num_classes)
        if changes.in_channels is not None:
            model = vit_jax.with_in_channels(model, changes.in_channels)
        if changes.image_size is not None and as_pair(changes.image_size) != model.config.image_size:
            model = vit_jax.with_image_size(model, changes.image_size)
        return model

    def save(
        self, model: VisionTransformer, folder: Path, class_names: tuple[str, ...], provenance: Provenance
    ) -> None:
        names = class_names if len(class_names) == model.config.num_classes else ()
        vit_jax.save(model, folder, class_names=names, provenance=provenance)

    def load(self, folder: str | os.PathLike, changes: Changes = UNCHANGED) -> VisionTransformer:
        return self.change(vit_jax.load(folder), changes)


class _CaptionModelType(ModelType):
    """CaptionTransformer."""

    title = "caption model"
    config_class = CaptionConfig
    format = CAPTION_FORMAT
    named_configs = caption.CONFIGS
    toy_names = frozenset(caption.config.TOY_CONFIGS)
    compared_fields = tuple(f.name for f in fields(CaptionConfig) if f.name not in NOT_IN_CAPTION_ARRAYS)
    unseen_fields = ("norm_eps",)
    default_preprocess: Mapping[str, Any] = {}

    def build_config(
        self, array_fields: Mapping[str, Any], stated: Mapping[str, Any], preprocess: Mapping[str, Any]
    ) -> CaptionConfig:
        known = {field.name for field in fields(CaptionConfig)}
        if unknown := sorted((set(stated) - known) | set(preprocess)):
            raise InputError(f"a caption model has no setting {', '.join(unknown)}")
        return CaptionConfig(**{**array_fields, **stated})

    def published_heads(self, array_fields: Mapping[str, Any]) -> int | None:
        published = (config for name, config in self.named_configs.items() if name not in self.toy_names)
        return next((config.num_heads for config in published if config.width == array_fields["width"]), None)

    def find_name(self, config: CaptionConfig) -> str:
        return next((name for name, named_config in self.named_configs.items() if named_config == config), "")

    def abstract_model(self, config: CaptionConfig) -> CaptionTransformer:
        return abstract_captioner(config)

    def check_changes(self, config: CaptionConfig, changes: Changes) -> None:
        if changes != UNCHANGED:
            raise InputError("a caption model takes RGB images of any size and has no classes; change none of these")

    def change(self, model: CaptionTransformer, changes: Changes) -> CaptionTransformer:
        self.check_changes(model.config, changes)
        return model

    def save(
        self, model: CaptionTransformer, folder: Path, class_names: tuple[str, ...], provenance: Provenance
    ) -> None:
        caption.save(model, folder, provenance=provenance)

    def load(self, folder: str | os.PathLike, changes: Changes = UNCHANGED) -> CaptionTransformer:
        return self.change(caption.load(folder), changes)


IMAGE_MODEL = _ImageModelType()
CAPTION_MODEL = _CaptionModelType()
MODEL_TYPES: tuple[ModelType, ...] = (IMAGE_MODEL, CAPTION_MODEL)


def check_model_type(actual: ModelType, wanted: ModelType | None, name: str = "") -> None:
    """Raise InputError, which begins with `name`, if a model is of another type than the one wanted."""
    if wanted is None or actual is wanted:
        return
    if wanted is IMAGE_MODEL:
        problem = "a captioner, and this needs an image model; caption.load and experiments.caption take captioners"
    else:
        problem = f"an image model; captions need a captioner, such as {' or '.join(get_args(CaptionReleaseName))}"
    raise InputError(f"{name}: {problem}" if name else problem)


def saved_model_type(folder: str | os.PathLike) -> ModelType | None:
    """Return the type of a saved model's folder by its config.json; None if it is no saved model."""
    path = Path(folder) / CONFIG
    try:
        stored = json.loads(path.read_text(errors="replace")) if path.is_file() else None
    except ValueError:
        stored = None
    format_name = stored.get("format") if isinstance(stored, dict) else None
    return next((model_type for model_type in MODEL_TYPES if model_type.format == format_name), None)
