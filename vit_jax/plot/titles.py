"""Titles that say what a figure shows: the prediction, and the method, layer, head and class of a map."""

from collections.abc import Iterable


def format_prediction(name: str, probability: float) -> str:
    """Return the predicted class and its probability, as "Predicted: american_bulldog (55 %)"."""
    return format_labels([(name, probability)])


def format_labels(labels: Iterable[tuple[str, float]]) -> str:
    """Return the predicted classes, given with their probabilities, as "Predicted: sky (97 %), sea (81 %)"."""
    parts = [f"{name} ({format_percent(probability)})" for name, probability in labels]
    return f"Predicted: {', '.join(parts) or 'no label'}"


def format_map_title(
    method: str,
    *,
    layer: int | None = None,
    head: int | None = None,
    target: str | None = None,
    probability: float | None = None,
) -> str:
    """Return the title of a map, as "Relevance for Bengal (p = 0.28)" or "Attention, layer 11, head 2".

    target, probability: the explained class and its probability, for a method of a class.
    """
    parts = [method]
    parts += [] if layer is None else [f"layer {layer}"]
    parts += [] if head is None else [f"head {head}"]
    title = ", ".join(parts)
    if target is not None:
        title += f" for {target}"
    return title if probability is None else f"{title} ({_format_probability(probability)})"


def format_percent(share: float) -> str:
    """Return a share in percent. A share that is neither 0 nor 1 is not rounded to one of them."""
    if 0 < share <= 0.005:
        return "< 1 %"
    return "> 99 %" if 0.995 <= share < 1 else f"{100 * share:.0f} %"


def _format_probability(probability: float) -> str:
    if 0 < probability < 0.005:
        return "p < 0.01"
    return "p > 0.99" if 0.995 <= probability < 1 else f"p = {probability:.2f}"
