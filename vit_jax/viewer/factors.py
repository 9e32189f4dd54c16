"""Large matrices of low rank as quantized factors: attention scores and cosine similarities.

A matrix S = U diag(s) V^T of N x N numbers has rank R, the size of a head. The page needs single rows of it, so it gets
the coordinates A = U diag(s) and B = V diag(s), rounded to multiples of one step, and computes

    S[m, n] = sum_j a[m, j] b[n, j] w[j],   w[j] = step^2 / s[j],   a, b integers.

A rounding error in any coordinate changes the matrix by the same amount, so one step for all of them is the best use of
the bytes: components that hardly matter round to runs of zeros, which compress to nothing. Compared with queries and
keys as 8-bit integers this takes a third to two thirds of the bytes at the same error.

The similarities X X^T of unit vectors X = U diag(s) V^T need only A = U diag(s): S = A A^T.

Letters: H matrices (heads), N rows and columns (tokens), K size of a head, R components.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

LARGEST_CODE = 32_000  # of a coordinate, in steps: it has to fit 16 bits
ROUNDING_STD = 12**-0.5  # standard deviation of the error of rounding to whole steps


class Factors(NamedTuple):
    """The exact factors of H matrices: left @ right^T / scale; `right` is `left` itself for a symmetric matrix.

    left, right: [H, N, R], coordinates in units of the matrix.
    scale:       [H, R], the singular values; ones for a symmetric matrix.
    noise:       [H], the standard deviation of an entry of the matrix per step of rounding.
    """

    left: Float[np.ndarray, "h n r"]
    right: Float[np.ndarray, "h n r"]
    scale: Float[np.ndarray, "h r"]
    noise: Float[np.ndarray, " h"]


class QuantizedFactors(NamedTuple):
    """Whole numbers of steps; see above. left, right: int16 [R, H, N], components first. weights: float32 [H, R]."""

    left: Int[np.ndarray, "r h n"]
    right: Int[np.ndarray, "r h n"]
    weights: Float[np.ndarray, "h r"]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays to store: 8-bit where that is enough, and a symmetric matrix's factor once."""
        arrays = {"left": _narrow(self.left)}
        arrays |= {} if self.right is self.left else {"right": _narrow(self.right)}
        return arrays | {"weights": self.weights}

    def product(self) -> Float[np.ndarray, "h n n"]:
        """Return the matrices, as the page computes them."""
        left = self.left.transpose(1, 2, 0) * self.weights[:, None]
        return left @ self.right.transpose(1, 0, 2).astype(np.float32)


def factor_scores(queries: Float[np.ndarray, "n h k"], keys: Float[np.ndarray, "n h k"]) -> Factors:
    """Return the factors of each head's scores q k^T / sqrt(K), up to a constant in each row.

    The softmax of a row does not depend on that constant; without it the scores are smaller.
    """
    q, k = (part.astype(np.float64).transpose(1, 0, 2) for part in (queries, keys))
    q, k = q * q.shape[-1] ** -0.5, k - k.mean(axis=1, keepdims=True)
    (q_basis, q_rest), (k_basis, k_rest) = np.linalg.qr(q), np.linalg.qr(k)
    u, s, vt = np.linalg.svd(q_rest @ k_rest.transpose(0, 2, 1))
    s = np.maximum(s, np.finfo(np.float32).tiny)
    left, right = (q_basis @ u) * s[:, None], (k_basis @ vt.transpose(0, 2, 1)) * s[:, None]
    # An error in one coordinate of `left` is multiplied by a column of V, whose mean square is 1 / N.
    noise = np.full(len(s), ROUNDING_STD * (2 * s.shape[1] / q.shape[1]) ** 0.5)
    return Factors(left, right, s, noise)


def factor_similarities(tokens: Float[np.ndarray, "n d"]) -> Factors:
    """Return the factors of the cosine similarities of every two tokens, one matrix."""
    exact = tokens.astype(np.float64)
    unit = exact / np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    u, s, _ = np.linalg.svd(unit, full_matrices=False)
    left = (u * s)[None]
    return Factors(left, left, np.ones((1, len(s))), np.full(1, ROUNDING_STD * 2**0.5))


def quantize(factors: Factors, error: float) -> QuantizedFactors:
    """Round factors so that the matrices' entries have errors with this standard deviation, about."""
    largest = np.abs(factors.left).max(axis=(1, 2)), np.abs(factors.right).max(axis=(1, 2))
    step = np.maximum(error / factors.noise, np.maximum(*largest) / LARGEST_CODE)
    left = _round(factors.left, step)
    right = left if factors.right is factors.left else _round(factors.right, step)
    is_used = (left != 0).any(axis=(1, 2)) & (right != 0).any(axis=(1, 2))
    weights = (step[:, None] ** 2 / factors.scale).astype(np.float32)[:, is_used]
    left_used = left[is_used]
    return QuantizedFactors(left_used, left_used if right is left else right[is_used], weights)


def _round(coordinates: Float[np.ndarray, "h n r"], step: Float[np.ndarray, " h"]) -> Int[np.ndarray, "r h n"]:
    return np.round(coordinates / step[:, None, None]).astype(np.int16).transpose(2, 0, 1)


def _narrow(codes: Int[np.ndarray, "r h n"]) -> np.ndarray:
    return codes.astype(np.int8) if np.abs(codes).max(initial=0) < 128 else codes
