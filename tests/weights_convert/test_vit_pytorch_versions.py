"""vit-pytorch of every version: parity with torch models of their structure and names, written here, and the way back."""

import re
from dataclasses import replace

import numpy as np
import pytest

import tests.reference as reference
from tests.optional import torch
from tests.weights_convert.originals import check_arrays, check_parity, randomize, run_original
from vit_jax import InputError
from weights_convert import convert, export
from weights_convert.layouts import LAYOUTS, explain_unsupported
from weights_convert.layouts.simple_vit import sincos_table

pytestmark = pytest.mark.parity

nn = torch.nn
WIDTH, PATCH, SIDE, CLASSES = 32, 4, 4, 7


class Attention(nn.Module):
    """norm: whether its norm is inside, as from 1.4. bias: SimpleViT's output projection has none."""

    def __init__(self, heads, head_width, *, norm=True, bias=True):
        super().__init__()
        inner = heads * head_width
        self.heads, self.scale = heads, head_width**-0.5
        self.norm = nn.LayerNorm(WIDTH) if norm else nn.Identity()
        self.to_qkv = nn.Linear(WIDTH, 3 * inner, bias=False)
        out = nn.Linear(inner, WIDTH, bias=bias)
        omitted = heads == 1 and head_width == WIDTH
        self.to_out = nn.Identity() if omitted else nn.Sequential(out, nn.Dropout()) if bias else out

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = (
            part.reshape(b, n, self.heads, -1).transpose(1, 2) for part in self.to_qkv(self.norm(x)).chunk(3, -1)
        )
        self.weights = (q @ k.transpose(-1, -2) * self.scale).softmax(-1)
        return self.to_out((self.weights @ v).transpose(1, 2).reshape(b, n, -1))


class FeedForward(nn.Module):
    def __init__(self, *, norm=True, dropout=True):
        super().__init__()
        layers = [nn.Linear(WIDTH, 48), nn.GELU(), *([nn.Dropout()] if dropout else []), nn.Linear(48, WIDTH)]
        self.net = nn.Sequential(*([nn.LayerNorm(WIDTH)] if norm else []), *layers)

    def forward(self, x):
        return self.net(x)


class PreNorm(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.norm, self.fn = nn.LayerNorm(WIDTH), fn

    def forward(self, x):
        return self.fn(self.norm(x))


class Residual(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, x):
        return self.fn(x) + x


class Transformer(nn.Module):
    def __init__(self, version, layers):
        super().__init__()
        wrappers = {"0.7.1": lambda fn: Residual(PreNorm(fn)), "0.10.1": PreNorm, "1.0": PreNorm}
        wrap = wrappers.get(version, lambda fn: fn)
        self.layers = nn.ModuleList([nn.ModuleList([wrap(attention), wrap(mlp)]) for attention, mlp in layers])
        self.norm = nn.LayerNorm(WIDTH) if version == "1.4" else nn.Identity()
        self.adds = version == "0.7.1"

    def forward(self, x):
        for attention, mlp in self.layers:
            x = attention(x) if self.adds else attention(x) + x
            x = mlp(x) if self.adds else mlp(x) + x
        return self.norm(x)


class Patches(nn.Module):
    """einops' Rearrange("b c (h p1) (w p2) -> b (h w) (p1 p2 c)")."""

    def forward(self, x):
        b, c, h, w = x.shape
        x = x.reshape(b, c, h // PATCH, PATCH, w // PATCH, PATCH).permute(0, 2, 4, 3, 5, 1)
        return x.reshape(b, h // PATCH * (w // PATCH), -1)


def patch_embedding(version, channels):
    pixels, has_norms = channels * PATCH * PATCH, version in ("1.0", "1.4")
    return nn.Sequential(
        Patches(),
        *([nn.LayerNorm(pixels)] if has_norms else []),
        nn.Linear(pixels, WIDTH),
        *([nn.LayerNorm(WIDTH)] if has_norms else []),
    )


def head(version):
    linear = nn.Linear(WIDTH, CLASSES)
    return linear if version == "1.4" else nn.Sequential(nn.LayerNorm(WIDTH), linear)


class ViT(nn.Module):
    def __init__(self, version, *, channels=3, heads=2, head_width=64, pool="cls"):
        super().__init__()
        inside = version == "1.4"
        self.to_patch_embedding = patch_embedding(version, channels)
        self.pos_embedding = nn.Parameter(torch.randn(1, SIDE * SIDE + 1, WIDTH))
        self.cls_token = nn.Parameter(torch.randn(1, 1, WIDTH))
        layers = [(Attention(heads, head_width, norm=inside), FeedForward(norm=inside)) for _ in range(2)]
        self.transformer, self.mlp_head, self.pool = Transformer(version, layers), head(version), pool

    def forward(self, x):
        x = self.to_patch_embedding(x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embedding
        x = self.transformer(x)
        return self.mlp_head(x.mean(1) if self.pool == "mean" else x[:, 0])


class SimpleViT(nn.Module):
    def __init__(self, version):
        super().__init__()
        self.to_patch_embedding = patch_embedding(version, 3)
        layers = [(Attention(2, 64, bias=False), FeedForward(dropout=False)) for _ in range(2)]
        self.transformer = Transformer("1.4" if version == "1.4" else "simple", layers)
        self.linear_head = head(version)

    def forward(self, x):
        x = self.to_patch_embedding(x) + torch.from_numpy(sincos_table((SIDE, SIDE), WIDTH))
        return self.linear_head(self.transformer(x).mean(1))


def attention_of(model):
    return [module.weights.detach().numpy() for module in model.modules() if isinstance(module, Attention)]


def random_images(channels=3):
    return np.random.RandomState(3).uniform(-1, 1, (2, SIDE * PATCH, SIDE * PATCH, channels))


VIT_CASES = {
    "before 0.10.1": ("0.7.1", {}),
    "before patch norms": ("0.10.1", {}),
    "before 1.4": ("1.0", {}),
    "from 1.4": ("1.4", {}),
    "one head without projection": ("0.10.1", dict(heads=1, head_width=WIDTH)),
    "one head without projection, from 1.4": ("1.4", dict(heads=1, head_width=WIDTH)),
    "grey": ("1.4", dict(channels=1)),
    "grey, before patch norms": ("0.10.1", dict(channels=1)),
}


@pytest.mark.parametrize("case", VIT_CASES)
def test_vit(case, x64):
    version, options = VIT_CASES[case]
    original = randomize(ViT(version, **options))
    arrays = reference.state_arrays(original)
    model = convert(arrays)
    channels = options.get("channels", 3)
    assert (model.config.in_channels, model.config.patch_size) == (channels, (PATCH, PATCH))
    assert model.config.num_heads == options.get("heads", 2)
    images = random_images(channels)
    check_parity(model, images, run_original(original, images), attention_of(original))
    check_arrays(export(model, layout="vit_pytorch"), newest_form(version, arrays))


@pytest.mark.parametrize("version", ["0.10.1", "1.4"])
def test_mean_pooling_is_over_all_tokens(version, x64):
    """Before 2025-11 such a model had [class] too, so that its arrays do not show the pooling."""
    original = randomize(ViT(version, pool="mean"))
    base = LAYOUTS["vit_pytorch"]
    layout = replace(
        base,
        infer_architecture=lambda *args, **hints: base.infer_architecture(*args, **hints) | {"pooling": "mean"},
    )
    images = random_images()
    model = convert(reference.state_arrays(original), layout=layout)
    check_parity(model, images, run_original(original, images), attention_of(original))


def newest_form(version, arrays):
    """Return arrays as the newest version with their architecture stores them."""
    if version == "0.7.1":  # one wrapper more than later versions
        return {re.sub(r"\.fn\.(norm|fn)\.", r".\1.", name): array for name, array in arrays.items()}
    if version == "1.4":  # tokens and positions with a leading axis
        return arrays | {name: arrays[name][0] for name in ("cls_token", "pos_embedding")}
    return arrays


@pytest.mark.parametrize("version", ["0.35", "1.0", "1.4"])
def test_simple_vit(version, x64):
    original = randomize(SimpleViT(version))
    arrays = reference.state_arrays(original)
    model = convert(arrays, image_size=SIDE * PATCH)
    assert model.config.num_heads == 2
    images = random_images()
    check_parity(model, images, run_original(original, images), attention_of(original))
    check_arrays(export(model, layout="simple_vit"), arrays)


def infer(shapes, **changes):
    shapes = {name: tuple(shape) for name, shape in (shapes | changes).items()}
    return LAYOUTS["vit_pytorch"].infer_architecture(shapes, None)


def test_what_arrays_do_not_show():
    """The number of heads where the width could be either library default; the pooling; the channels of a patch."""
    layout, arrays = LAYOUTS["vit_pytorch"], reference.state_arrays(ViT("0.10.1"))
    shapes = {layout.rename_key(name): array.shape for name, array in arrays.items()}
    qkv = "transformer.layers.0.0.to_qkv.weight"
    assert infer(shapes)["num_heads"] == 2
    assert "num_heads" not in infer(shapes, **{qkv: (3 * WIDTH, WIDTH)})  # heads of width 64 or of any other
    assert "num_heads" not in infer(shapes, **{qkv: (3 * 96, WIDTH)})  # no heads of width 64
    assert set(layout.assumes) == {"pooling", "in_channels"}
    assert infer(shapes)["pooling"] == "cls"
    six = {"to_patch_embedding.1.weight": (WIDTH, 6 * PATCH * PATCH)}
    with pytest.raises(InputError, match=r"patches of 96 values are not squares .* \(--in-channels\)"):
        infer(shapes, **six)
    fields = layout.infer_architecture(shapes | six, None, in_channels=6)
    assert (fields["in_channels"], fields["patch_size"]) == (6, (PATCH, PATCH))
    fields = layout.infer_architecture(shapes | six, (SIDE * PATCH, SIDE * PATCH))
    assert (fields["in_channels"], fields["patch_size"]) == (6, (PATCH, PATCH))


def test_the_first_versions_scale_attention_otherwise():
    names = ["pos_embedding", "patch_to_embedding.weight", "transformer.layers.0.0.fn.fn.to_qkv.weight"]
    assert "before 0.7.1" in explain_unsupported(names)
