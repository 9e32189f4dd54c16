"""A model as a program that runs without this library: StableHLO (jax.export) and ONNX (jax2onnx), parameters included.

The program takes normalised float32 images [B, h, w, c] at the model's size, for any B, and returns what the model
returns, [B, C]. The JSON file next to it states the preprocessing and the class names. The model's compiler workarounds
are left out: they are written for XLA, and for one backend.
"""

import importlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Float

from vit_jax import InputError, VisionTransformer
from vit_jax.execution import PLAIN_EXECUTION
from vit_jax.files import atomic_write

INPUT, OUTPUT, BATCH = "images", "logits", "batch"
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
BATCH_SIZES = (1, 3)  # of the check
MAX_ONNX_BYTES = 2**31 - 2**20  # protobuf's limit, with room for the graph

Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class ProgramFormat:
    """A format of programs.

    suffix: of its files.
    build:  model -> contents of the file. Raises InputError if a package is missing or the model is too large.
    load:   contents -> function from images to outputs; None if the package that runs it is not installed.
    bound:  largest error allowed, relative to the largest output, in float32.
    """

    suffix: str
    build: Callable[[VisionTransformer], bytes]
    load: Callable[[bytes], Run | None]
    bound: float


def write_program(
    model: VisionTransformer, out: Path, program: ProgramFormat, *, class_names: tuple[str, ...] = ()
) -> float | None:
    """Write the program to `out` and its description to `out` + ".json", completely or not at all.

    Return the error of its outputs for random images, relative to the largest output; None if nothing here can run it.
    Raises InputError if the error exceeds the format's bound, and as check_program_path and `build` do.
    """
    check_program_path(out, program)
    model = jax.tree.map(lambda parameter: parameter.astype(jnp.float32), model)
    contents = program.build(model)
    run = program.load(contents)
    error = None if run is None else measure_error(model, run)
    if error is not None and not error <= program.bound:
        raise InputError(f"{out}: not written: the program's outputs differ from the model's by {error:.1e}")
    with atomic_write(out) as partial, atomic_write(out.with_name(out.name + ".json")) as description:
        partial.write_bytes(contents)
        description.write_text(json.dumps(_describe(model, class_names), indent=1) + "\n")
    return error


def check_program_path(out: Path, program: ProgramFormat) -> None:
    """Raise InputError unless `out` is the path of a file with the format's suffix in an existing folder."""
    if out.suffix != program.suffix:
        raise InputError(f"{out}: give a name that ends in {program.suffix}")
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise InputError(f"{out}: {'a folder' if out.is_dir() else 'its folder does not exist'}; give a file's path")


def measure_error(model: VisionTransformer, run: Run) -> float:
    """Return the largest difference of a program's outputs from the model's, for batches of BATCH_SIZES random images.

    Relative to the largest output of the model; absolute if all are 0, as of a new head.
    """
    images = _draw_images(model, max(BATCH_SIZES))
    expected = np.asarray(jax.jit(lambda model, images: model(images))(model, images))
    scale = np.abs(expected).max() or 1.0
    return max(float(np.abs(run(images[:count]) - expected[:count]).max() / scale) for count in BATCH_SIZES)


def _draw_images(model: VisionTransformer, count: int) -> Float[np.ndarray, "b h w c"]:
    shape = (count, *model.config.image_size, model.config.in_channels)
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def _describe(model: VisionTransformer, class_names: tuple[str, ...]) -> dict[str, Any]:
    """Return what a program's user must know: shapes, preprocessing (fields of Preprocess) and class names."""
    config = model.config
    return {
        "input": {"name": INPUT, "dtype": "float32", "shape": [BATCH, *config.image_size, config.in_channels]},
        "output": {"name": OUTPUT, "dtype": "float32", "shape": [BATCH, config.num_outputs]},
        "preprocess": {"size": list(config.image_size), **asdict(config.preprocess)},
        "class_names": list(class_names),
    }


def _make_forward(model: VisionTransformer) -> Callable[[jax.Array], jax.Array]:
    return lambda images: model(images, execution=PLAIN_EXECUTION)


def _build_stablehlo(model: VisionTransformer) -> bytes:
    (batch,) = export.symbolic_shape(BATCH)
    images = jax.ShapeDtypeStruct((batch, *model.config.image_size, model.config.in_channels), jnp.float32)
    return bytes(export.export(jax.jit(_make_forward(model)), platforms=PLATFORMS)(images).serialize())


def _load_stablehlo(contents: bytes) -> Run:
    program = export.deserialize(bytearray(contents))
    return lambda images: np.asarray(program.call(images))


def _build_onnx(model: VisionTransformer) -> bytes:
    size = sum(parameter.nbytes for parameter in jax.tree.leaves(model))
    if size > MAX_ONNX_BYTES:
        raise InputError(f"an ONNX file holds at most 2 GiB, and this model has {size / 2**30:.1f}; use stablehlo")
    with _silence_loggers("jax2onnx", "onnx_ir"):
        try:
            converter = importlib.import_module("jax2onnx")
        except ImportError as error:
            raise InputError("--format onnx needs jax2onnx: pip install 'vit-jax[onnx]'") from error
        shape = (BATCH, *model.config.image_size, model.config.in_channels)
        graph = converter.to_onnx(_make_forward(model), [shape], input_names=[INPUT], output_names=[OUTPUT])
        return graph.SerializeToString()


def _load_onnx(contents: bytes) -> Run | None:
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError:
        return None
    session = runtime.InferenceSession(contents, providers=["CPUExecutionProvider"])
    return lambda images: session.run([OUTPUT], {INPUT: images})[0]


@contextmanager
def _silence_loggers(*names: str) -> Iterator[None]:
    """Keep messages about a converter's own plugins and shapes from the user."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


# float32 sums of some hundred products in another order; onnxruntime's kernels order them otherwise again.
STABLEHLO = ProgramFormat(".stablehlo", _build_stablehlo, _load_stablehlo, bound=1e-5)
ONNX = ProgramFormat(".onnx", _build_onnx, _load_onnx, bound=1e-5)
