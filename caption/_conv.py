"""Convolution and pooling in forms that XLA's CPU compiler runs fast, equal to torch's.

The plain forms are jax.lax.conv_general_dilated and jax.lax.reduce_window. Remove the two workarounds below when
XLA has a fast float64 convolution and a fast max-pooling gradient for CPUs (no upstream issue filed; measured effects
are in docs/performance.md).

Letters: B batch, h x w feature map, gh x gw output map, kh x kw kernel, C channels, O output channels.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Maps = Float[Array, "b h w c"]
MapsOut = Float[Array, "b gh gw o"]  # after a stride, and with another number of channels


def convolve(x: Maps, kernel: Float[Array, "kh kw c o"], *, stride: int = 1, dilation: int = 1) -> MapsOut:
    """Convolve with an odd kernel, zero-padded so that stride 1 keeps the size.

    1x1 kernels are matrix products. So are float64 kernels, over shifted copies: XLA's float64 convolution is slow on
    a CPU.
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
    shifted = [
        padded[:, i * dilation : i * dilation + h : stride, j * dilation : j * dilation + w : stride]
        for i in range(kh)
        for j in range(kw)
    ]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(kh * kw * c, o)


def max_pool(x: Maps) -> Float[Array, "b gh gw c"]:
    """Max-pool non-negative maps: 3x3 windows, stride 2, padding 1.

    Of equal values the first in row order gets the gradient, as in torch. Written as elementwise maxima: XLA's gradient
    of reduce_window is a scatter, which is slow on a CPU.
    """
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))  # 0 never wins over a non-negative value
    gh, gw = (-(-size // 2) for size in x.shape[1:3])
    rows = _elementwise_max([padded[:, :, i : i + 2 * gw - 1 : 2] for i in range(3)])
    return _elementwise_max([rows[:, i : i + 2 * gh - 1 : 2] for i in range(3)])


def _elementwise_max(parts: Sequence[Maps]) -> Maps:
    """Return the elementwise maximum: the first of equal values, NaN where any part is NaN."""
    return functools.reduce(lambda a, b: jnp.where((b > a) | jnp.isnan(b), b, a), parts)
