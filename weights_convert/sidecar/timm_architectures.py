"""timm's names of architectures: which are plain vision transformers, and what a name states that arrays do not.

Checked against the registry of timm 1.0.31: the names that build a VisionTransformer of models/vision_transformer.py or
deit.py with its ordinary blocks, AIMv2, and those of eva.py and beit.py whose positions this library has. Parallel or
differential attention, other RMS norms, hybrid stems, learned rotary frequencies and position embeddings of registers
have other parts in their names.
"""

import re
from typing import Any

from vit_jax import InputError

# Number of heads by the size in the name.
HEADS = {
    "tiny": 3, "xsmall": 4, "wee": 4, "little": 5, "small": 6, "medium": 8, "mediumd": 8, "betwixt": 10, "base": 12,
    "large": 16, "huge": 16, "giant": 16, "giantopt": 16, "gigantic": 16, "so400m": 16, "intern300m": 16, "7b": 32,
    "1b": 16, "3b": 24,
}  # fmt: skip
# The other parts that a supported name may have: shapes, heads and the data it was trained on.
PARTS = (
    r"\d+", "plus", "36x1", r"reg\d", "gap", "clip", "quickgelu", "siglip", "dinov2", "tipsv2", "radio", r"v\d", "miil",
    "dino", "sam", "mae", "augreg", "in1k", "in21k", "in21ft1k", "laion2b",
)  # fmt: skip
SIZE, PART = "|".join(HEADS), "|".join(PARTS)
SUPPORTED = (
    rf"(vit|deit|deit3)_(?P<size>{SIZE})(_distilled)?(_patch\d+)?(_({PART}))*",
    r"flexivit_(?P<size>small|base|large)",
    r"eva_(?P<size>large|giant)_patch14(_clip)?_\d+",  # the first EVA has no rotary positions
    r"eva02_(?P<size>tiny|small|base|large)_patch\d+(_clip)?_\d+",
    r"vit_(?P<size>tiny|small|base|large|huge|7b)(_plus)?_patch16_dinov3(_qkvb)?",
    r"vit_(?P<size>medium|mediumd|betwixt|base)_patch16_rope_reg\d_gap_\d+",
    r"vit_(?P<size>small|base|large)_patch16_rope(_ape)?_\d+",
    r"vit_pe_(core|lang|spatial)_(?P<size>tiny|small|base|large|gigantic)_patch\d+_\d+",
    r"beit(v2)?_(?P<size>base|large)_patch16_\d+",
    r"aimv2_(?P<size>large|huge|1b|3b)_patch14_\d+",
)

# What a part of the name changes, in this order: (regular expression, fields of ViTConfig).
VARIANTS: tuple[tuple[str, dict[str, Any]], ...] = (
    (r"^vit_.*_(clip|dinov3)(_|$)|^vit_pe_", {"norm_eps": 1e-5}),
    (r"_huge_plus_patch16_dinov3", {"num_heads": 20}),
    (r"^aimv2_", {"norm_eps": 1e-5, "activation": "swiglu"}),
    (r"^aimv2_large_", {"num_heads": 8}),
    (r"^aimv2_huge_", {"num_heads": 12}),
    (r"_quickgelu", {"activation": "quick_gelu"}),
    (
        r"_(so400m|giantopt)_patch16_siglip|_base_patch32_siglip|_large_patch16_siglip(_gap)?_512",
        {"activation": "gelu_tanh"},
    ),
    (r"_base_patch\d+_plus", {"num_heads": 14}),
    (r"_base_patch16_gap_224", {"num_heads": 16}),
    (r"_giant_patch\d+_(reg\d_)?(dinov2|tipsv2|radio)", {"num_heads": 24}),
    (r"^flexivit|_radio_", {"posemb_resize": "bilinear"}),
    (r"_(base|huge)_patch16_radio_v3", {"posemb_resize": "zoom"}),
)


def find_architecture(name: str) -> dict[str, Any]:
    """Return the fields of ViTConfig that a name states. A tag after a dot, as in ".augreg_in21k", changes nothing.

    Raises InputError for an architecture that is not supported.
    """
    name = name.partition(".")[0]
    match = next((match for pattern in SUPPORTED if (match := re.fullmatch(pattern, name))), None)
    if match is None:
        raise InputError(f"the architecture {name!r} of timm is not supported, however well its arrays may fit")
    fields: dict[str, Any] = {
        "num_heads": HEADS[match["size"]], "activation": "gelu", "norm_eps": 1e-6,
    }  # fmt: skip
    for pattern, changes in VARIANTS:
        if re.search(pattern, name):
            fields |= changes
    return fields
