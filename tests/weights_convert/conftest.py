"""Fixtures that make transformers compute in float64 what it always rounds to float32; the formulas stay its own."""

import pytest

from tests.optional import torch


class Double:
    """torch, with float64 in place of float32."""

    def __getattr__(self, name):
        return torch.float64 if name == "float32" else getattr(torch, name)


@pytest.fixture
def exact_steps(monkeypatch):
    """Of AIMv2's norms and attention, and of TIPSv2's resized positions."""
    models = pytest.importorskip("transformers").models
    for module in (models.aimv2.modeling_aimv2, models.tipsv2.modeling_tipsv2):
        monkeypatch.setattr(module, "torch", Double())


@pytest.fixture
def exact_angles(monkeypatch):
    """Of DINOv3's angles; the function returned does so for the periods of a model."""
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
