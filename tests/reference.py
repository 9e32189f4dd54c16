"""Reference models: golden parameters of the originals, and small random models of pytorch_pretrained_vit."""

import functools
import json
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tests.optional import pytorch_pretrained_vit, torch

GOLDEN = Path(__file__).parent / "golden"
TINY = dict(
    patches=(8, 8),
    dim=48,
    ff_dim=80,
    num_heads=3,
    num_layers=3,
    attention_dropout_rate=0.0,
    dropout_rate=0.1,
    representation_size=None,
    classifier="token",
)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return all arrays of an .npz file, and close it."""
    with np.load(path) as stored:
        return dict(stored)


def golden_arrays(family: str) -> dict[str, np.ndarray]:
    """Return the golden outputs of a family of models, or of the transforms."""
    return load_arrays(GOLDEN / f"{family}.npz")


@functools.lru_cache(maxsize=1)  # seconds for a full-size model; consecutive tests share it and must not change it
def golden_parameters(family: str, name: str | None = None) -> dict[str, np.ndarray]:
    """Return a reference model's state_dict with golden parameters. name: None for a family of one model."""
    shapes = json.loads((GOLDEN / f"{family}_state_dict.json").read_text())
    shapes = shapes if name is None else shapes[name]
    return {key: golden_array(key, tuple(shape)) for key, shape in shapes.items()}


def golden_array(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return one golden parameter: standard normal values seeded by the key's CRC, scaled by the parameter's kind."""
    x = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    if key.endswith("running_var"):
        return 1 + 0.1 * np.abs(x)
    if len(shape) >= 2:
        return 0.1 * x if shape[0] == 1 else x / np.sqrt(np.prod(shape[1:]))
    return 1 + 0.1 * x if key.endswith("weight") else 0.1 * x


def catr_parameters() -> dict[str, np.ndarray]:
    """Return CATR's state_dict with golden parameters."""
    return golden_parameters("catr")


def catr_padded() -> tuple[np.ndarray, np.ndarray]:
    """Return golden case b: images [2, 299, 299, 3] of 224x299 and 299x199, zero-padded, and masks of their content."""
    random, padded, mask = np.random.RandomState(2), np.zeros((2, 299, 299, 3)), np.zeros((2, 299, 299), bool)
    for index, (height, width) in enumerate([(224, 299), (299, 199)]):
        padded[index, :height, :width] = random.uniform(-1, 1, (3, height, width)).transpose(1, 2, 0)
        mask[index, :height, :width] = True
    return padded, mask


def images(seed: int, batch: int, height: int, width: int) -> np.ndarray:
    """Return random NHWC float64 images in [-1, 1], sampled as NCHW like those of the golden files."""
    nchw = np.random.RandomState(seed).uniform(-1, 1, (batch, 3, height, width))
    return nchw.transpose(0, 2, 3, 1)


@contextmanager
def tiny_architecture(image_size=(32, 32), num_classes=7, **changes):
    """Register a small architecture as "tiny": pytorch_pretrained_vit builds models by name only."""
    config = TINY | changes
    pytorch_pretrained_vit.configs.PRETRAINED_MODELS["tiny"] = dict(
        config=config, num_classes=num_classes, image_size=image_size, url=None
    )
    try:
        yield
    finally:
        del pytorch_pretrained_vit.configs.PRETRAINED_MODELS["tiny"]


def tiny_torch(image_size=(32, 32), num_classes=7, seed=0, **changes):
    """Return a small random ViT of pytorch_pretrained_vit in float64 and eval mode; no parameter is zero."""
    torch.manual_seed(seed)
    with tiny_architecture(image_size, num_classes, **changes):
        model = pytorch_pretrained_vit.ViT("tiny").double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def state_arrays(model) -> dict[str, np.ndarray]:
    """Return a torch module's state_dict as numpy arrays."""
    return {key: tensor.detach().numpy().copy() for key, tensor in model.state_dict().items()}


def relative_error(actual, expected) -> float:
    """Return the largest absolute error, relative to the largest absolute value of the reference."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / np.abs(expected).max())
