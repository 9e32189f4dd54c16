"""The file of a behaviour record, and its comparison with new results: see behaviour.py."""

import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

XLA_FLAGS = "--xla_cpu_experimental_ynn_fusion_type= --xla_backend_optimization_level=0"  # of the record

FEW_SAMPLES = ("/gradient/", "/converted/", "/exported/", "/parameters/")  # 16 values in place of 64
WORDING = "help/"  # reported by compare but not counted: help texts may be reworded
Results = dict[str, Any]  # name -> numpy array or str


def sample(name: str, array: np.ndarray) -> np.ndarray:
    """Return up to 64 evenly strided values in float64, 16 of parameters and gradients."""
    most = 16 if any(part in name for part in FEW_SAMPLES) else 64
    flat = array.ravel()
    return flat[:: max(1, -(-flat.size // most))].astype(np.float64)


def digest(array: np.ndarray) -> str:
    """Return the sha256 of an array's type, shape and bytes."""
    kind = f"{array.dtype.name} {array.shape} ".encode()
    return hashlib.sha256(kind + np.ascontiguousarray(array).tobytes()).hexdigest()


def processor() -> str:
    """Return the processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def write_record(path: Path, results: Results) -> None:
    """Write the digests and samples of all arrays, and all texts."""
    arrays = {name: value for name, value in results.items() if not isinstance(value, str)}
    samples = [sample(name, array) for name, array in arrays.items()]
    index = {
        "recorded_on": f"{processor()}, jax {jax.__version__}",
        "texts": {name: value for name, value in results.items() if isinstance(value, str)},
        "arrays": {name: [array.dtype.name, list(array.shape)] for name, array in arrays.items()},
        "lengths": [len(values) for values in samples],
    }
    digests = np.frombuffer(bytes.fromhex("".join(map(digest, arrays.values()))), np.uint8)
    text = np.frombuffer(json.dumps(index).encode(), np.uint8)
    np.savez_compressed(path, index=text, digests=digests.reshape(-1, 32), samples=np.concatenate(samples))


def read_record(path: Path) -> dict[str, Any]:
    """Return name -> text, or name -> (digest, type, shape, samples)."""
    with np.load(path) as stored:
        index, digests, samples = json.loads(stored["index"].tobytes()), stored["digests"], stored["samples"]
    ends = np.cumsum(index["lengths"])
    record: dict[str, Any] = dict(index["texts"])
    for row, (name, (dtype, shape)) in enumerate(index["arrays"].items()):
        values = samples[ends[row] - index["lengths"][row] : ends[row]]
        record[name] = (digests[row].tobytes().hex(), dtype, tuple(shape), values)
    return record


def largest_difference(name: str, recorded: Any, value: Any, *, floor: float = 0.0) -> float:
    """Return the largest difference of the samples, relative to their largest value (at least `floor`).

    Infinite where type or shape differ, or where other values are finite.
    """
    if isinstance(recorded, str) or isinstance(value, str):
        return 0.0 if is_equal(name, recorded, value) else float("inf")
    _, dtype, shape, samples = recorded
    if (value.dtype.name, value.shape) != (dtype, shape):
        return float("inf")
    actual, finite = sample(name, value), np.isfinite(samples)
    if not np.array_equal(np.isfinite(actual), finite):
        return float("inf")
    scale = max(floor, np.abs(samples[finite]).max(initial=0.0))
    return float(np.abs(actual[finite] - samples[finite]).max(initial=0.0) / (scale or 1.0))


def is_equal(name: str, recorded: Any, value: Any) -> bool:
    """Return whether a result equals the record to the bit; a flag may have gained choices."""
    if isinstance(recorded, str) != isinstance(value, str):
        return False
    if not isinstance(recorded, str):
        return recorded[0] == digest(value)
    if not name.startswith("flags/"):
        return recorded == value
    old, new = json.loads(recorded), json.loads(value)
    compatible = old["choices"] is None or (new["choices"] is not None and set(old["choices"]) <= set(new["choices"]))
    return compatible and old | {"choices": None} == new | {"choices": None}


def compare(record: Mapping[str, Any], results: Results) -> int:
    """Print every result that differs from the record; return how many do."""
    differing = 0
    for name, recorded in record.items():
        if name not in results:
            print(f"MISSING   {name}")
            differing += 1
        elif not is_equal(name, recorded, results[name]):
            counts = not name.startswith(WORDING)
            differing += counts
            difference = largest_difference(name, recorded, results[name])
            print(f"{'DIFFERS' if counts else 'reworded':9} {name}: {difference:.3g}")
        else:
            print(f"equal     {name}")
    new = [name for name in results if name not in record]
    print(f"{len(record)} recorded, {differing} differ or are missing, {len(new)} new")
    return differing
