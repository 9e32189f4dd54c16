"""Files of Hugging Face's Flax classes: torch classes of transformers with arrays renamed and transposed here.

transformers 5 has no Flax classes; 4.x wrote `kernel` [in, out] and [h, w, in, out], `scale` and `embedding`.
"""

import pytest

import tests.reference as reference
from tests.optional import torch
from tests.weights_convert.originals import check_arrays, forward, randomize
from weights_convert import convert, export

pytestmark = pytest.mark.parity

transformers = pytest.importorskip("transformers")
from_numpy = torch.from_numpy  # without torch this skips the module

TINY = dict(
    hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=80, image_size=32, patch_size=8
)
CASES = {
    "flax_vit": ("ViTForImageClassification", "ViTConfig", dict(num_labels=7)),
    "flax_dinov2": ("Dinov2Model", "Dinov2Config", {}),
    "flax_clip": ("CLIPVisionModelWithProjection", "CLIPVisionConfig", dict(projection_dim=24)),
}


def to_flax(name, array):
    """Return a torch array's name and value as the Flax class stores it."""
    module, _, kind = name.rpartition(".")
    if kind != "weight":
        return name, array
    if "position_embedding" in module:
        return f"{module}.embedding", array
    if array.ndim == 4:
        return f"{module}.kernel", array.transpose(2, 3, 1, 0)
    return (f"{module}.kernel", array.T) if array.ndim == 2 else (f"{module}.scale", array)


@pytest.mark.parametrize("layout", CASES)
def test_parity_and_the_way_back(layout, x64, tmp_path):
    from safetensors.numpy import load_file

    name, config, options = CASES[layout]
    original = randomize(getattr(transformers, name)(getattr(transformers, config)(**TINY, **options)))
    original.save_pretrained(tmp_path)
    arrays = dict(to_flax(*item) for item in load_file(tmp_path / "model.safetensors").items())
    model = convert(arrays, num_heads=3)
    images = reference.images(3, 2, 32, 32)
    with torch.no_grad():
        output = original(pixel_values=from_numpy(images.transpose(0, 3, 1, 2).copy()))
    fields = ("logits", "image_embeds", "pooler_output")
    expected = next(getattr(output, field).numpy() for field in fields if hasattr(output, field))
    assert reference.relative_error(forward(model, images).logits, expected) < 1e-9
    check_arrays(
        export(model, layout=layout), {name: array for name, array in arrays.items() if "mask_token" not in name}
    )
