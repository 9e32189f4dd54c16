"""Hugging Face's DINOv3 and BEiT: live parity with transformers on small random models, and export back into them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tests.reference as reference
from tests.optional import torch
from tests.weights_convert.test_huggingface import TINY, run_original
from vit_jax import InputError, forward_with_attention
from vit_jax.position import relative_position_index
from weights_convert import convert, export

pytestmark = pytest.mark.parity

transformers = pytest.importorskip("transformers")
from transformers.models.dinov3_vit import modeling_dinov3_vit  # noqa: E402

REGISTERS = dict(num_register_tokens=4)
BIAS = dict(use_relative_position_bias=True)
CASES = {
    "DINOv3": ("DINOv3ViTModel", "DINOv3ViTConfig", REGISTERS),
    "DINOv3 SwiGLU": ("DINOv3ViTModel", "DINOv3ViTConfig", REGISTERS | dict(use_gated_mlp=True, hidden_act="silu")),
    "DINOv3 with a bias of the keys": ("DINOv3ViTModel", "DINOv3ViTConfig", REGISTERS | dict(key_bias=True)),
    "BEiT": ("BeitModel", "BeitConfig", BIAS),
    "BEiT classifier": ("BeitForImageClassification", "BeitConfig", BIAS | dict(num_labels=7)),
    "BEiT by [class]": ("BeitModel", "BeitConfig", BIAS | dict(use_mean_pooling=False)),
    "BEiT with shared bias and a table": (
        "BeitForImageClassification",
        "BeitConfig",
        dict(use_shared_relative_position_bias=True, use_absolute_position_embeddings=True, num_labels=7),
    ),
}
forward = jax.jit(forward_with_attention)
# transformers rounds the angles of DINOv3, and BEiT's attention weights, to float32.
EXACT, FLOAT32 = 1e-9, 1e-6


def make(case, **changes):
    """Return a small random float64 model of transformers, no parameter at its initial value."""
    model, config, options = CASES[case]
    torch.manual_seed(0)
    original = getattr(transformers, model)(getattr(transformers, config)(**TINY | options | changes)).double().eval()
    with torch.no_grad():
        for parameter in original.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return original


@pytest.fixture
def exact_angles(monkeypatch):
    """Make transformers compute DINOv3's angles in float64; the formulas stay its own."""
    coordinates = modeling_dinov3_vit.get_patches_center_coordinates
    monkeypatch.setattr(
        modeling_dinov3_vit,
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


@pytest.mark.parametrize("case", CASES)
def test_parity_and_the_way_back(case, x64, exact_angles, tmp_path):
    original = exact_angles(make(case))
    original.save_pretrained(tmp_path)
    model = convert(tmp_path)
    assert model.config.num_heads == 3
    x = reference.images(3, 2, 32, 32)
    pooled, attention = run_original(original, x)
    output = forward(model, x)
    assert output.logits.dtype == jnp.float64
    assert reference.relative_error(output.logits, pooled) < EXACT
    for actual, expected in zip(output.attention, attention, strict=True):
        assert reference.relative_error(actual, expected) < (EXACT if "DINO" in case else FLOAT32)
    in_memory = convert(reference.state_arrays(original), num_heads=3, settings={"rotary": model.config.rotary})
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(model), jax.tree.leaves(in_memory), strict=True))

    from safetensors.numpy import save_file

    layout = "hf_dinov3" if "DINO" in case else "hf_beit"
    save_file(export(model, layout=layout), tmp_path / "model.safetensors", metadata={"format": "pt"})
    back, info = type(original).from_pretrained(tmp_path, output_loading_info=True, dtype=torch.float64)
    assert {name for name in info["missing_keys"] if "mask_token" not in name} == set()
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    loaded = reference.state_arrays(back)
    for name, array in reference.state_arrays(original).items():
        if "mask_token" not in name:
            assert np.array_equal(loaded[name], array), name


@pytest.mark.parametrize("case", ["DINOv3", "BEiT"])
def test_another_image_size(case, x64, exact_angles, tmp_path):
    original = exact_angles(make(case))
    original.save_pretrained(tmp_path)
    x = reference.images(3, 2, 24, 40)
    pooled, attention = run_original(original, x)
    output = forward(convert(tmp_path), x)
    assert reference.relative_error(output.logits, pooled) < EXACT
    for actual, expected in zip(output.attention, attention, strict=True):
        assert reference.relative_error(actual, expected) < (EXACT if "DINO" in case else FLOAT32)


def test_another_base_of_dinov3s_periods_is_read_from_the_config(x64, exact_angles, tmp_path):
    original = exact_angles(make("DINOv3", rope_theta=30.0))
    original.save_pretrained(tmp_path)
    model, x = convert(tmp_path), reference.images(3, 2, 32, 32)
    assert model.config.rotary.temperature == 30
    with torch.no_grad():
        expected = original(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).last_hidden_state
    assert reference.relative_error(forward(model, x).features, expected) < EXACT


def test_transformers_own_angles_differ_by_their_rounding_alone(x64, tmp_path):
    original = make("DINOv3")
    original.save_pretrained(tmp_path)
    x = reference.images(3, 2, 32, 32)
    pooled, _ = run_original(original, x)
    assert reference.relative_error(forward(convert(tmp_path), x).logits, pooled) < FLOAT32


@pytest.mark.parametrize("case", ["BEiT", "BEiT with shared bias and a table"])
def test_the_stored_index_is_compared_and_not_used(case):
    """Older files hold it; a file with another one is of another kind."""
    arrays = reference.state_arrays(make(case))
    table = next(name for name in arrays if name.endswith("relative_position_bias_table"))
    name = table.replace("_bias_table", "_index")
    index = relative_position_index((4, 4))
    convert(arrays | {name: index}, num_heads=3)
    with pytest.raises(InputError, match="relative_position_index does not hold what a model of this shape has"):
        convert(arrays | {name: index.T}, num_heads=3)


def test_a_gated_gelu_of_dinov3_is_refused(tmp_path):
    make("DINOv3 SwiGLU", hidden_act="gelu").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="use_gated_mlp with hidden_act 'gelu'"):
        convert(tmp_path)
