"""The confidence interval of a mean average precision, by the bootstrap over images (Efron, 1979)."""

import numpy as np
from jaxtyping import Bool, Float, Int

RESAMPLES = 1000
BLOCK = 1 << 22  # counts in memory at a time


def precision_interval(
    labels: Bool[np.ndarray, "n classes"], logits: Float[np.ndarray, "n classes"], *, seed: int = 0
) -> tuple[float, float] | None:
    """Return the 95 % percentile interval of the mAP over RESAMPLES draws of n images with replacement.

    As in mean_average_precision, a class without images in a draw does not count. None if no image has a label.
    """
    if not labels.any():
        return None
    rng, num_images = np.random.default_rng(seed), len(labels)
    rows = max(1, BLOCK // num_images)
    means = []
    for start in range(0, RESAMPLES, rows):
        draws = rng.integers(0, num_images, (min(rows, RESAMPLES - start), num_images))
        counts = np.stack([np.bincount(draw, minlength=num_images) for draw in draws])
        precisions = resampled_precisions(labels, logits, counts)
        has_label = ~np.isnan(precisions).all(axis=1)
        means.append(np.nanmean(precisions[has_label], axis=1))
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return float(low), float(high)


def resampled_precisions(
    labels: Bool[np.ndarray, "n classes"], logits: Float[np.ndarray, "n classes"], counts: Int[np.ndarray, "draws n"]
) -> Float[np.ndarray, "draws classes"]:
    """Return the average precision of each class in draws that hold image i counts[:, i] times; NaN without images.

    The sum over the distinct scores of precision times the gain in recall, as in scikit-learn.
    """
    result = np.full((len(counts), labels.shape[1]), np.nan)
    for label in range(labels.shape[1]):
        order = np.argsort(-logits[:, label], kind="stable")
        scores, weights = logits[order, label], counts[:, order]
        is_last = np.append(scores[1:] != scores[:-1], True)  # of the images with this score
        correct = np.cumsum(weights * labels[order, label], axis=1)[:, is_last]
        predicted = np.cumsum(weights, axis=1)[:, is_last]
        gains = np.diff(correct, axis=1, prepend=0)
        total = correct[:, -1]
        sums = (gains * correct / np.maximum(predicted, 1)).sum(axis=1)
        result[total > 0, label] = sums[total > 0] / total[total > 0]
    return result
