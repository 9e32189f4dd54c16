"""Training files with timm's names: I-JEPA's encoder, DINO's and DINOv2's teachers, an empty head."""

import numpy as np
import pytest

import tests.reference as reference
from tests.create import create
from tests.optional import torch
from tests.weights_convert.originals import check_arrays, check_parity, randomize, run_original
from vit_jax import VisionTransformer, ViTConfig
from weights_convert import convert, export
from weights_convert.layouts import LAYOUTS

nn = torch.nn
WIDTH, HEADS, PATCH = 48, 3, 8
TINY = dict(image_size=(32, 32), patch_size=(PATCH, PATCH), width=WIDTH, depth=2, num_heads=HEADS, mlp_dim=64)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        self.weights = (q @ k.transpose(-1, -2) * (WIDTH // HEADS) ** -0.5).softmax(-1)
        return self.proj((self.weights @ v).transpose(1, 2).reshape(b, n, WIDTH))


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(WIDTH, 64), nn.Linear(64, WIDTH)

    def forward(self, x):
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6), nn.LayerNorm(WIDTH, eps=1e-6)
        self.attn, self.mlp = Attention(), Mlp()

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Conv2d(3, WIDTH, PATCH, PATCH)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class Encoder(nn.Module):
    """I-JEPA's encoder: no [class]; positions are stored sines and cosines; pooled by the mean of the patches."""

    def __init__(self):
        super().__init__()
        self.patch_embed, self.blocks = PatchEmbed(), nn.ModuleList([Block(), Block()])
        self.pos_embed = nn.Parameter(torch.zeros(1, 16, WIDTH))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)

    def forward(self, x):
        x = self.patch_embed(x) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x).mean(1)


@pytest.mark.parity
def test_ijepas_encoder(x64):
    original = randomize(Encoder())
    images = reference.images(3, 2, 32, 32)
    arrays = reference.state_arrays(original)
    model = convert(arrays, num_heads=HEADS)
    features = run_original(original, images)
    check_parity(model, images, features, [block.attn.weights.detach().numpy() for block in original.blocks])
    check_arrays(export(model, layout="timm"), arrays)


def timm_arrays(**options):
    model = create(VisionTransformer, ViTConfig(**TINY, **options))
    return export(model, layout="timm" if "layer_scale" not in options else "dinov2")


def test_dinos_projection_head_is_not_used():
    backbone = timm_arrays(num_classes=0)
    names = ("mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.4.weight", "last_layer.weight_g", "last_layer.weight_v")
    projection = {f"head.{name}": np.ones((8, 8), np.float32) for name in names}
    model = convert(backbone | projection, num_heads=HEADS)
    assert model.config.num_classes == 0
    check_arrays(export(model, layout="timm"), backbone)


def test_dinov2s_training_files_group_blocks_and_hold_heads():
    backbone = timm_arrays(num_classes=0, layer_scale=True)
    mask_token = {"mask_token": np.zeros((1, WIDTH), np.float32)}
    grouped = {name.replace("blocks.", "blocks.0.").replace("0.1.", "1.1."): array for name, array in backbone.items()}
    heads = {f"{head}.mlp.0.weight": np.ones((8, 8), np.float32) for head in ("dino_head", "ibot_head")}
    model = convert(grouped | heads | mask_token, layout="dinov2", num_heads=HEADS)
    check_arrays(export(model, layout="dinov2"), backbone)


def test_an_empty_head_is_no_head():
    shapes = {name: array.shape for name, array in timm_arrays(num_classes=0).items()}
    fields = LAYOUTS["timm"].infer_architecture(shapes | {"head.weight": (0, WIDTH), "head.bias": (0,)}, None)
    assert fields["num_classes"] == 0
    assert ViTConfig(**fields, num_heads=HEADS) == ViTConfig(
        **LAYOUTS["timm"].infer_architecture(shapes, None), num_heads=HEADS
    )
