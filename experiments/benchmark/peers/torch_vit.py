"""The PyTorch vision transformers that ours is compared with, with the same weights; used by the benchmark only."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytorch_pretrained_vit  # noqa: F401  import_family reports it if it is missing
import torch
import transformers

from experiments.benchmark.peer_programs import COMPILED, HUGGING_FACE
from experiments.benchmark.workload import Workload
from vit_jax import VisionTransformer, ViTConfig
from weights_convert import export
from weights_convert.originals import build_pytorch_pretrained_vit, build_transformers_config


class FusedAttention(torch.nn.Module):
    """pytorch_pretrained_vit's attention by torch's scaled_dot_product_attention, which returns no weights."""

    def __init__(self, attention: Any):
        super().__init__()
        self.proj_q, self.proj_k, self.proj_v = attention.proj_q, attention.proj_k, attention.proj_v
        self.heads = attention.n_heads

    def forward(self, x: torch.Tensor, mask: None) -> torch.Tensor:
        """Map tokens [B, N, D] to the concatenated outputs of the heads."""
        parts = self.proj_q(x), self.proj_k(x), self.proj_v(x)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def build_original(config: ViTConfig, arrays: dict[str, np.ndarray], *, fused: bool = False) -> torch.nn.Module:
    """Build pytorch_pretrained_vit's model from arrays in its own names: images [B, 3, h, w] to logits [B, C]."""
    original = build_pytorch_pretrained_vit(config)
    original.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
    if fused:
        for block in original.transformer.blocks:
            block.attn = FusedAttention(block.attn)
    return original


class HuggingFace(torch.nn.Module):
    """transformers' ViT or DINOv3 with torch's scaled_dot_product_attention; it returns logits or pooled features."""

    def __init__(self, config: ViTConfig, arrays: dict[str, np.ndarray], layout: str):
        super().__init__()
        name, settings = build_transformers_config(transformers, layout, config)
        state = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
        options: dict[str, Any] = dict(config=settings, state_dict=state, output_loading_info=True)
        transformers.utils.logging.set_verbosity_error()
        kind: Any = getattr(transformers, name)
        self.model, report = kind.from_pretrained(None, dtype=torch.float32, attn_implementation="sdpa", **options)
        assert not {key for key in report["missing_keys"] if "mask_token" not in key}, report
        assert not report["mismatched_keys"], report

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images [B, 3, h, w] to logits [B, C], or without classes to features [B, D]."""
        output = self.model(images)
        return output.logits if hasattr(output, "logits") else output.pooler_output


def build_forward(model: torch.nn.Module, images: np.ndarray, dtype: str, compiled: bool) -> Callable[[], np.ndarray]:
    """Build a program that returns logits [B, C] of images [B, h, w, 3], with weights and images in `dtype`."""
    device = next(model.parameters()).device
    torch_dtype = getattr(torch, dtype)
    inputs = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(device, torch_dtype)
    function: Any = model.eval().to(torch_dtype)
    if compiled:
        function = torch.compile(function)

    def forward() -> np.ndarray:
        with torch.inference_mode():
            return function(inputs).float().cpu().numpy()  # copying to the host waits for the GPU

    return forward


def build_step(
    model: torch.nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    dtype: str,
    compiled: bool,
    *,
    learning_rate: float,
    weight_decay: float,
) -> Callable[[], float]:
    """Build a program that takes an AdamW step on the batch and returns the loss before it; autocast unless float32."""
    device = next(model.parameters()).device
    inputs = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(device)
    targets = torch.from_numpy(labels).long().to(device)
    model = model.train()
    function: Any = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)

    def take_step() -> float:
        optimizer.zero_grad()
        with torch.autocast(device.type, getattr(torch, dtype), enabled=dtype != "float32"):
            logits = function(inputs)
        loss = torch.nn.functional.cross_entropy(logits.float(), targets)
        loss.backward()
        optimizer.step()
        return loss.item()

    return take_step


def describe() -> str:
    """Return the version and the settings."""
    return f"torch {torch.__version__}, {torch.get_num_threads()} threads, transformers {transformers.__version__}"


def load_peer(name: str, model: VisionTransformer) -> torch.nn.Module:
    """Build a peer with the model's weights, on the GPU if jax has one."""
    if name == HUGGING_FACE:
        layout = "hf_vit" if model.config.rotary is None else "hf_dinov3"
        peer: torch.nn.Module = HuggingFace(model.config, export(model, layout=layout), layout)
    else:
        peer = build_original(model.config, export(model, layout="lukemelas"), fused=name == COMPILED)
    return peer.to("cuda") if jax.default_backend() == "gpu" else peer


def build(workload: Workload, name: str, model: VisionTransformer) -> Callable[[], Any]:
    """Build a peer's program; see peer_programs.build_peer."""
    peer, compiled = load_peer(name, model), name == COMPILED
    if workload.train:
        settings = workload.adamw_settings
        return build_step(peer, workload.images(), workload.labels(), workload.dtype, compiled, **settings)
    return build_forward(peer, workload.images(), workload.dtype, compiled)
