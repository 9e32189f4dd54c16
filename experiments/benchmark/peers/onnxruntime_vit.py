"""ONNX Runtime on a CPU, from the PyTorch original with SDPA by torch's exporter; used by the benchmark only."""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx  # noqa: F401  needed by torch.onnx; import_family reports it if it is missing
import onnxruntime
import onnxscript  # noqa: F401  the same
import torch

from experiments.benchmark.peers.torch_vit import build_original
from experiments.benchmark.workload import Workload
from vit_jax import VisionTransformer
from weights_convert import export


def describe() -> str:
    """Return the version and the settings."""
    return f"ONNX Runtime {onnxruntime.__version__}, all graph optimizations, CPU provider"


def build(workload: Workload, name: str, model: VisionTransformer) -> Callable[[], np.ndarray]:
    """Build a program that returns the logits [B, C]."""
    original = build_original(model.config, export(model, layout="lukemelas"), fused=True).eval()
    images = np.ascontiguousarray(workload.images().transpose(0, 3, 1, 2))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's exporter about itself
            torch.onnx.export(original, (torch.from_numpy(images),), path, dynamo=True, verbose=False)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: images}
    return lambda: session.run(None, inputs)[0]
