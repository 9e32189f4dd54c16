"""ONNX Runtime on a CPU; used by the benchmark only."""

import tempfile
from collections.abc import Callable

import numpy as np
import onnxruntime

from experiments.benchmark.peers.onnx_file import write_onnx
from experiments.benchmark.workload import Workload
from vit_jax import VisionTransformer


def describe() -> str:
    """Return the version and the settings."""
    return f"ONNX Runtime {onnxruntime.__version__}, all graph optimizations, CPU provider"


def build(workload: Workload, name: str, model: VisionTransformer) -> Callable[[], np.ndarray]:
    """Build a program that returns the logits [B, C]."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    with tempfile.TemporaryDirectory() as folder:
        path, images = write_onnx(workload, model, folder)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: images}
    return lambda: session.run(None, inputs)[0]
