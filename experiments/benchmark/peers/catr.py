"""CATR (github.com/saahiluppal/catr), the captioner that `caption` replaces, in PyTorch as it is published.

A ResNet-101 without its last stride (He et al. 2015) and DETR's transformer (Carion et al. 2020, pre-norm) over its
features, decoding words. Parameters have the published names, so a released file's "model" loads with strict=True. The
cost is that of the original: frozen batch norms are computed from their statistics on every call, attention weights
are materialized, and `greedy` runs the full model, backbone included, over all 128 positions for every word.

Differences, none of which changes a result or the time: the causal mask is boolean (torch deprecates a float mask
together with a boolean padding mask), captions may be shorter than the position table, and images come with their mask.

Letters: B batch, T text, S image tokens, D width, V vocabulary, h w pixels, gh gw cells of the feature grid. As in the
original, masks are True on padding, and the transformer's tensors have the batch second.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class FrozenBatchNorm2d(nn.Module):
    """Batch norm whose statistics and affine parameters are constants; eps 1e-5."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int):
        super().__init__()
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, x: Float[Tensor, "B C gh gw"]) -> Float[Tensor, "B C gh gw"]:
        """Scale and shift each channel."""
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[None, :, None, None] + shift[None, :, None, None]


class Bottleneck(nn.Module):
    """ResNet's block of three convolutions, with the stride and the dilation at the middle one."""

    def __init__(self, channels_in: int, width: int, stride: int = 1, dilation: int = 1):
        super().__init__()
        out = 4 * width
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = FrozenBatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = FrozenBatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = FrozenBatchNorm2d(out)
        self.downsample = None
        if stride != 1 or channels_in != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels_in, out, 1, stride, bias=False), FrozenBatchNorm2d(out))

    def forward(self, x: Float[Tensor, "B Cin _ _"]) -> Float[Tensor, "B C gh gw"]:
        """Return the input plus the output of the branch."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        return F.relu(self.bn3(self.conv3(x)).add_(shortcut), inplace=True)


class ResNet(nn.Module):
    """A ResNet of bottlenecks whose last stage is dilated instead of strided: a cell for every 16 pixels."""

    def __init__(self, depths: tuple[int, int, int, int], width: int = 64):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = FrozenBatchNorm2d(width)
        self.layer1 = _stage(width, width, depths[0])
        self.layer2 = _stage(4 * width, 2 * width, depths[1], stride=2)
        self.layer3 = _stage(8 * width, 4 * width, depths[2], stride=2)
        self.layer4 = _stage(16 * width, 8 * width, depths[3], dilation=2)
        self.channels = 32 * width
        # The original trains neither of these.
        self.conv1.requires_grad_(False)
        self.layer1.requires_grad_(False)

    def forward(self, images: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B C gh gw"]:
        """The last stage's features."""
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def _stage(channels_in: int, width: int, depth: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """The first block takes the stride, and has dilation 1 even in a dilated stage."""
    rest = (Bottleneck(4 * width, width, dilation=dilation) for _ in range(depth - 1))
    return nn.Sequential(Bottleneck(channels_in, width, stride), *rest)


class Backbone(nn.Module):
    """The ResNet, and the mask at the size of its features."""

    def __init__(self, depths: tuple[int, int, int, int], width: int):
        super().__init__()
        self.body = ResNet(depths, width)

    def forward(
        self, images: Float[Tensor, "B 3 h w"], mask: Bool[Tensor, "B h w"]
    ) -> tuple[Float[Tensor, "B C gh gw"], Bool[Tensor, "B gh gw"]]:
        """Features, and the nearest values of the mask."""
        features = self.body(images)
        return features, F.interpolate(mask[None].float(), size=features.shape[-2:])[0].bool()


def sine_positions(mask: Bool[Tensor, "B gh gw"], width: int) -> Float[Tensor, "B D gh gw"]:
    """Sines and cosines of each cell's place within the valid area, scaled to 2 pi: y first, then x; always float32."""
    n = width // 2
    channel = torch.arange(n, dtype=torch.float32, device=mask.device)
    wavelengths = 10000 ** (2 * (channel // 2) / n)
    halves = []
    for axis in (1, 2):
        place = (~mask).cumsum(axis, dtype=torch.float32)
        last = place[:, -1:, :] if axis == 1 else place[:, :, -1:]
        angles = (place / (last + 1e-6) * (2 * math.pi))[..., None] / wavelengths
        halves.append(torch.stack((angles[..., 0::2].sin(), angles[..., 1::2].cos()), dim=-1).flatten(-2))
    return torch.cat(halves, dim=-1).permute(0, 3, 1, 2)


class EncoderLayer(nn.Module):
    """Pre-norm self-attention over the image; positions are added to queries and keys."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, dropout=dropout)
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "S B D"], mask: Bool[Tensor, "B S"], positions: Float[Tensor, "S B D"]
    ) -> Float[Tensor, "S B D"]:
        """Mix the image's cells."""
        y = self.norm1(x)
        placed = y + positions
        x = x + self.dropout(self.self_attn(placed, placed, y, key_padding_mask=mask)[0])
        y = self.linear2(self.dropout(F.relu(self.linear1(self.norm2(x)))))
        return x + self.dropout(y)


class DecoderLayer(nn.Module):
    """Pre-norm causal self-attention over the words, then cross-attention to the image."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, dropout=dropout)
        self.multihead_attn = nn.MultiheadAttention(width, heads, dropout=dropout)
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "T B D"],
        memory: Float[Tensor, "S B D"],
        causal: Bool[Tensor, "T T"],
        word_mask: Bool[Tensor, "B T"],
        image_mask: Bool[Tensor, "B S"],
        word_positions: Float[Tensor, "T B D"],
        image_positions: Float[Tensor, "S B D"],
    ) -> Float[Tensor, "T B D"]:
        """Mix the words up to each, then look at the image."""
        y = self.norm1(x)
        placed = y + word_positions
        mixed = self.self_attn(placed, placed, y, attn_mask=causal, key_padding_mask=word_mask)[0]
        x = x + self.dropout(mixed)
        queries = self.norm2(x) + word_positions
        seen = self.multihead_attn(queries, memory + image_positions, memory, key_padding_mask=image_mask)[0]
        x = x + self.dropout(seen)
        y = self.linear2(self.dropout(F.relu(self.linear1(self.norm3(x)))))
        return x + self.dropout(y)


class Stack(nn.Module):
    """Layers with a norm after the last."""

    def __init__(self, layers: list[nn.Module], width: int):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "N B D"], *context: Tensor) -> Float[Tensor, "N B D"]:
        """Run the layers, each with the same context."""
        for layer in self.layers:
            x = layer(x, *context)
        return self.norm(x)


class Embeddings(nn.Module):
    """Word plus position, normalised with BERT's eps of 1e-12."""

    def __init__(self, vocabulary: int, positions: int, width: int, dropout: float):
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, width)
        self.position_embeddings = nn.Embedding(positions, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Embed the words."""
        places = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
        return self.dropout(self.LayerNorm(self.word_embeddings(tokens) + self.position_embeddings(places)))


class Transformer(nn.Module):
    """The image encoder and the word decoder."""

    def __init__(
        self, width: int, heads: int, layers: int, hidden: int, vocabulary: int, positions: int, dropout: float
    ):
        super().__init__()
        self.encoder = Stack([EncoderLayer(width, heads, hidden, dropout) for _ in range(layers)], width)
        self.embeddings = Embeddings(vocabulary, positions, width, dropout)
        self.decoder = Stack([DecoderLayer(width, heads, hidden, dropout) for _ in range(layers)], width)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self,
        features: Float[Tensor, "B D gh gw"],
        mask: Bool[Tensor, "B gh gw"],
        positions: Float[Tensor, "B D gh gw"],
        tokens: Int[Tensor, "B T"],
        caption_mask: Bool[Tensor, "B T"],
    ) -> Float[Tensor, "T B D"]:
        """What the decoder makes of every word."""
        batch, length = tokens.shape
        image_positions = positions.flatten(2).permute(2, 0, 1)
        image_mask = mask.flatten(1)
        memory = self.encoder(features.flatten(2).permute(2, 0, 1), image_mask, image_positions)
        words = self.embeddings(tokens).permute(1, 0, 2)
        # The decoder adds the position table again, as its query positions.
        word_positions = self.embeddings.position_embeddings.weight[:length, None].repeat(1, batch, 1)
        causal = torch.ones(length, length, dtype=torch.bool, device=tokens.device).triu(1)
        return self.decoder(words, memory, causal, caption_mask, image_mask, word_positions, image_positions)


class MLP(nn.Module):
    """The head: three linear layers with ReLU between."""

    def __init__(self, width: int, hidden: int, out: int):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, out)])

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T V"]:
        """Logits."""
        first, second, last = self.layers
        return last(F.relu(second(F.relu(first(x)))))


class Caption(nn.Module):
    """CATR; the defaults are the released model's, with random weights."""

    def __init__(
        self,
        *,
        depths: tuple[int, int, int, int] = (3, 4, 23, 3),
        backbone_width: int = 64,
        width: int = 256,
        heads: int = 8,
        layers: int = 6,
        hidden: int = 2048,
        head_hidden: int = 512,
        vocabulary: int = 30522,
        positions: int = 128,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.width, self.positions = width, positions
        # A list of one, for its name: the published one has the parameterless position embedding second.
        self.backbone = nn.ModuleList([Backbone(depths, backbone_width)])
        self.input_proj = nn.Conv2d(32 * backbone_width, width, kernel_size=1)
        self.transformer = Transformer(width, heads, layers, hidden, vocabulary, positions, dropout)
        self.mlp = MLP(width, head_hidden, vocabulary)

    def forward(
        self,
        images: Float[Tensor, "B 3 h w"],
        image_mask: Bool[Tensor, "B h w"],
        tokens: Int[Tensor, "B T"],
        caption_mask: Bool[Tensor, "B T"],
    ) -> Float[Tensor, "B T V"]:
        """Logits of the word after each; images normalised to [-1, 1], masks True on padding."""
        features, mask = self.backbone[0](images, image_mask)
        places = sine_positions(mask, self.width).to(features.dtype)
        words = self.transformer(self.input_proj(features), mask, places, tokens, caption_mask)
        return self.mlp(words.permute(1, 0, 2))


@torch.no_grad()
def greedy(
    model: Caption,
    image: Float[Tensor, "1 3 h w"],
    mask: Bool[Tensor, "1 h w"],
    max_length: int,
    start: int = 101,
    end: int | None = 102,
) -> Int[Tensor, "1 T"]:
    """Decode one image as the original does: the full model over the full template for every word.

    Return as many tokens as the model has positions: `start`, then at most `max_length - 1` words, then zeros. The end
    token stops the loop and is not written, as in the original; `end=None` runs on to `max_length`, to measure.
    """
    if not 1 <= max_length <= model.positions:
        raise ValueError(f"max_length {max_length}: the model has {model.positions} positions")
    model.eval()
    tokens = torch.zeros(1, model.positions, dtype=torch.long, device=image.device)
    caption_mask = torch.ones(1, model.positions, dtype=torch.bool, device=image.device)
    tokens[:, 0] = start
    caption_mask[:, 0] = False
    for i in range(max_length - 1):
        word = model(image, mask, tokens, caption_mask)[:, i].argmax(dim=-1)
        if end is not None and word[0] == end:
            break
        tokens[:, i + 1] = word
        caption_mask[:, i + 1] = False
    return tokens
