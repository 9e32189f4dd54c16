"""OpenVINO on a CPU, from this library's plain forward pass by its JAX front end; used by the benchmark only."""

from collections.abc import Callable

import jax
import numpy as np
import openvino

from experiments.benchmark.workload import Workload
from vit_jax import InputError, VisionTransformer
from vit_jax.execution import PLAIN_EXECUTION

PRECISIONS = {"float32": openvino.Type.f32, "bfloat16": openvino.Type.bf16}


def describe() -> str:
    """Return the version and the settings."""
    return f"OpenVINO {openvino.__version__.partition('-')[0]} (latency hint)"


def build(workload: Workload, name: str, model: VisionTransformer) -> Callable[[], np.ndarray]:
    """Build a program that returns the logits [B, C]. Raises InputError if OpenVINO does not know this version of jax.

    2026.4.1 reads programs of jax 0.10, and not of jax 0.12.
    """
    images = workload.images()
    program = jax.make_jaxpr(lambda x: model(x, execution=PLAIN_EXECUTION))(images)
    try:
        converted = openvino.convert_model(program)
    except RuntimeError as error:
        raise InputError(
            f"{describe()} can't read this program of jax {jax.__version__}; it reads those of 0.10.2"
        ) from error
    settings = {"INFERENCE_PRECISION_HINT": PRECISIONS[workload.dtype], "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(converted, "CPU", settings)
    return lambda: np.array(compiled(images, share_inputs=True)[0])
