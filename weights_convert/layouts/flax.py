"""Files of Hugging Face's Flax classes (flax_model.msgpack): the layouts of the PyTorch classes under Flax's names.

Both write the same names apart from the last part: a dense layer or convolution has a `kernel` for torch's `weight`, a
norm a `scale`, an embedding an `embedding`. Kernels are [in, out] and [h, w, in, out]. The tables are derived.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from weights_convert.layouts import huggingface_clip, huggingface_dinov2, huggingface_vit
from weights_convert.layouts.inference import Shapes
from weights_convert.layouts.layout import Layout
from weights_convert.rules import CONV, FUSED_LINEAR, IDENTITY, LINEAR, TABLE, Rule, Transform

# Three kernels [in, out] concatenated to [in, 3 * out].
FUSED_KERNEL = Transform(lambda *w: np.concatenate(w, axis=1), lambda w: tuple(np.split(w, 3, axis=1)))
# Transform of torch's weight -> Flax's name for it, and its transform.
FORMS: Mapping[Transform, tuple[str, Transform]] = {
    LINEAR: ("kernel", IDENTITY),
    CONV: ("kernel", IDENTITY),
    FUSED_LINEAR: ("kernel", FUSED_KERNEL),
    IDENTITY: ("scale", IDENTITY),
    TABLE: ("embedding", TABLE),
}


def flax_layout(base: Layout, name: str, title: str) -> Layout:
    """Return the layout of the Flax class for a layout of a torch class whose rules use the transforms in FORMS."""
    rules = tuple(map(_convert_rule, base.rules))
    names = {
        old.replace("{i}", "0"): new.replace("{i}", "0")
        for torch_rule, flax_rule in zip(base.rules, rules, strict=True)
        for old, new in zip(torch_rule.sources, flax_rule.sources, strict=True)
    }
    return replace(
        base,
        name=name,
        title=title,
        rules=rules,
        infer_architecture=lambda shapes, image_size: base.infer_architecture(_torch_shapes(shapes), image_size),
        signature_keys=tuple(names[key] for key in base.signature_keys),
        preprocess=lambda shapes: base.preprocess(_torch_shapes(shapes)),
    )


def _convert_rule(rule: Rule) -> Rule:
    if not (isinstance(rule.transform, Transform) and rule.sources[0].endswith(".weight")):
        return rule
    kind, transform = FORMS[rule.transform]
    sources = tuple(source.removesuffix("weight") + kind for source in rule.sources)
    return Rule(sources, rule.target, transform, rule.when)


def _torch_shapes(shapes: Shapes) -> Shapes:
    """Return the names and shapes that the torch class has."""
    result: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        module, _, kind = name.rpartition(".")
        if kind == "kernel":
            shape = shape[::-1] if len(shape) == 2 else (shape[3], shape[2], *shape[:2])
        result[f"{module}.weight" if kind in ("kernel", "scale", "embedding") else name] = shape
    return result


VIT = flax_layout(huggingface_vit.VIT, "flax_vit", "Hugging Face ViT, Flax class")
DINOV2 = flax_layout(
    replace(huggingface_dinov2.LAYOUT, rules=huggingface_dinov2.RULES), "flax_dinov2", "Hugging Face DINOv2, Flax class"
)
CLIP = flax_layout(huggingface_clip.CLIP, "flax_clip", "Hugging Face CLIP image tower, Flax class")
