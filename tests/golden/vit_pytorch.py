"""Writes vit_pytorch.npz beside it: what vit-pytorch's ViT and SimpleViT answer in float64 on small models.

Needs torch, einops and vit-pytorch, whose package does not import beside a CPU build of torch (torchvision), so its
modules are loaded one by one: python -m tests.golden.vit_pytorch
"""

import importlib.util
import json
from pathlib import Path

import numpy as np

import tests.reference as reference
from tests.optional import torch

VERSION = "1.26.11"
SIZES = dict(num_classes=7, dim=48, depth=3, heads=2, mlp_dim=80, dim_head=64, patch_size=8)
CASES = {
    "ViT cls": ("vit", "ViT", dict(image_size=32, pool="cls")),
    "ViT mean": ("vit", "ViT", dict(image_size=32, pool="mean")),
    "SimpleViT": ("simple_vit", "SimpleViT", dict(image_size=(32, 40))),
}


def theirs(case):
    """A model of vit-pytorch in float64, filled by the golden rule."""
    module, name, options = CASES[case]
    place = Path(importlib.util.find_spec("vit_pytorch").submodule_search_locations[0], f"{module}.py")
    spec = importlib.util.spec_from_file_location(module, place)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    torch.set_default_dtype(torch.float64)
    model = getattr(loaded, name)(**SIZES, **options).eval()
    if name == "SimpleViT":  # which rounds its positions to float32
        grid = [side // SIZES["patch_size"] for side in options["image_size"]]
        model.pos_embedding = loaded.posemb_sincos_2d(*grid, SIZES["dim"], dtype=torch.float64)
    torch.set_default_dtype(torch.float32)
    state = {
        key: torch.from_numpy(reference.golden_array(key, tuple(t.shape))) for key, t in model.state_dict().items()
    }
    model.load_state_dict(state, strict=True)
    return model


def main():
    """Work out the answers and write them with the shapes of the parameters."""
    answers, shapes = {}, {}
    for case in CASES:
        model = theirs(case)
        shapes[case] = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
        size = CASES[case][2]["image_size"]
        x = reference.images(3, 2, *((size, size) if isinstance(size, int) else size))
        attention = [[] for _ in model.transformer.layers]
        for (layer, _), kept in zip(model.transformer.layers, attention, strict=True):
            layer.attend.register_forward_hook(lambda _, __, weights, kept=kept: kept.append(weights.detach().numpy()))
        with torch.no_grad():
            answers[f"{case}/logits"] = model(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
        answers[f"{case}/attention"] = np.concatenate(attention)
    np.savez_compressed(reference.GOLDEN / "vit_pytorch.npz", **answers)
    (reference.GOLDEN / "vit_pytorch_state_dict.json").write_text(json.dumps(shapes))


if __name__ == "__main__":
    main()
