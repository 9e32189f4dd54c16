"""The PyTorch vision transformers that ours is measured beside, with the same weights: for the benchmark alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_pretrained_vit
import torch
import transformers

from vit_jax import ViTConfig


class FusedAttention(torch.nn.Module):
    """pytorch_pretrained_vit's attention by torch's scaled_dot_product_attention, keeping no weights to look at."""

    def __init__(self, written_out: Any):
        super().__init__()
        self.proj_q, self.proj_k, self.proj_v = written_out.proj_q, written_out.proj_k, written_out.proj_v
        self.heads = written_out.n_heads

    def forward(self, x: torch.Tensor, mask: None) -> torch.Tensor:
        """Tokens [B, N, D] to the heads' answers side by side."""
        parts = self.proj_q(x), self.proj_k(x), self.proj_v(x)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def original(config: ViTConfig, arrays: dict[str, np.ndarray], *, fused: bool = False) -> torch.nn.Module:
    """pytorch_pretrained_vit's model, holding arrays in its own names; images [B, 3, h, w] to logits [B, C]."""
    sizes = dict(
        patches=config.patch_size,
        dim=config.width,
        ff_dim=config.mlp_dim,
        num_heads=config.num_heads,
        num_layers=config.depth,
        representation_size=None,
        classifier="token",
        attention_dropout_rate=0.0,
        dropout_rate=0.0,
    )
    known = pytorch_pretrained_vit.model.PRETRAINED_MODELS  # 0.0.7 builds named models only
    known["measured"] = dict(config=sizes, num_classes=config.num_classes, image_size=config.image_size)
    made = pytorch_pretrained_vit.ViT("measured", in_channels=config.in_channels)
    del known["measured"]
    made.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
    if fused:
        for block in made.transformer.blocks:
            block.attn = FusedAttention(block.attn)
    return made


class HuggingFace(torch.nn.Module):
    """transformers' ViTForImageClassification with torch's scaled_dot_product_attention, answering logits alone."""

    def __init__(self, config: ViTConfig, arrays: dict[str, np.ndarray]):
        super().__init__()
        sizes: dict[str, Any] = dict(
            hidden_size=config.width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.num_heads,
            intermediate_size=config.mlp_dim,
            image_size=config.image_size[0],
            patch_size=config.patch_size[0],
            hidden_act="gelu",
            layer_norm_eps=config.norm_eps,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            num_labels=config.num_classes,
        )
        settings = transformers.ViTConfig(**sizes)
        state = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
        options: dict[str, Any] = dict(config=settings, state_dict=state, output_loading_info=True)
        transformers.utils.logging.set_verbosity_error()
        kind: Any = transformers.ViTForImageClassification
        self.model, told = kind.from_pretrained(None, dtype=torch.float32, attn_implementation="sdpa", **options)
        assert not told["missing_keys"], told
        assert not told["mismatched_keys"], told

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B, 3, h, w] to logits [B, C]."""
        return self.model(images).logits


def inference(model: torch.nn.Module, images: np.ndarray, dtype: str, compiled: bool) -> Callable[[], np.ndarray]:
    """Logits [B, C] of images [B, h, w, 3], weights and images in `dtype`."""
    device = next(model.parameters()).device
    number = getattr(torch, dtype)
    given = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(device, number)
    called: Any = model.eval().to(number)
    if compiled:
        called = torch.compile(called)

    def run() -> np.ndarray:
        with torch.inference_mode():
            return called(given).float().cpu().numpy()  # to the host: on a GPU that is when it is done

    return run


def training(
    model: torch.nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    dtype: str,
    compiled: bool,
    *,
    learning_rate: float,
    weight_decay: float,
) -> Callable[[], float]:
    """One step of AdamW after another on the same batch, by autocast unless in float32; the loss before each."""
    device = next(model.parameters()).device
    given = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(device)
    wanted = torch.from_numpy(labels).long().to(device)
    model = model.train()
    called: Any = torch.compile(model) if compiled else model
    rule = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)

    def run() -> float:
        rule.zero_grad()
        with torch.autocast(device.type, getattr(torch, dtype), enabled=dtype != "float32"):
            logits = called(given)
        loss = torch.nn.functional.cross_entropy(logits.float(), wanted)
        loss.backward()
        rule.step()
        return loss.item()

    return run
