"""OpenVINO on a CPU; used by the benchmark only."""

import tempfile
from collections.abc import Callable

import numpy as np
import openvino

from experiments.benchmark.peers.onnx_file import write_onnx
from experiments.benchmark.workload import Workload
from vit_jax import VisionTransformer

PRECISIONS = {"float32": openvino.Type.f32, "bfloat16": openvino.Type.bf16}


def describe() -> str:
    """Return the version and the settings."""
    return f"OpenVINO {openvino.__version__.partition('-')[0]} (latency hint)"


def build(workload: Workload, name: str, model: VisionTransformer) -> Callable[[], np.ndarray]:
    """Build a program that returns the logits [B, C]."""
    settings = {"INFERENCE_PRECISION_HINT": PRECISIONS[workload.dtype], "PERFORMANCE_HINT": "LATENCY"}
    with tempfile.TemporaryDirectory() as folder:
        path, images = write_onnx(workload, model, folder)
        compiled = openvino.Core().compile_model(openvino.Core().read_model(path), "CPU", settings)
    return lambda: np.array(compiled(images, share_inputs=True)[0])
