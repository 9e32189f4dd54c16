"""The types of models that a checkpoint can become, and what conversion needs from each.

Everything that differs between image models and caption models is here; conversion itself has no branches on the type.
"""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import caption
import vit_jax
from caption import CaptionConfig, CaptionTransformer
from caption.checkpoint import FORMAT as CAPTION_FORMAT
from caption.checkpoint import abstract_model as abstract_captioner
from vit_jax import InputError, VisionTransformer, ViTConfig
from vit_jax.checkpoint import CONFIG, abstract_model
from vit_jax.checkpoint import FORMAT as VIT_FORMAT
from vit_jax.config import as_pair
from vit_jax.preprocess import Preprocess
from weights_convert.sidecar import SidecarConfig

HEAD_WIDTH = 64
NUM_HEADS_OF_WIDTH = {1152: 16}  # SigLIP so400m has heads of width 72
CATR_HEAD_WIDTH = 32
NOT_IN_CAPTION_ARRAYS = ("num_heads", "dropout", "preprocess")

Provenance = dict[str, Any]


class ModelType(ABC):
    """A type of model.

    title:           its name in messages.
    config_class:    the class of its configs.
    format:          the format name in a saved model's config.json.
    named_configs:   its named architectures.
    toy_names:       those that are no published model: small enough to train on a CPU.
    compared_fields: config fields that arrays determine; a checkpoint must agree on them with a named architecture.
    """

    title: str
    config_class: type
    format: str
    named_configs: Mapping[str, Any]
    toy_names: frozenset[str]
    compared_fields: tuple[str, ...]

    @abstractmethod
    def build_config(
        self, array_fields: dict[str, Any], named_config: Any, num_heads: int | None, sidecar: SidecarConfig
    ) -> Any:
        """Return the config of a checkpoint.

        array_fields: config fields read from the arrays. named_config: the architecture given by name, or None.
        """

    @abstractmethod
    def find_name(self, config: Any) -> str:
        """Return the name of the architecture that a config has; "" if it has none."""

    @abstractmethod
    def abstract_model(self, config: Any) -> Any:
        """Return the model's shapes without allocating arrays."""

    @abstractmethod
    def check_options(self, config: Any, image_size: Any, num_classes: int | None) -> None:
        """Raise InputError if the model cannot have this image size or number of classes (None: unchanged)."""

    @abstractmethod
    def apply_options(self, model: Any, image_size: Any, num_classes: int | None) -> Any:
        """Return the model with another image size or number of classes (None: unchanged)."""

    @abstractmethod
    def save(self, model: Any, folder: Path, class_names: tuple[str, ...], provenance: Provenance) -> None:
        """Write the model to a folder, completely or not at all."""

    @abstractmethod
    def load(self, folder: str | os.PathLike, image_size: Any = None, num_classes: int | None = None) -> Any:
        """Read a saved model and apply the options."""

    @abstractmethod
    def describe(self, config: Any) -> str:
        """Return the architecture in one line."""

    @abstractmethod
    def describe_assumptions(self, config: Any) -> str:
        """Return the settings that arrays cannot hold in one line."""

    def named_config(self, name: str | None) -> Any:
        """Return a named architecture, or None for None. Raises InputError for an unknown name."""
        if name is not None and name not in self.named_configs:
            raise InputError(f"unknown architecture {name!r}: one of {', '.join(self.named_configs)}")
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

    def build_config(
        self, array_fields: dict[str, Any], named_config: Any, num_heads: int | None, sidecar: SidecarConfig
    ) -> ViTConfig:
        width = array_fields["width"]
        default_heads = NUM_HEADS_OF_WIDTH.get(width, max(1, width // HEAD_WIDTH))
        settings = {"num_heads": named_config.num_heads if named_config else default_heads}
        settings |= array_fields | dict(sidecar.config_fields)
        if array_fields.get("activation") == "swiglu":
            settings["activation"] = "swiglu"  # a config's hidden_act names the gate's activation only
        if num_heads is not None:
            settings["num_heads"] = num_heads
        return ViTConfig(**settings, preprocess=Preprocess(**sidecar.preprocess_fields))

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

    def check_options(self, config: ViTConfig, image_size: Any, num_classes: int | None) -> None:
        if image_size is not None:
            config.grid_for(image_size)

    def apply_options(self, model: VisionTransformer, image_size: Any, num_classes: int | None) -> VisionTransformer:
        if num_classes is not None:
            model = vit_jax.with_num_classes(model, num_classes)
        if image_size is not None and as_pair(image_size) != model.config.image_size:
            model = vit_jax.with_image_size(model, image_size)
        return model

    def save(
        self, model: VisionTransformer, folder: Path, class_names: tuple[str, ...], provenance: Provenance
    ) -> None:
        names = class_names if len(class_names) == model.config.num_classes else ()
        vit_jax.save(model, folder, class_names=names, provenance=provenance)

    def load(
        self, folder: str | os.PathLike, image_size: Any = None, num_classes: int | None = None
    ) -> VisionTransformer:
        return vit_jax.load(folder, image_size=image_size, num_classes=num_classes)

    def describe(self, config: ViTConfig) -> str:
        (ph, pw), (height, width) = config.patch_size, config.image_size
        return (
            f"width {config.width}, depth {config.depth}, {config.num_heads} heads, MLP {config.mlp_dim}, "
            f"patch {ph}x{pw}, image {height}x{width}, {config.num_classes} classes"
        )

    def describe_assumptions(self, config: ViTConfig) -> str:
        return f"{config.num_heads} heads, {config.activation}, eps {config.norm_eps:g}, preprocessing"


class _CaptionModelType(ModelType):
    """CaptionTransformer."""

    title = "caption model"
    config_class = CaptionConfig
    format = CAPTION_FORMAT
    named_configs = caption.CONFIGS
    toy_names = frozenset(caption.config.TOY_CONFIGS)
    compared_fields = tuple(f.name for f in fields(CaptionConfig) if f.name not in NOT_IN_CAPTION_ARRAYS)

    def build_config(
        self, array_fields: dict[str, Any], named_config: Any, num_heads: int | None, sidecar: SidecarConfig
    ) -> CaptionConfig:
        default_heads = max(1, array_fields["width"] // CATR_HEAD_WIDTH)
        if num_heads is None:
            num_heads = named_config.num_heads if named_config else default_heads
        return CaptionConfig(**array_fields | {"num_heads": num_heads})

    def find_name(self, config: CaptionConfig) -> str:
        return next((name for name, named_config in self.named_configs.items() if named_config == config), "")

    def abstract_model(self, config: CaptionConfig) -> CaptionTransformer:
        return abstract_captioner(config)

    def check_options(self, config: CaptionConfig, image_size: Any, num_classes: int | None) -> None:
        if image_size is not None or num_classes is not None:
            raise InputError("a caption model takes images of any size and has no classes; give neither")

    def apply_options(self, model: CaptionTransformer, image_size: Any, num_classes: int | None) -> CaptionTransformer:
        self.check_options(model.config, image_size, num_classes)
        return model

    def save(
        self, model: CaptionTransformer, folder: Path, class_names: tuple[str, ...], provenance: Provenance
    ) -> None:
        caption.save(model, folder, provenance=provenance)

    def load(
        self, folder: str | os.PathLike, image_size: Any = None, num_classes: int | None = None
    ) -> CaptionTransformer:
        return self.apply_options(caption.load(folder), image_size, num_classes)

    def describe(self, config: CaptionConfig) -> str:
        encoder = config.encoder
        if isinstance(encoder, caption.ResNetConfig):
            image = f"ResNet of {'+'.join(map(str, encoder.stage_depths))} blocks"
        else:
            image = f"ViT of {encoder.depth} blocks"
        return (
            f"{image}, {config.encoder_layers} + {config.decoder_layers} layers, width {config.width}, "
            f"{config.num_heads} heads, MLP {config.mlp_dim}, {config.vocab_size} words, "
            f"{config.max_positions} positions"
        )

    def describe_assumptions(self, config: CaptionConfig) -> str:
        return f"{config.num_heads} heads, dilation of the last stage, eps {config.norm_eps:g}, preprocessing"


IMAGE_MODEL = _ImageModelType()
CAPTION_MODEL = _CaptionModelType()
MODEL_TYPES: tuple[ModelType, ...] = (IMAGE_MODEL, CAPTION_MODEL)


def saved_model_type(folder: str | os.PathLike) -> ModelType | None:
    """Return the type of a saved model's folder by its config.json; None if it is no saved model."""
    path = Path(folder) / CONFIG
    try:
        stored = json.loads(path.read_text(errors="replace")) if path.is_file() else None
    except ValueError:
        stored = None
    format_name = stored.get("format") if isinstance(stored, dict) else None
    return next((model_type for model_type in MODEL_TYPES if model_type.format == format_name), None)
