"""Fixtures that make originals compute in float64 what they always round to float32; the formulas stay their own."""

import inspect

import pytest

from tests import live_timm
from tests.optional import torch


class Double:
    """torch, with float64 in place of float32."""

    def __getattr__(self, name):
        return torch.float64 if name == "float32" else getattr(torch, name)


@pytest.fixture
def exact_steps(monkeypatch):
    """Of AIMv2's norms and attention, and of TIPSv2's resized positions."""
    pytest.importorskip("torch")
    models = pytest.importorskip("transformers").models
    for module in (models.aimv2.modeling_aimv2, models.tipsv2.modeling_tipsv2):
        monkeypatch.setattr(module, "torch", Double())


@pytest.fixture
def exact_angles(monkeypatch):
    """Of DINOv3's angles; the function returned does so for the periods of a model."""
    pytest.importorskip("torch")
    module = pytest.importorskip("transformers").models.dinov3_vit.modeling_dinov3_vit
    coordinates = module.get_patches_center_coordinates
    monkeypatch.setattr(
        module,
        "get_patches_center_coordinates",
        lambda rows, columns, dtype, device: coordinates(rows, columns, torch.float64, device),
    )

    def use_exact_periods(model):
        if hasattr(model, "rope_embeddings"):
            rope = model.rope_embeddings
            steps = torch.arange(0, 1, 4 / rope.head_dim, dtype=torch.float64)
            rope.inv_freq = torch.nn.Buffer(1 / rope.base**steps, persistent=False)
        return model

    return use_exact_periods


@pytest.fixture
def exact_timm(monkeypatch):
    """Return timm, with exact angles and resized positions."""
    timm = live_timm.load()
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    module = timm.layers.pos_embed_sincos
    monkeypatch.setattr(module, "torch", Double())
    owners = [module, *(kind for _, kind in inspect.getmembers(module, inspect.isclass))]
    for function in (function for owner in owners for _, function in inspect.getmembers(owner, inspect.isfunction)):
        values = tuple(torch.float64 if value is torch.float32 else value for value in function.__defaults__ or ())
        monkeypatch.setattr(function, "__defaults__", values or None)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # of its buffers of frequencies
    yield timm
    torch.set_default_dtype(default)
