"""The ONNX file that engines for deployment read: the PyTorch original with SDPA, by torch's exporter."""

import logging
import warnings
from pathlib import Path

import numpy as np
import onnx  # noqa: F401  needed by torch.onnx; import_family reports it if it is missing
import onnxscript  # noqa: F401  the same
import torch

from experiments.benchmark.peers.torch_vit import build_original
from experiments.benchmark.workload import Workload
from vit_jax import VisionTransformer
from weights_convert import export


def write_onnx(workload: Workload, model: VisionTransformer, folder: str) -> tuple[Path, np.ndarray]:
    """Write the file into a folder; return its path and the batch as its input, [B, 3, h, w]."""
    original = build_original(model.config, export(model, layout="lukemelas"), fused=True).eval()
    images = np.ascontiguousarray(workload.images().transpose(0, 3, 1, 2))
    path = Path(folder) / "model.onnx"
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it notes that torchvision is not there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's exporter about itself
        torch.onnx.export(original, (torch.from_numpy(images),), path, dynamo=True, verbose=False)
    return path, images
