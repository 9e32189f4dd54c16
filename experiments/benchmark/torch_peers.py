"""The PyTorch models that a workload is compared with. torch is imported only when one is asked for."""

import argparse
from collections.abc import Callable
from typing import Any

import jax

from experiments.benchmark.workload import Workload
from vit_jax import InputError, VisionTransformer, ViTConfig
from weights_convert import export

ORIGINAL, COMPILED, HUGGING_FACE = PEERS = (
    "pytorch_pretrained_vit",
    "the same, SDPA and torch.compile",
    "Hugging Face, SDPA",
)


def import_peers() -> Any:
    """Import peers/vit.py. Raises InputError when a package that it needs is not installed."""
    try:
        from experiments.benchmark.peers import vit
    except ImportError as error:
        raise InputError(f"--against torch needs {error.name}; install the test extra") from error
    return vit


def peer_names(config: ViTConfig, *, with_compiled: bool) -> list[str]:
    """Return the names of the peers that implement a model; Hugging Face's takes square images only."""
    is_square = config.image_size[0] == config.image_size[1]
    names = [ORIGINAL, *([COMPILED] if with_compiled else []), *([HUGGING_FACE] if is_square else [])]
    return names


def parse_peers(args: argparse.Namespace, config: ViTConfig) -> list[str]:
    """Return the names of the peers that the flags ask for. Raises InputError when they are not installed."""
    if not args.against:
        return []
    import_peers()
    return peer_names(config, with_compiled=args.torch_compile)


def load_peer(name: str, model: VisionTransformer) -> Any:
    """Build a peer with the model's weights. Raises InputError when a package that it needs is not installed."""
    peers = import_peers()
    if name == HUGGING_FACE:
        peer = peers.HuggingFace(model.config, export(model, layout="hf_vit"))
    else:
        peer = peers.build_original(model.config, export(model, layout="lukemelas"), fused=name == COMPILED)
    return peer.to("cuda") if jax.default_backend() == "gpu" else peer


def build_peer(workload: Workload, name: str, model: VisionTransformer) -> Callable[[], Any]:
    """Build a peer's program: it returns logits [B, C], or takes a training step and returns the loss before it."""
    peers, peer, compiled = import_peers(), load_peer(name, model), name == COMPILED
    if workload.train:
        settings = workload.adamw_settings
        return peers.build_step(peer, workload.images(), workload.labels(), workload.dtype, compiled, **settings)
    return peers.build_forward(peer, workload.images(), workload.dtype, compiled)
