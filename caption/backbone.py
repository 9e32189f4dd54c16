"""ResNet with frozen batch norm and a dilated last stage, as DETR and CATR use it. NHWC.

Agrees with torchvision's resnet101(replace_stride_with_dilation=[False, False, True]) with FrozenBatchNorm2d. Differs
knowingly in padded batches, by default: what lies outside an image's content is zeroed after every norm, so that each
image is answered as it is alone, at its own size (padding="reference" leaves it, as the original's training does).

Letters: B batch, h x w image or feature map, gh x gw the one that comes out, C channels, O channels out.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from caption.config import ResNetConfig
from vit_jax._xla import materialize

Maps = Float[Array, "b h w c"]
Mask = Bool[Array, "b h w"]
# The same after a stride, and with another count of channels.
MapsOut = Float[Array, "b gh gw o"]
MaskOut = Bool[Array, "b gh gw"]


def zero_padding(x: Maps, mask: Mask | None) -> Maps:
    """x with 0 where the mask is False; unchanged without a mask."""
    return x if mask is None else jnp.where(mask[..., None], x, jnp.zeros((), x.dtype))


def downsample_mask(mask: Mask | None, stride: int) -> MaskOut | None:
    """The mask after a convolution of this stride: a content of n rows or columns becomes one of ceil(n / stride)."""
    return None if mask is None else mask[:, ::stride, ::stride]


def convolve(x: Maps, kernel: Float[Array, "kh kw c o"], *, stride: int = 1, dilation: int = 1) -> MapsOut:
    """A convolution of an odd kernel, padded by zeros so that a stride of 1 keeps the size.

    XLA has no fast float64 convolution on a CPU, so there it is a matrix product over gathered neighbours.
    """
    kh, kw, c, o = kernel.shape
    if (kh, kw) == (1, 1):
        return x[:, ::stride, ::stride] @ kernel.reshape(c, o)
    top, left = dilation * (kh // 2), dilation * (kw // 2)
    if x.dtype != jnp.float64:
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            ((top, top), (left, left)),
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    h, w = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (top, top), (left, left), (0, 0)))
    neighbours = [
        padded[:, i * dilation : i * dilation + h : stride, j * dilation : j * dilation + w : stride]
        for i in range(kh)
        for j in range(kw)
    ]
    return jnp.concatenate(neighbours, axis=-1) @ kernel.reshape(kh * kw * c, o)


def max_pool(x: Maps) -> Float[Array, "b gh gw c"]:
    """The largest of 3x3, stride 2, padded. What comes in is not negative, so that 0 outside counts as nothing.

    Of equals the first in row order gets the gradient, as in torch. In place of jax's own window, whose gradient XLA
    scatters, which is slow on a CPU.
    """
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    gh, gw = (-(-size // 2) for size in x.shape[1:3])
    rows = _elementwise_max([padded[:, :, i : i + 2 * gw - 1 : 2] for i in range(3)])
    return _elementwise_max([rows[:, i : i + 2 * gh - 1 : 2] for i in range(3)])


def _elementwise_max(parts: Sequence[Maps]) -> Maps:
    """The largest, place by place; of equals the first, and NaN where any of them is."""
    return functools.reduce(lambda a, b: jnp.where((b > a) | jnp.isnan(b), b, a), parts)


class FrozenBatchNorm(nnx.Module):
    """(x - mean) / sqrt(var + eps) * scale + bias, with four stored vectors [C]: no batch changes them."""

    def __init__(self, channels: int, *, eps: float):
        self.scale = nnx.Param(jnp.ones((channels,)))
        self.bias = nnx.Param(jnp.zeros((channels,)))
        self.mean = nnx.Param(jnp.zeros((channels,)))
        self.var = nnx.Param(jnp.ones((channels,)))
        self.eps = eps

    def __call__(self, x: Maps) -> Maps:
        """x, normalised: one product and one sum for each value."""
        scale = self.scale[...] * jax.lax.rsqrt(self.var[...] + self.eps)
        bias = self.bias[...] - self.mean[...] * scale
        return x * scale.reshape(1, 1, 1, -1) + bias.reshape(1, 1, 1, -1)


class ConvNorm(nnx.Module):
    """A convolution without bias [kh, kw, C, O], and its norm."""

    def __init__(self, c: int, o: int, size: int, *, stride: int = 1, dilation: int = 1, eps: float, rngs: nnx.Rngs):
        init = jax.nn.initializers.he_normal(in_axis=(0, 1, 2), out_axis=3)
        self.kernel = nnx.Param(init(rngs.params(), (size, size, c, o)))
        self.norm = FrozenBatchNorm(o, eps=eps)
        self.stride = stride
        self.dilation = dilation

    def __call__(self, x: Maps, mask: MaskOut | None) -> MapsOut:
        """The normalised convolution, 0 where the mask (of what comes out) is False."""
        return zero_padding(self.norm(convolve(x, self.kernel[...], stride=self.stride, dilation=self.dilation)), mask)


class Bottleneck(nnx.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; stride and dilation at the 3x3 one (torchvision's)."""

    def __init__(
        self, c: int, width: int, o: int, *, stride: int, dilation: int, shortcut: bool, eps: float, rngs: nnx.Rngs
    ):
        self.conv1 = ConvNorm(c, width, 1, eps=eps, rngs=rngs)
        self.conv2 = ConvNorm(width, width, 3, stride=stride, dilation=dilation, eps=eps, rngs=rngs)
        self.conv3 = ConvNorm(width, o, 1, eps=eps, rngs=rngs)
        if shortcut:
            self.shortcut = ConvNorm(c, o, 1, stride=stride, eps=eps, rngs=rngs)
        self.has_shortcut = shortcut
        self.stride = stride

    def __call__(self, x: Maps, mask: Mask | None) -> tuple[MapsOut, MaskOut | None]:
        """What the block answers, and the mask at its size."""
        after = downsample_mask(mask, self.stride)
        made = jax.nn.relu(self.conv1(x, mask))
        made = self.conv3(jax.nn.relu(self.conv2(made, after)), after)
        return materialize(jax.nn.relu(made + (self.shortcut(x, after) if self.has_shortcut else x))), after


class ResNet(nnx.Module):
    """Images to the last stage's feature map; parameters only."""

    def __init__(self, config: ResNetConfig, *, rngs: nnx.Rngs):
        eps = config.norm_eps
        self.stem = ConvNorm(config.in_channels, config.stem_width, 7, stride=2, eps=eps, rngs=rngs)
        stages, channels, dilation = [], config.stem_width, 1
        for index, depth in enumerate(config.stage_depths):
            width, stride = config.stage_widths[index], config.stage_strides[index]
            out = width * config.expansion
            blocks = []
            for block in range(depth):
                first = block == 0
                blocks.append(
                    Bottleneck(
                        channels,
                        width,
                        out,
                        stride=stride if first else 1,
                        dilation=dilation,
                        shortcut=first and (stride > 1 or channels != out),
                        eps=eps,
                        rngs=rngs,
                    )
                )
                channels = out
                if first and index > 0 and stride == 1:
                    dilation *= 2  # from the second block on, as torchvision does in place of the stride
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)

    def __call__(self, images: Maps, mask: Mask | None) -> tuple[MapsOut, MaskOut | None]:
        """Feature maps [B, h / 16, w / 16, C] (rounded upward), 0 outside the content, and the mask at their size.

        Without a mask all counts as content, and none comes back.
        """
        x = zero_padding(images, mask)
        mask = downsample_mask(mask, 2)
        x = max_pool(jax.nn.relu(self.stem(x, mask)))
        mask = downsample_mask(mask, 2)
        x = zero_padding(x, mask)
        for stage in self.stages:
            for block in stage:
                x, mask = block(x, mask)
        return x, mask
