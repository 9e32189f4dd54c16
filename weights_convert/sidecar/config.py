"""What a checkpoint's sidecar files state, whichever library wrote them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class SidecarConfig:
    """The settings that a checkpoint's sidecar files hold; empty if there are none.

    family:            "hf", "timm", "openai" or "".
    config_fields:     fields of ViTConfig.
    preprocess_fields: fields of Preprocess.
    image_size:        (height, width) in pixels, or None.
    class_names:       in the order of the logits, or ().
    files:             the names of the files read.
    notes:             what the user should know about how the files were read, as lines to print.
    alternative:       the config of another family in the same folder (open_clip's and Hugging Face's for one model).
    """

    family: str = ""
    config_fields: Mapping[str, Any] = field(default_factory=dict)
    preprocess_fields: Mapping[str, Any] = field(default_factory=dict)
    image_size: tuple[int, int] | None = None
    class_names: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    alternative: "SidecarConfig | None" = None

    def for_family(self, family: str) -> "SidecarConfig":
        """Return this config or its alternative, whichever is of the family; an empty one if neither is."""
        if self.family == family:
            return self
        return self.alternative.for_family(family) if self.alternative else SidecarConfig()
