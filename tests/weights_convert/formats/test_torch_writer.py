"""Files in torch's format, written without torch and loaded by it."""

import ml_dtypes
import numpy as np
import pytest

from tests.optional import torch
from weights_convert import read_checkpoint
from weights_convert.formats.torch_writer import write_torch


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "a.weight": rng.standard_normal((3, 5)).astype(np.float32),
        "transposed": rng.standard_normal((4, 6)).T,
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 4), np.float32),
        "long": np.arange(300, dtype=np.int64).reshape(3, 10, 10),
        "half": rng.standard_normal(7).astype(np.float16),
        "bfloat16": rng.standard_normal(5).astype(ml_dtypes.bfloat16),
        "flags": np.array([True, False]),
        "ünïcode": np.ones(1, ">f4").astype(">f4"),
    }


@pytest.mark.parametrize("wrapper", ["", "model"])
def test_torch_and_read_checkpoint_load_written_files(arrays, wrapper, tmp_path):
    write_torch(tmp_path / "a.pth", arrays, wrapper=wrapper)
    loaded = torch.load(tmp_path / "a.pth", weights_only=True)
    loaded = loaded[wrapper] if wrapper else loaded
    assert list(loaded) == list(arrays)
    for name, tensor in loaded.items():
        values = tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
        assert values.shape == arrays[name].shape
        np.testing.assert_array_equal(values, arrays[name].astype(values.dtype))
    read = read_checkpoint(tmp_path / "a.pth")
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)


def test_loaded_tensors_can_be_trained(arrays, tmp_path):
    module = torch.nn.Linear(5, 3)
    write_torch(tmp_path / "a.pth", {"weight": arrays["a.weight"], "bias": np.zeros(3, np.float32)})
    module.load_state_dict(torch.load(tmp_path / "a.pth", weights_only=True), strict=True)
    module(torch.ones(1, 5)).sum().backward()
    assert module.weight.grad is not None
