"""torchvision's ViT: parity with a torch model of its structure and names, written here, and the way back."""

import pytest

import tests.reference as reference
from tests.optional import torch
from tests.weights_convert.originals import check_arrays, check_parity, randomize, record_attention, run_original
from vit_jax import InputError
from weights_convert import convert, export

pytestmark = pytest.mark.parity

nn = torch.nn
WIDTH, HEADS, PATCH, SIDE = 48, 3, 8, 4


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH, eps=1e-6), nn.LayerNorm(WIDTH, eps=1e-6)
        self.self_attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 80), nn.GELU(), nn.Dropout(), nn.Linear(80, WIDTH), nn.Dropout())

    def forward(self, x):
        y = self.ln_1(x)
        x = x + self.self_attention(y, y, y)[0]
        return x + self.mlp(self.ln_2(x))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.zeros(1, SIDE * SIDE + 1, WIDTH))
        self.layers = nn.Sequential()
        for i in range(2):
            self.layers.add_module(f"encoder_layer_{i}", Layer())
        self.ln = nn.LayerNorm(WIDTH, eps=1e-6)

    def forward(self, x):
        return self.ln(self.layers(x + self.pos_embedding))


class VisionTransformer(nn.Module):
    def __init__(self, representation):
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.conv_proj = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.encoder = Encoder()
        self.heads = nn.Sequential()
        if representation:
            self.heads.add_module("pre_logits", nn.Linear(WIDTH, 40))
            self.heads.add_module("act", nn.Tanh())
        self.heads.add_module("head", nn.Linear(40 if representation else WIDTH, 7))

    def forward(self, x):
        patches = self.conv_proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), patches], 1)
        return self.heads(self.encoder(x)[:, 0])


@pytest.mark.parametrize("representation", [False, True])
def test_parity_and_the_way_back(representation, x64):
    original = randomize(VisionTransformer(representation))
    attention = record_attention(original)
    arrays = reference.state_arrays(original)
    images = reference.images(3, 2, 32, 32)
    model = convert(arrays, num_heads=HEADS)
    check_parity(model, images, run_original(original, images), attention)
    check_arrays(export(model, layout="torchvision"), arrays)


def test_the_mlp_names_of_old_versions_are_read(x64):
    arrays = reference.state_arrays(randomize(VisionTransformer(False)))
    renamed = {"mlp.0": "mlp.linear_1", "mlp.3": "mlp.linear_2"}
    old = {
        next((name.replace(new, old) for new, old in renamed.items() if new in name), name): array
        for name, array in arrays.items()
    }
    assert old.keys() != arrays.keys()
    check_arrays(export(convert(old, num_heads=HEADS), layout="torchvision"), arrays)


def test_a_rectangular_grid_is_not_assumed_to_be_square(x64):
    arrays = reference.state_arrays(randomize(VisionTransformer(False)))
    assert convert(arrays, num_heads=HEADS).config.image_size == (32, 32)
    assert convert(arrays, num_heads=HEADS, image_size=(16, 64)).config.grid == (2, 8)
    arrays["encoder.pos_embedding"] = arrays["encoder.pos_embedding"][:, :9]
    with pytest.raises(InputError, match="8 positions are no square grid; give the image size"):
        convert(arrays, num_heads=HEADS)
