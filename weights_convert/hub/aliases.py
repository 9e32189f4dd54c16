"""Names that other libraries give to checkpoints on the Hugging Face hub, as hf:owner/name.

An alias stands for the very weights of that name, never for a similar release. A name owner/name is taken as one of the
hub only for the owners below, since it may as well be a mistyped path; for any other, write hf:owner/name.
"""

import re
from pathlib import Path

from weights_convert.hub.timm_tags import find_timm_repository

OWNERS = ("facebook", "google", "laion", "openai", "timm")


def find_alias(name: str) -> str | None:
    """Return "hf:owner/name" for a name of timm or Hugging Face; None for any other.

    "vit_base_patch16_224" is "hf:timm/vit_base_patch16_224.augreg2_in21k_ft_in1k", since timm has that default;
    "google/vit-base-patch16-224" is "hf:google/vit-base-patch16-224", unless there is a folder google/ here.
    """
    repository = find_timm_repository(name)
    if repository is None and re.fullmatch(rf"({'|'.join(OWNERS)})/[\w.-]+(@[\w./-]+)?", name):
        repository = None if Path(name).parent.exists() else name
    return None if repository is None else f"hf:{repository}"
