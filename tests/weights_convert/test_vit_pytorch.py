"""vit-pytorch's checkpoints against outputs that it computed in float64 itself (tests/golden/vit_pytorch.py)."""

import jax
import numpy as np
import pytest

import tests.reference as reference
from vit_jax import InputError, forward_with_attention, with_image_size
from weights_convert import convert, export

pytestmark = pytest.mark.parity

LAYOUTS = {"ViT cls": "vit_pytorch", "ViT mean": "vit_pytorch", "SimpleViT": "simple_vit"}
forward = jax.jit(forward_with_attention)


def size_of(case):
    return (32, 40) if case == "SimpleViT" else (32, 32)


@pytest.mark.parametrize("case", LAYOUTS)
def test_golden_parity_and_the_way_back(case, x64):
    golden = reference.golden_arrays("vit_pytorch")
    arrays = reference.golden_parameters("vit_pytorch", case)
    model = convert(arrays, image_size=size_of(case))
    assert (model.config.num_heads, model.config.attention_width) == (2, 128)
    output = forward(model, reference.images(3, 2, *size_of(case)))
    assert reference.relative_error(output.logits, golden[f"{case}/logits"]) < 1e-9
    assert reference.relative_error(output.attention, golden[f"{case}/attention"]) < 1e-9
    back = export(model, layout=LAYOUTS[case])
    assert {key: array.shape for key, array in back.items()} == {key: array.shape for key, array in arrays.items()}
    assert all(np.array_equal(back[key], arrays[key]) for key in arrays)
    converted = convert(back, image_size=size_of(case))
    jax.tree.map(np.testing.assert_array_equal, converted, model)


def test_arrays_of_older_versions_have_another_leading_axis():
    arrays = reference.golden_parameters("vit_pytorch", "ViT cls")
    older = arrays | {"cls_token": arrays["cls_token"][None], "pos_embedding": arrays["pos_embedding"][None]}
    jax.tree.map(np.testing.assert_array_equal, convert(older), convert(arrays))


def test_what_simple_vit_checkpoints_cannot_store():
    arrays = reference.golden_parameters("vit_pytorch", "SimpleViT")
    with pytest.raises(InputError, match="do not show the image size; give it"):
        convert(arrays)
    larger = with_image_size(convert(arrays, image_size=32), 64)
    with pytest.raises(InputError, match="no place for positions that were trained or resized"):
        export(larger, layout="simple_vit")
    rectangular = arrays | {"to_patch_embedding.2.weight": np.zeros((48, 8 * 4 * 3), np.float32)}
    with pytest.raises(InputError, match="patches of 96 values are not squares"):
        convert(rectangular, image_size=32)
