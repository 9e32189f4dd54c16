"""ResNet (https://arxiv.org/abs/1512.03385) with frozen batch norm and a dilated last stage, as in CATR. NHWC.

Agrees with torchvision's resnet101(replace_stride_with_dilation=[False, False, True]) with FrozenBatchNorm2d. Differs
on purpose in padded batches: by default everything outside an image's content is zeroed after every norm, so that a
batch gives each image the features it has alone. padding="reference" leaves it, as the original's training does.

Letters: B batch, h x w image or feature map, gh x gw output map, C channels, O output channels.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool

from caption._conv import Maps, MapsOut, convolve, max_pool
from caption.config import ResNetConfig
from vit_jax._xla import materialize

Mask = Bool[Array, "b h w"]
MaskOut = Bool[Array, "b gh gw"]


def zero_padding(x: Maps, mask: Mask | None) -> Maps:
    """Zero x where the mask is False; unchanged without a mask."""
    return x if mask is None else jnp.where(mask[..., None], x, jnp.zeros((), x.dtype))


def downsample_mask(mask: Mask | None, stride: int) -> MaskOut | None:
    """Return the mask after a convolution of this stride: n rows or columns of content become ceil(n / stride)."""
    return None if mask is None else mask[:, ::stride, ::stride]


class FrozenBatchNorm(nnx.Module):
    """(x - mean) / sqrt(var + eps) * scale + bias with four stored vectors [C], which no batch changes."""

    def __init__(self, channels: int, *, eps: float):
        self.scale = nnx.Param(jnp.ones((channels,)))
        self.bias = nnx.Param(jnp.zeros((channels,)))
        self.mean = nnx.Param(jnp.zeros((channels,)))
        self.var = nnx.Param(jnp.ones((channels,)))
        self.eps = eps

    def __call__(self, x: Maps) -> Maps:
        """Normalise x, by one product and one sum per value."""
        scale = self.scale[...] * jax.lax.rsqrt(self.var[...] + self.eps)
        bias = self.bias[...] - self.mean[...] * scale
        return x * scale.reshape(1, 1, 1, -1) + bias.reshape(1, 1, 1, -1)


class ConvNorm(nnx.Module):
    """A convolution without bias, kernel [kh, kw, C, O], and its norm."""

    def __init__(self, c: int, o: int, size: int, *, stride: int = 1, dilation: int = 1, eps: float, rngs: nnx.Rngs):
        init = jax.nn.initializers.he_normal(in_axis=(0, 1, 2), out_axis=3)
        self.kernel = nnx.Param(init(rngs.params(), (size, size, c, o)))
        self.norm = FrozenBatchNorm(o, eps=eps)
        self.stride = stride
        self.dilation = dilation

    def __call__(self, x: Maps, mask: MaskOut | None) -> MapsOut:
        """Convolve and normalise; 0 where the mask (at the output's size) is False."""
        convolved = convolve(x, self.kernel[...], stride=self.stride, dilation=self.dilation)
        return zero_padding(self.norm(convolved), mask)


class Bottleneck(nnx.Module):
    """1x1, 3x3 and 1x1 convolutions with a shortcut; stride and dilation at the 3x3 one (torchvision's form)."""

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

    def __call__(self, x: Maps, mask: Mask | None, *, workarounds: bool = True) -> tuple[MapsOut, MaskOut | None]:
        """Return the block's output and the mask at its size."""
        mask_out = downsample_mask(mask, self.stride)
        branch = jax.nn.relu(self.conv1(x, mask))
        branch = self.conv3(jax.nn.relu(self.conv2(branch, mask_out)), mask_out)
        residual = self.shortcut(x, mask_out) if self.has_shortcut else x
        return materialize(jax.nn.relu(branch + residual), workarounds), mask_out


class ResNet(nnx.Module):
    """A ResNet without its head: images to the last stage's feature map."""

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
                    dilation *= 2  # in place of the stride, from the second block on, as in torchvision
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)

    def __call__(self, images: Maps, mask: Mask | None, *, workarounds: bool = True) -> tuple[MapsOut, MaskOut | None]:
        """Return the last stage's maps [B, gh, gw, C], 0 outside the content, and the mask at their size.

        gh is h / 16, rounded up, for four stages of which the last is dilated. Without a mask everything is content,
        and the returned mask is None.
        """
        x = zero_padding(images, mask)
        mask = downsample_mask(mask, 2)
        x = max_pool(jax.nn.relu(self.stem(x, mask)))
        mask = downsample_mask(mask, 2)
        x = zero_padding(x, mask)
        for stage in self.stages:
            for block in stage:
                x, mask = block(x, mask, workarounds=workarounds)
        return x, mask
