"""The programs of other libraries that a workload is compared with. A library is imported only when asked for.

Each family is a module of peers/ with the functions build(workload, name, model) and describe().
"""

import argparse
from collections.abc import Callable
from importlib import import_module
from typing import Any

from experiments.benchmark.workload import Workload
from vit_jax import InputError, VisionTransformer, ViTConfig
from vit_jax.processor import multiplies_bfloat16

ORIGINAL, COMPILED, HUGGING_FACE = "pytorch_pretrained_vit", "the same, SDPA and torch.compile", "Hugging Face, SDPA"
OPENVINO, ONNX_RUNTIME = "OpenVINO", "ONNX Runtime"
FAMILY_OF = {
    ORIGINAL: "torch",
    COMPILED: "torch",
    HUGGING_FACE: "torch",
    OPENVINO: "openvino",
    ONNX_RUNTIME: "onnxruntime",
}
FAMILIES = tuple(dict.fromkeys(FAMILY_OF.values()))


def add_peer_flags(parser: argparse.ArgumentParser) -> None:
    """Add --against and --torch-compile."""
    parser.add_argument(
        "--against",
        type=_parse_families,
        default=(),
        metavar="NAME,...",
        help=f"measure other libraries too: {', '.join(FAMILIES)} (they need the test extra)",
    )
    parser.add_argument(
        "--torch-compile",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="with torch.compile among torch's programs, which needs a C++ compiler on a CPU",
    )


def _parse_families(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    unknown = next((name for name in names if name not in FAMILIES), None)
    if unknown is not None:
        raise argparse.ArgumentTypeError(f"{unknown!r} is not one of {', '.join(FAMILIES)}")
    return names


def import_family(family: str) -> Any:
    """Import a family's module. Raises InputError when a package that it needs is not installed."""
    try:
        return import_module(f"experiments.benchmark.peers.{family}_vit")
    except ImportError as error:
        raise InputError(f"--against {family} needs {error.name}; install the test extra") from error


def check_workload(family: str, workload: Workload) -> None:
    """Raise InputError if a family does not run a workload."""
    if workload.train and family != "torch":
        raise InputError(f"--against {family}: it does not train; leave out --train")
    if workload.config.rotary is not None and family != "torch":
        raise InputError(f"--against {family}: it runs pytorch_pretrained_vit's models, not a DINOv3; leave it out")
    has_bfloat16 = {"torch": True, "openvino": multiplies_bfloat16(), "onnxruntime": False}[family]
    if workload.dtype == "bfloat16" and not has_bfloat16:
        raise InputError(f"--against {family}: it has no bfloat16 on this processor; leave out --dtype bfloat16")


def peer_names(config: ViTConfig, families: tuple[str, ...], *, with_compiled: bool) -> list[str]:
    """Return the names of the families' programs that implement a model."""
    left_out = [] if with_compiled else [COMPILED]
    if config.rotary is not None:
        left_out += [ORIGINAL, COMPILED]
    elif config.image_size[0] != config.image_size[1]:
        left_out.append(HUGGING_FACE)  # its ViT takes square images only, its DINOv3 any
    return [name for name, family in FAMILY_OF.items() if family in families and name not in left_out]


def parse_peers(args: argparse.Namespace, workload: Workload) -> list[str]:
    """Return the names of the peers that the flags ask for.

    Raises InputError when they are not installed, or do not run the workload.
    """
    for family in args.against:
        check_workload(family, workload)
        import_family(family)
    return peer_names(workload.config, args.against, with_compiled=args.torch_compile)


def build_peer(workload: Workload, name: str, model: VisionTransformer) -> Callable[[], Any]:
    """Build a peer's program: it returns logits [B, C], or takes a training step and returns the loss before it."""
    return import_family(FAMILY_OF[name]).build(workload, name, model)
